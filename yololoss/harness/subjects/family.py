"""A family of losses: everything that the harness knows about one.

No other module of the harness refers to a particular family. A family is a kind of loss with its own specification,
reference, laws and vectors. A dialect is one option for every choice that a correct loss of the family may make.
``properties/v5/family.py`` is an example.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from hypothesis.strategies import SearchStrategy

from yololoss import _suite
from yololoss.harness.cases.case import Case, Data
from yololoss.harness.cases.vectors import Vector, register
from yololoss.harness.devices.devices import Around
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.dialect import Recognised, write_dialect
from yololoss.harness.subjects.outcome import Grid, Outcome, Trouble
from yololoss.harness.subjects.subject import Make, Subject

_FAMILIES: dict[str, "Family"] = {}


class Wrong(NamedTuple):
    """How a law broke, for a family to put in words."""

    law: str
    title: str  # the law's
    what: str
    expected: str
    observed: str
    kind: str = ""


class Budget(Protocol):
    """How far rounding may take a right loss from the reference, in the shapes of an outcome."""

    because: str  # why, for the message of a law

    def __init__(self, case: Any, dialect: Any) -> None: ...

    @property
    def totals(self) -> Sequence[float]:
        """Of the total of each call."""

    @property
    def items(self) -> Sequence[Grid]:
        """Of the items of each call."""

    @property
    def gradients(self) -> Sequence[Grid]:
        """Of the gradient of the last call's total, one array for each tensor of predictions."""


class SavedSteps:
    """What is asked of a saved step of a training run. This one has no answers, for families that save no steps."""

    def smaller(self, case: Any) -> Iterator[Case]:
        """The case with less in it: for a case that came from a training run, the most promising first."""
        yield from ()

    def kept_of(self, case: Any, step: Any) -> str:
        """What is left of a training step in a case that has less in it, in words; "" if there is nothing to say."""
        return ""

    def invalid_input(self, case: Any) -> Sequence[str]:
        """What a trainer should not give a loss of this case, such as a target without height, in a line each."""
        return ()

    def usual_causes(self, law: str, case: Any) -> Sequence[str]:
        """Why a law usually breaks in a training run, the most probable first, each with what to look at."""
        return ()


class Family(ABC):
    """One family. Derive from it, and make one instance, which registers itself under its name.

    The attributes without a default must be set by the derived class.
    """

    name: str
    package: str  # its modules test_*.py hold the laws
    bundled: str  # the loss of this family that comes with the package, in the form that --loss takes
    case: type[Case]
    expected: type[Data]  # what a vector records of an outcome
    reference: type[Any]  # the independent model of a case
    budget: type["Budget"]  # of a case: how far rounding may take a correct loss of a dialect from the reference
    given_to: str = "what its family gives"  # what a loss that needs no adapter is built from and called with, in words
    items: tuple[str, ...]  # names of what a loss returns besides its total, in order
    parts: tuple[str, ...]  # the parts of law ids, in the order in which the loss works: laws run in this order
    first: tuple[str, ...] = ()  # ids of laws that run before all others
    # Which earlier laws, by id or part, may explain that a law broke; by the law's id, else its part. Without an entry:
    # all earlier ones.
    given: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    # Laws that break for the same reason as an earlier one if they mostly break on the same cases, by id: such as the
    # law of a gradient, and that of the value.
    follows: Mapping[str, str] = MappingProxyType({})
    # laws that say nothing new of a loss that breaks a law which may explain them, on whatever case
    of_right_values: frozenset[str] = frozenset()
    # parts whose laws may hold where a fault of theirs is behind a broken law of a later part, and break elsewhere
    half_seen: frozenset[str] = frozenset()
    # laws or parts that read from gradients which rows there are: so they may explain a wrong value too
    seen_in_gradients: frozenset[str] = frozenset()
    never_known: tuple[str, ...] = ()  # ids of laws that no record takes as known: no loss is meant to break them
    # The parts of laws about what a loss shows of its own steps, such as its rows, and what that is in words.
    shown: tuple[str, ...] = ()
    shows: str = ""
    dialects: Mapping[str, Data]  # the known ones by name, all of one type, whose fields are the choices
    usual_dialect: str  # the default
    own_dialect: str  # the bundled loss's
    numbers: tuple[float, ...] = ()  # of its specification and dialects, which a right loss may contain
    regions: tuple[str, ...] = ()  # names of the places that cases should reach
    # The cases of the laws that all families share, by name: "any", "every kind" (whatever may raise), "with targets",
    # "crowded" (several targets compete for one place); and fixed ones, "a few": of usual sizes, with some targets.
    shared_cases: ClassVar[Mapping[str, SearchStrategy[Any] | tuple[Case, ...]]]
    steps: SavedSteps = SavedSteps()
    standard: SearchStrategy[Any]  # cases on which two correct implementations agree: for baselines and diffs

    def __init__(self) -> None:
        register(self.case, self.expected)
        _FAMILIES[self.name] = self

    @abstractmethod
    def adapt(self, found: Any, module: ModuleType) -> Make:
        """A function that makes subjects from a class or function. Raises TypeError, one line, for an unknown form."""

    @abstractmethod
    def write_down(self, outcome: Outcome) -> Data:
        """What a loss did, in the form that a vector stores."""

    @abstractmethod
    def comparisons(self, case: Case, expected: Any, outcome: Outcome) -> Iterator[Comparison]:
        """Everything that is recorded of a case, compared with the outcome."""

    @abstractmethod
    def draw(self, case: Case, title: str, outcome: Outcome | None, dialect: Any) -> Any:
        """A matplotlib Figure of the case. It marks where an outcome differs from the reference in a dialect."""

    def title(self, wrong: Wrong, case: Case, outcome: Outcome | None, dialect: Any) -> str:
        """What is wrong, in a sentence, as the title of a report on the fault."""
        raised = re.fullmatch(r"raised in (.*?): (.*?): (.*?)(, at \S+:\d+ in \S+)?(; .*)?", wrong.observed)
        return wrong.title if raised is None else f"{raised[2]} in {raised[1]}{raised[4] or ''}: {raised[3]}"

    def worked_out(self, case: Case, outcome: Outcome | None, dialect: Any) -> Iterator[str]:
        """What is computed of the case, step by step, in lines of numbers, and where the outcome differs."""
        yield from ()

    def exported(self, law: Any, case: Case, title: str, under_test: "LossUnderTest") -> str:
        """A test of the case for the loss's own project, as text. Raises UsageError if there can be none."""
        raise UsageError(f"{law.id}: losses of the family {self.name} have no test that can be exported")

    def regions_of(self, case: Case) -> Sequence[str]:
        """The names from `regions` in which a case lies."""
        return ()

    def golden(self) -> dict[str, Case]:
        """Recorded cases by id. Every baseline contains them."""
        return {}

    def in_order(self, dialect: Any, items: tuple[float, ...]) -> tuple[float, ...]:
        """A loss's items in the order of `items`, for a dialect that returns them in another."""
        return items

    def resized(self, dialect: Any, case: Any) -> Any:
        """The case in a size that losses of the dialect take, if they are tied to one and the case can be changed."""
        return case

    def without(self, part: str, law: str, case: Any) -> Case | None:
        """The case on which a fault of a part has no effect on what a law of a later part is about.

        If the law breaks there, it has another reason. None if no such case is known.
        """
        return None

    def excludes(self, dialect: Any, case: Case) -> str | None:
        """Why losses of the dialect cannot answer the case; None if they can."""
        return None

    def budget_of(self, subject: "LossUnderTest", case: Case) -> Budget:
        """The budget of a case for a loss, which may be run for what its dialect leaves to the loss itself.

        Raises Unsupported if the loss does not show it.
        """
        return self.budget(case, subject.dialect)

    def budget_as_shown(self, subject: "LossUnderTest", case: Case, outcome: Outcome) -> Budget | None:
        """The budget of a case, given what the loss itself shows of its steps (`shown`); None if that cannot be used.

        By it, later steps are judged even where an earlier one is wrong.
        """
        return None

    def recognise(self, subject: "LossUnderTest", named: Any | None) -> Recognised | None:
        """The dialect of a loss, by what it does. Of a named one only what the loss contradicts is changed.

        None if losses of the family cannot be recognised.
        """
        return None

    def other_kind(self, subject: "LossUnderTest", raised: Trouble | None) -> str | None:
        """What a loss is that is of no kind that the laws are about, and what to do, in one line; None if it is not.

        ``raised``: what it raises on every case; None if it can be called.
        """
        return None

    def training(self, loss: Any, model: Any | None) -> Any:
        """What a recorder reads of a loss in a training run (`harness.training`). Raises UsageError if it cannot."""
        raise UsageError(f"{type(loss).__name__}: the steps of losses of the family {self.name} cannot be watched yet")

    def proofs(self, task: Any, **asked: Any) -> Iterator[Any]:
        """Proofs by exhaustion (`harness.prove.proof.Proof`), one after another. Raises UsageError if it has none."""
        raise UsageError(f"{task.loss}: losses of the family {self.name} have no proofs")

    def module(self, name: str) -> Any:
        """A module of the family's package, such as its strategies."""
        return import_module(f"{self.package}.{name}")


def find_family(name: str) -> Family:
    """The family of that name: the package's own, or one that was imported. Raises UsageError."""
    if name not in _FAMILIES:
        _suite.load_families()
    if name not in _FAMILIES:
        raise UsageError(f"family {name}: no such family{closest(name, _FAMILIES)} (known: {', '.join(_FAMILIES)})")
    return _FAMILIES[name]


def family_of_package(package: str) -> Family | None:
    """The family whose laws are in a package; None if its laws are for all families.

    For any other package, such as a user's own tests, it is the first of `_suite.FAMILIES`.
    """
    if package == _suite.SHARED:
        return None
    found = next((family for family in _FAMILIES.values() if family.package == package), None)
    return found or find_family(_suite.FAMILIES[0])


USUAL = Around()


@dataclass(frozen=True)
class LossUnderTest:
    """The loss under test on one device. It makes a new subject for every case."""

    spec: str
    make: Callable[[Any, torch.device], Subject]
    device: torch.device
    family: Family
    dialect: Any  # one of the family's type of dialect
    around: Around = USUAL
    compile: bool = False  # judged only by the laws about compilation
    limit: float | None = None  # seconds that a case may take; None: the default
    # What the loss did with some cases when they were recorded, the smallest first (`--baseline`).
    recorded: Mapping[Case, Any] = field(default_factory=dict, compare=False)

    @property
    def dialect_text(self) -> str:
        """Its dialect, as ``--dialect`` takes it."""
        return write_dialect(self.dialect, self.family.dialects)


def with_record(under_test: LossUnderTest, vector: Vector[Any, Any]) -> LossUnderTest:
    """The loss, compared with what is recorded in a saved case, if anything is."""
    return under_test if vector.expected is None else replace(under_test, recorded={vector.case: vector.expected})
