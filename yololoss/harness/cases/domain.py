"""Domains: the cases that a law is about, and how one is drawn.

A case is drawn as one string of bytes of fixed length. Each byte is a choice, and 0 is the simplest. One draw is cheap
and uniform. Hypothesis draws wide integers near 0, and varies several draws by copying parts of them, which would
repeat five of six cases. Bytes shrink one by one, to a case that can be checked by hand.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import event
from hypothesis import strategies as st

from yololoss.harness.cases.case import Case

T = TypeVar("T")


class Choices:
    """Reads choices from bytes, one after the other. The byte 0 always means the first option."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def index(self, count: int) -> int:
        """An index below ``count``. Every index can be drawn if ``count`` is at most 256."""
        byte = next(self._data)
        return byte % count if count <= 256 else byte * count // 256

    def of(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.index(len(values))]

    def wide(self) -> int:
        """A 16-bit number."""
        return 256 * next(self._data) + next(self._data)


class Domain(ABC):
    """The valid cases that a law is about. It makes a case from bytes, and says whether a case belongs to it.

    Two equal domains draw the same cases, so derive frozen dataclasses from it.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes a case is made from."""

    @property
    def only_own(self) -> bool:
        """Whether its cases are too costly for the laws of other domains."""
        return False

    @abstractmethod
    def case(self, data: bytes) -> Case:
        """The case made from ``size`` bytes. All bytes 0 give the simplest case."""

    @abstractmethod
    def holds(self, case: Case) -> bool:
        """Whether a case that was made for another domain belongs to this one too, so that its laws may judge it."""

    def narrowed(self, dialect: Any) -> "Domain | None":
        """The part of it that losses of a dialect can answer, which may be tied to their sizes; None without one."""
        return self

    def regions(self, case: Case) -> Sequence[str]:
        """The family's regions (`Family.regions`) in which the case lies."""
        return ()


@st.composite
def _drawn(draw: st.DrawFn, domain: Domain) -> Any:
    case = domain.case(draw(st.binary(min_size=domain.size, max_size=domain.size)))
    for region in domain.regions(case):
        event(region)
    return case


_DOMAINS: dict[st.SearchStrategy[Any], tuple[Domain, ...]] = {}


def strategy(domain: Domain) -> st.SearchStrategy[Any]:
    """A strategy that draws the cases of a domain."""
    made = _drawn(domain)
    _DOMAINS[made] = (domain,)
    return made


def any_of(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A strategy that draws from all of these strategies."""
    made = st.one_of(*strategies)
    _DOMAINS[made] = tuple(domain for each in strategies for domain in domains(each))
    return made


def domains(strategy: st.SearchStrategy[Any] | None) -> tuple[Domain, ...]:
    """The domains that a strategy of this module draws from; empty for any other strategy."""
    return _DOMAINS.get(strategy, ()) if strategy is not None else ()
