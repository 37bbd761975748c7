"""A law: one property that must hold, and the registry of all laws."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
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
from yololoss.harness.devices.mirror import NAME as MIRROR
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.laws.exam import Exam, LawBroken, NotApplicable, Rule
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import Family, LossUnderTest, family_of_package
from yololoss.harness.subjects.subject import Unsupported

SHARED = "shared"
LAWS: dict[str, dict[str, "Law"]] = {}  # by the name of the family, or SHARED, by id
# The gate is deterministic, so that a pull request is judged on its own change: every law starts from one seed.
# Laws over the same strategy then see the same cases, and what subject and reference make of them is remembered.
# No database: Hypothesis keys it by the test's source; what is found is kept in case files.
GATE_SEED = 20261122
MIRROR_SHARE = 0.1  # of the cases of a law that is not about devices: one takes five times as long on the mirror
GATE = hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,  # a slow machine is no fault of the loss
    report_multiple_bugs=False,  # one law, one finding
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,  # the finding prints the case, in full
)


@dataclass
class Tally:
    """How often a law was tried, when it first broke, why it did not apply, what it noted where it judges nothing."""

    tried: int = 0
    judged: int = 0  # cases in which there was something to judge
    broke_at: int = 0  # the how many-th case; 0 where none broke it
    not_applicable: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def vacuous(self) -> bool:
        """Whether there was nothing to judge or to note in any case."""
        return self.judged == 0 and not self.notes

    def clear(self) -> None:
        """Start counting anew."""
        self.tried = self.judged = self.broke_at = 0
        self.not_applicable.clear()
        self.notes.clear()


@dataclass(frozen=True, kw_only=True)
class Law(Rule):
    """One property of the losses of a family: what it says, and the judgement itself."""

    family: Family | None  # None: all families
    judge: Callable[[Exam], str | None]
    # A name: that of `Family.shared_cases`, for laws of all families. None: the cases that are recorded of the subject.
    cases: SearchStrategy[Any] | str | None
    choices: tuple[str, ...] = ()
    most: int | None = None
    on: tuple[str, ...] = ()  # kinds of device; any where there is none
    tally: Tally = field(default_factory=Tally)

    @property
    def anew(self) -> bool:
        """Whether it runs the loss anew, and not only judges what it did: it sees fewer cases."""
        return self.most is not None and self.most < GATE.max_examples

    def place(self, family: Family) -> tuple[bool, bool, int]:
        """What the laws of a family are sorted by: cheap ones first, in the order of `Family.parts`."""
        part = self.id.partition(".")[0]
        costly = self.anew and part != "input"  # those end at once
        return self.id not in family.first, costly, family.parts.index(part)

    def strategy(self, family: Family) -> SearchStrategy[Any] | None:
        """Draws the law's cases, of that family; None if they are those that are recorded."""
        return family.shared_cases[self.cases] if isinstance(self.cases, str) else self.cases

    def examine(self, subject: LossUnderTest, case: Case) -> float:
        """Judge the subject on one case. Raises LawBroken. Returns the largest error, as a share of what is allowed."""
        self.tally.tried += 1
        # what runs on an accelerator is compared with the CPU's, all else with this run
        exam = Exam(self, subject, case, base=not self.on or subject.compile)
        try:
            if self.cases is not None:  # what is recorded of a subject holds for it, whatever its dialect
                excluded = subject.family.excludes(subject.dialect, case)
                exam.only_if(excluded is None, str(excluded))
            note = self.judge(exam)
            exam.must_be_made()
            self.tally.judged += exam.judged
            if note is not None:
                self.tally.notes[note] += 1
        except LawBroken:
            self.tally.broke_at = self.tally.broke_at or self.tally.tried
            raise
        except NotApplicable as reason:
            self.tally.not_applicable[str(reason)] += 1
        except Unsupported as option:
            self.tally.not_applicable[f"the subject has no {option}"] += 1
        return exam.nearest

    def search(self, subject: LossUnderTest, settings: hypothesis.settings, seed: int | None) -> None:
        """Judge the subject on many cases. Raises LawBroken with the smallest case that breaks the law.

        A failure that does not repeat is one as well: the loss is no function of what it is given. A law that does not
        apply to the subject is not tried.
        """
        if self.assumes(subject) is not None:
            return
        cases = self.strategy(subject.family)
        if cases is None:
            for case in subject.recorded:
                self.examine(subject, case)
            return

        def test(case: Case) -> None:
            self.examine(subject, case)

        share = 1.0 if self.most is None else self.most / GATE.max_examples
        if subject.device.type == MIRROR and not self.on:
            share *= MIRROR_SHARE
        settings = hypothesis.settings(settings, max_examples=math.ceil(settings.max_examples * share))
        run = settings(hypothesis.given(case=cases)(test))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Generating overly large repr")  # which nobody is shown
                (run if seed is None else hypothesis.seed(seed)(run))()
        except Exception as error:
            broken = _broken(error)
            if broken is None:
                raise
            with suppress(Unsupported):  # what the loss does not have, it does not have again
                broken.repeats = execute(subject, broken.case).same(execute(subject, broken.case))
            raise broken from None

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


def _broken(error: BaseException) -> LawBroken | None:
    if isinstance(error, LawBroken):
        return error
    # Hypothesis groups what it saw when a failure does not repeat.
    return next(filter(None, map(_broken, getattr(error, "exceptions", ()))), None)


def drawn(strategy: SearchStrategy[Any], count: int, seed: int = GATE_SEED) -> list[Case]:
    """Some cases of a strategy, the same every time."""
    found: list[Case] = []

    def collect(case: Case) -> None:
        found.append(case)

    limits = hypothesis.settings(GATE, max_examples=count, phases=[hypothesis.Phase.generate])
    hypothesis.seed(seed)(limits(hypothesis.given(case=strategy)(collect)))()
    return list(dict.fromkeys(found))


def law(
    id: str,
    *,
    source: str,
    cases: SearchStrategy[Any] | str | None,
    choices: tuple[str, ...] = (),
    most: int | None = None,
    on: tuple[str, ...] = (),
    infinite: bool = False,
) -> Callable[[Callable[[Exam], str | None]], Callable[..., None]]:
    """Register the decorated judgement as a law, and make of it a test over ``cases``; None: those that are recorded.

    The law belongs to the family in whose package it is written, or to all (``properties/shared``). The judgement
    breaks the law by `Exam.expect` and the like; what it returns is a note for the table of laws. The first paragraph
    of its docstring is the law's statement. ``choices`` names what the law assumes and dialects may choose otherwise
    (`Family.choices`). ``most`` is how many cases the law sees in the gate, if not as many as others; longer runs are
    in proportion. ``on`` names the kinds of device that it is about, if not all. ``infinite``: it judges NaN and
    infinity as well, which other laws do not.
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
            most=most,
            on=on,
        )

        def search(subject: LossUnderTest) -> None:
            entry.search(subject, GATE, GATE_SEED)

        def examine(subject: LossUnderTest, case: Case) -> None:
            entry.examine(subject, case)

        drawn = cases if isinstance(cases, SearchStrategy) else None
        test: Callable[..., None] = search if drawn is None else examine
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(test, name, getattr(judge, name))
        # The plugin searches by its own settings; as a @given test the law can be run by other tools as well.
        test = test if drawn is None else GATE(hypothesis.given(case=drawn)(test))
        examined: Callable[..., None] = pytest.mark.law(entry)(test)
        return examined

    return decorate


def find_laws(family: Family, patterns: Iterable[str] = ()) -> dict[str, Law]:
    """The laws of a family, in the order in which they run: of these ids, or whose ids they begin or match; else all.

    Raises UsageError, one line with the closest match, for a pattern that fits no law.
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
