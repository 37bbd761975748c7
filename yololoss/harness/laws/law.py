"""A law: one property that must hold, and the registry of all laws."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.strategies import SearchStrategy

from yololoss import _suite
from yololoss.harness.cases.case import Case
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.laws.exam import Exam, NotApplicable, Rule, Run
from yololoss.harness.subjects.family import Family, LossUnderTest, family_of_package
from yololoss.harness.subjects.subject import Unsupported

SHARED = "shared"
LAWS: dict[str, dict[str, "Law"]] = {}  # family name or SHARED: law id: law
SEED = 20261122  # of all that is drawn in the same way in every run
# For tests that other tools run, and for cases that are drawn apart from a session. No database: Hypothesis keys it by
# the test's source, and findings are saved in case files.
DRAWING = hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,  # a slow machine is no fault of the loss
    report_multiple_bugs=False,  # one law, one finding
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,  # the finding prints the case, in full
)


@dataclass
class Tally:
    """How often a law was tried and judged, why it did not apply, and what it noted."""

    tried: int = 0
    judged: int = 0  # cases in which there was something to judge
    not_applicable: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Set all counts to zero."""
        self.tried = self.judged = 0
        self.not_applicable.clear()
        self.notes.clear()


@dataclass(frozen=True, kw_only=True)
class Law(Rule):
    """One property of the losses of a family: its statement, and its judgement."""

    family: Family | None  # None: all families
    judge: Callable[[Exam], str | None]
    # A string: a name in `Family.shared_cases`, for laws of all families. A tuple: these cases alone.
    # None: the recorded cases of the subject.
    cases: SearchStrategy[Any] | str | tuple[Case, ...] | None
    choices: tuple[str, ...] = ()
    again: bool = False  # whether it runs the loss again: then it judges only a share of the cases
    on: tuple[str, ...] = ()  # kinds of device; empty: any
    tally: Tally = field(default_factory=Tally)

    def place(self, family: Family) -> tuple[bool, bool, int]:
        """The sort key of a family's laws: cheap ones first, in the order of `Family.parts`."""
        part = self.id.partition(".")[0]
        costly = self.again and part != "input"  # laws about input are quick: the loss refuses the input
        order = (*family.parts, part)  # parts that only shared laws have come last
        return self.id not in family.first, costly, order.index(part)

    def strategy(self, family: Family) -> SearchStrategy[Any] | None:
        """The strategy that draws the law's cases, for that family; None if it has cases of its own."""
        found = family.shared_cases[self.cases] if isinstance(self.cases, str) else self.cases
        return found if isinstance(found, SearchStrategy) else None

    def own(self, subject: LossUnderTest) -> tuple[Case, ...]:
        """The law's own cases: fixed ones, or those recorded of the subject. Empty if its cases are drawn."""
        if self.cases is None:
            return tuple(subject.recorded)
        return self.cases if isinstance(self.cases, tuple) else ()

    def examine(self, run: Run) -> float:
        """Judge one run of a subject. Returns the largest error as a share of the tolerance. Raises LawBroken."""
        self.tally.tried += 1
        subject = run.subject
        # laws about accelerators compare this run with one on the CPU; other laws compare other runs with this one
        exam = Exam(self, run, base=not self.on or subject.compile)
        try:
            if self.cases is not None:  # recorded cases apply whatever the dialect
                excluded = subject.family.excludes(subject.dialect, run.case)
                exam.only_if(excluded is None, str(excluded))
            note = self.judge(exam)
            exam.must_be_made()
            self.tally.judged += exam.judged
            if note is not None:
                self.tally.notes[note] += 1
        except NotApplicable as reason:
            self.tally.not_applicable[str(reason)] += 1
        except Unsupported as option:
            self.tally.not_applicable[f"the subject has no {option}"] += 1
        return exam.nearest

    def assumes(self, subject: LossUnderTest) -> str | None:
        """Why the law does not apply to the subject's family, dialect or device; None if it does."""
        if self.family not in (None, subject.family):
            return f"is not about losses of the family {subject.family.name}"
        if self.cases is None and not subject.recorded:
            return "needs --baseline"
        kind = "compile" if subject.compile else subject.device.type
        if kind not in (self.on or (subject.device.type,)):
            return f"needs --device {' or '.join(self.on)}" if self.on else "is not about compilation"
        other = [choice for choice in self.choices if subject.differs(choice)]
        return f"dialect {subject.dialect} has its own {', '.join(other)}" if other else None


def drawn(strategy: SearchStrategy[Any], count: int, seed: int = SEED) -> list[Case]:
    """At most ``count`` cases of a strategy, the same in every run."""
    found: list[Case] = []

    def collect(case: Case) -> None:
        found.append(case)

    limits = hypothesis.settings(DRAWING, max_examples=count, phases=[hypothesis.Phase.generate])
    hypothesis.seed(seed)(limits(hypothesis.given(case=strategy)(collect)))()
    return list(dict.fromkeys(found))


def law(
    id: str,
    *,
    source: str,
    cases: SearchStrategy[Any] | str | tuple[Case, ...] | None,
    choices: tuple[str, ...] = (),
    again: bool = False,
    on: tuple[str, ...] = (),
    infinite: bool = False,
) -> Callable[[Callable[[Exam], str | None]], Callable[..., None]]:
    """Register the decorated judgement as a law, and make a test of it.

    The law belongs to the family in whose package it is written, or to all families (``properties/shared``). The
    judgement takes an `Exam`. It breaks the law by `Exam.expect`, `Exam.fail` and similar methods; a string that it
    returns is a note for the table of laws. The first paragraph of its docstring is the law's statement.

    ``id`` is the law's part, a dot and a name. ``source`` says where the law comes from, such as a section of the
    specification. ``cases`` is the strategy that draws its cases, a name in `Family.shared_cases`, a tuple of cases, or
    None for the recorded cases of the subject. ``choices`` names the choices (`Family.choices`) that the law assumes;
    it does not apply to dialects that differ in one. ``again`` says that the law runs the loss again, so that it judges
    only a share of the cases. ``on`` names the kinds of device that the law is about; empty means all. With
    ``infinite`` it also judges NaN and infinity; other laws do not.

    Raises ValueError for an id that exists or has an unknown part, and for an unknown choice.
    """

    def decorate(judge: Callable[[Exam], str | None]) -> Callable[..., None]:
        family = family_of_package(judge.__module__.rpartition(".")[0])
        known = LAWS.setdefault(family.name if family else SHARED, {})
        if id in known or id in LAWS.get(SHARED, {}):
            raise ValueError(f"law {id!r}: two judgements have this id")
        if family and id.partition(".")[0] not in family.parts:
            raise ValueError(f"law {id!r}: an id begins with its part (one of {', '.join(family.parts)}) and a dot")
        statement = " ".join((judge.__doc__ or "").split("\n\n")[0].split())
        unknown = [choice for choice in choices if family and choice not in family.choices]
        if family and unknown:
            raise ValueError(f"law {id!r}: no such choice as {unknown[0]!r} (known: {', '.join(family.choices)})")
        entry = known[id] = Law(
            id,
            statement,
            source,
            infinite,
            family=family,
            judge=judge,
            cases=cases,
            choices=choices,
            again=again,
            on=on,
        )

        def examine(subject: LossUnderTest, case: Case) -> None:
            entry.examine(Run(subject, case))

        def examine_all(subject: LossUnderTest) -> None:
            strategy = entry.strategy(subject.family)
            for case in entry.own(subject) if strategy is None else drawn(strategy, DRAWING.max_examples):
                examine(subject, case)

        # The plugin has laws judged by a session. Other tools, and tests without it, run this function.
        test: Callable[..., None] = examine if isinstance(cases, SearchStrategy) else examine_all
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(test, name, getattr(judge, name))
        test = DRAWING(hypothesis.given(case=cases)(test)) if isinstance(cases, SearchStrategy) else test
        examined: Callable[..., None] = pytest.mark.law(entry)(test)
        return examined

    return decorate


def find_laws(family: Family, patterns: Iterable[str] = ()) -> dict[str, Law]:
    """The laws of a family by id, in the order in which they run.

    A pattern is an id, the beginning of an id before a dot, or a glob such as ``totals.*-gain``. Without patterns, all
    laws. Raises UsageError, one line with the closest match, for a pattern that fits no law.
    """
    for package in (_suite.SHARED, family.package):
        for path in sorted(Path(import_module(package).__path__[0]).glob("test_*.py")):
            import_module(f"{package}.{path.stem}")
    found_laws = LAWS.get(SHARED, {}) | LAWS.get(family.name, {})
    known = dict(sorted(found_laws.items(), key=lambda entry: entry[1].place(family)))
    wanted = list(patterns)
    found: set[str] = set()
    for pattern in wanted:
        fits = {id for id in known if id == pattern or id.startswith(f"{pattern}.") or fnmatchcase(id, pattern)}
        if not fits:
            parts = {id.partition(".")[0] for id in known}
            hint = closest(pattern, (*known, *parts)) or "; yololoss laws lists them"
            raise UsageError(f"--laws {pattern}: no such law{hint}")
        found |= fits
    return {id: law for id, law in known.items() if not wanted or id in found}
