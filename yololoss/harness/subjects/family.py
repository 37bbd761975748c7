"""A family of losses: all that the harness knows of one. No other module of the harness names a family's own things.

A family is a kind of loss with a specification, a reference, laws and vectors of its own. A dialect is a set of choices
that a right loss of the family may make. ``properties/v5/family.py`` is an example.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Protocol

import torch
from hypothesis.strategies import SearchStrategy

from yololoss import _suite
from yololoss.harness.cases.case import Case, Data
from yololoss.harness.cases.vectors import Vector, register
from yololoss.harness.devices.devices import Around
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.outcome import Grid, Outcome
from yololoss.harness.subjects.subject import Make, Subject

_FAMILIES: dict[str, "Family"] = {}


class Budget(Protocol):
    """How far rounding may take a right loss from the reference, in the shapes of an outcome."""

    because: str  # why, for the message of a law

    def __init__(self, case: Any) -> None: ...

    @property
    def totals(self) -> Sequence[float]:
        """Of the total of each call."""

    @property
    def items(self) -> Sequence[Grid]:
        """Of the items of each call."""

    @property
    def gradients(self) -> Sequence[Grid]:
        """Of the gradient of the last call's total, one array for each tensor of predictions."""


class Family(ABC):
    """One family. An instance registers itself under its name."""

    name: str
    package: str  # its modules test_*.py hold the laws
    bundled: str  # the loss of this family that comes with the package, as --loss takes it
    case: type[Case]
    expected: type[Data]  # what a vector records of an outcome
    reference: type[Any]  # the independent model of a case
    budget: type["Budget"]  # of a case: how far rounding may take a right loss from the reference
    items: tuple[str, ...]  # what a loss returns beside its total, in order
    parts: tuple[str, ...]  # the parts of law ids, in the order in which the loss works: laws run in this order
    first: tuple[str, ...] = ()  # ids of laws that run before all others
    choices: Mapping[str, str]  # what a right loss may do otherwise than upstream: name, and what upstream does
    dialects: Mapping[str, frozenset[str]]  # the choices in which each dialect differs
    usual_dialect: str
    own_dialect: str  # of the bundled loss
    regions: tuple[str, ...] = ()  # names of the places that cases should reach
    # The cases of the laws that all families share, by name: "any", "every kind" (whatever may raise), "with targets",
    # "crowded" (several targets compete for one place).
    shared_cases: ClassVar[Mapping[str, SearchStrategy[Any]]]
    standard: SearchStrategy[Any]  # cases on which two right implementations agree: for baselines and diffs

    def __init__(self) -> None:
        register(self.case, self.expected)
        _FAMILIES[self.name] = self

    @abstractmethod
    def adapt(self, found: Any, module: ModuleType) -> Make:
        """A maker of subjects from a class or function. Raises TypeError, one line, for a form it does not know."""

    @abstractmethod
    def write_down(self, outcome: Outcome) -> Data:
        """What a loss did, as a vector keeps it."""

    @abstractmethod
    def comparisons(self, case: Case, expected: Any, outcome: Outcome) -> Iterator[Comparison]:
        """All that is recorded of a case, beside the outcome."""

    @abstractmethod
    def draw(self, case: Case, title: str, outcome: Outcome | None) -> Any:
        """A matplotlib Figure of the case, and of what an outcome has otherwise than the reference."""

    def regions_of(self, case: Case) -> Sequence[str]:
        """Those of `regions` in which a case lies."""
        return ()

    def golden(self) -> dict[str, Case]:
        """Recorded cases by id, which are part of every baseline."""
        return {}

    def excludes(self, dialect: str, case: Case) -> str | None:
        """Why losses of the dialect have no answer to the case; None where they have."""
        return None

    def only_noted(self, law: str, dialect: str) -> bool:
        """Whether the law notes what losses of this dialect do, and judges nothing."""
        return False

    def proofs(self, task: Any, **asked: Any) -> Iterator[Any]:
        """Proofs by exhaustion (`harness.prove.proof.Proof`), one after another. Raises UsageError without any."""
        raise UsageError(f"{task.loss}: losses of the family {self.name} have no proofs")

    def differs(self, dialect: str, choice: str) -> bool:
        """Whether the dialect differs from upstream in a choice."""
        return choice in self.dialects[dialect]

    def module(self, name: str) -> Any:
        """A module of the family's package, such as its strategies."""
        return import_module(f"{self.package}.{name}")


def find_family(name: str) -> Family:
    """The family of that name: one of the package, or one that was imported. Raises UsageError."""
    if name not in _FAMILIES:
        _suite.load_families()
    if name not in _FAMILIES:
        raise UsageError(f"family {name}: no such family{closest(name, _FAMILIES)} (known: {', '.join(_FAMILIES)})")
    return _FAMILIES[name]


def family_of_package(package: str) -> Family | None:
    """The family whose laws are in a package; None if they are of all families.

    For a package that is no family's, such as a user's own tests, it is the first family of all.
    """
    if package == _suite.SHARED:
        return None
    found = next((family for family in _FAMILIES.values() if family.package == package), None)
    return found or find_family(_suite.FAMILIES[0])


USUAL = Around()


@dataclass(frozen=True)
class LossUnderTest:
    """Makes a new subject for every case."""

    spec: str
    make: Callable[[Any, torch.device], Subject]
    device: torch.device
    family: Family
    dialect: str  # a key of the family's dialects
    around: Around = USUAL
    compile: bool = False  # judged by the laws of compilation, and by no others
    limit: float | None = None  # seconds that a case may take, if not the usual
    # What it did with some cases when that was recorded, the smallest first (`--baseline`).
    recorded: Mapping[Case, Any] = field(default_factory=dict, compare=False)

    def differs(self, choice: str) -> bool:
        """Whether its dialect differs from upstream in a choice."""
        return self.family.differs(self.dialect, choice)


def with_record(under_test: LossUnderTest, vector: Vector[Any, Any]) -> LossUnderTest:
    """The loss, held to what is recorded with a saved case, if anything is."""
    return under_test if vector.expected is None else replace(under_test, recorded={vector.case: vector.expected})
