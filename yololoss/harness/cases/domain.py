"""Domains: the cases that a law is about, and how one is drawn.

A case is drawn as one string of bytes of fixed length, each byte a choice that is simplest at 0. One draw is cheap and
uniform; Hypothesis draws wide integers near 0, and varies several draws by copying parts of them, which would repeat
five cases of six. Bytes shrink one by one, to a case that a person can check.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import event
from hypothesis import strategies as st

from yololoss.harness.cases.case import Case

T = TypeVar("T")


class Choices:
    """Reads choices off bytes, one after the other; 0 is always the first of what there is to choose from."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def index(self, count: int) -> int:
        """One of ``count``; every one can be drawn if they are at most 256."""
        byte = next(self._data)
        return byte % count if count <= 256 else byte * count // 256

    def of(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.index(len(values))]

    def wide(self) -> int:
        """A number of 16 bits."""
        return 256 * next(self._data) + next(self._data)


class Domain(ABC):
    """The valid cases that a law is about: makes a case of bytes, and says whether a case is one of them.

    Two domains that are equal draw the same cases, so derive from it by a frozen dataclass.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes a case is made of."""

    @property
    def only_own(self) -> bool:
        """Whether its cases are too costly for the laws of other domains."""
        return False

    @abstractmethod
    def case(self, data: bytes) -> Case:
        """The case that ``size`` bytes are; all 0 is the simplest."""

    @abstractmethod
    def holds(self, case: Case) -> bool:
        """Whether a case that was made for another domain is one of these as well, so that a law may judge it."""

    def regions(self, case: Case) -> Sequence[str]:
        """The regions, of those that the family names, in which the case lies."""
        return ()


@st.composite
def _drawn(draw: st.DrawFn, domain: Domain) -> Any:
    case = domain.case(draw(st.binary(min_size=domain.size, max_size=domain.size)))
    for region in domain.regions(case):
        event(region)
    return case


_DOMAINS: dict[st.SearchStrategy[Any], tuple[Domain, ...]] = {}


def strategy(domain: Domain) -> st.SearchStrategy[Any]:
    """Draws the cases of a domain."""
    made = _drawn(domain)
    _DOMAINS[made] = (domain,)
    return made


def any_of(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draws the cases of all of these strategies."""
    made = st.one_of(*strategies)
    _DOMAINS[made] = tuple(domain for each in strategies for domain in domains(each))
    return made


def domains(strategy: st.SearchStrategy[Any] | None) -> tuple[Domain, ...]:
    """The domains that a strategy of this module draws from; none for any other strategy."""
    return _DOMAINS.get(strategy, ()) if strategy is not None else ()
