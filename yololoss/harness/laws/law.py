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
LAWS: dict[str, dict[str, "Law"]] = {}  # family name or SHARED: law id: law
# The gate is deterministic, so that a pull request is judged on its own change: every law starts from one seed.
# Laws over the same strategy then see the same cases, and the results of subject and reference are cached.
# No database: Hypothesis keys it by the test's source. Findings are saved in case files instead.
GATE_SEED = 20261122
MIRROR_SHARE = 0.1  # of the cases of a law that is not about devices: a case takes five times as long on the mirror
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
    """How often a law was tried, when it first broke, why it did not apply, and what it noted."""

    tried: int = 0
    judged: int = 0  # cases in which there was something to judge
    broke_at: int = 0  # number of the first case that broke it, from 1; 0 if none did
    not_applicable: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def vacuous(self) -> bool:
        """Whether there was nothing to judge or to note in any case."""
        return self.judged == 0 and not self.notes

    def clear(self) -> None:
        """Set all counts to zero."""
        self.tried = self.judged = self.broke_at = 0
        self.not_applicable.clear()
        self.notes.clear()


@dataclass(frozen=True, kw_only=True)
class Law(Rule):
    """One property of the losses of a family: its statement, and its judgement."""

    family: Family | None  # None: all families
    judge: Callable[[Exam], str | None]
    # A string: a name in `Family.shared_cases`, for laws of all families. None: the recorded cases of the subject.
    cases: SearchStrategy[Any] | str | None
    choices: tuple[str, ...] = ()
    most: int | None = None
    on: tuple[str, ...] = ()  # kinds of device; empty: any
    tally: Tally = field(default_factory=Tally)

    @property
    def anew(self) -> bool:
        """Whether it runs the loss again, instead of only judging one run: such laws see fewer cases."""
        return self.most is not None and self.most < GATE.max_examples

    def place(self, family: Family) -> tuple[bool, bool, int]:
        """The sort key of a family's laws: cheap ones first, in the order of `Family.parts`."""
        part = self.id.partition(".")[0]
        costly = self.anew and part != "input"  # laws about input are quick: the loss refuses the input
        order = (*family.parts, part)  # parts that only shared laws have come last
        return self.id not in family.first, costly, order.index(part)

    def strategy(self, family: Family) -> SearchStrategy[Any] | None:
        """The strategy that draws the law's cases, for that family; None if it judges recorded cases."""
        return family.shared_cases[self.cases] if isinstance(self.cases, str) else self.cases

    def examine(self, subject: LossUnderTest, case: Case) -> float:
        """Judge the subject on one case. Returns the largest error as a share of the tolerance. Raises LawBroken."""
        self.tally.tried += 1
        # laws about accelerators compare this run with one on the CPU; other laws compare other runs with this one
        exam = Exam(self, subject, case, base=not self.on or subject.compile)
        try:
            if self.cases is not None:  # recorded cases apply whatever the dialect
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

        A failure that does not repeat also counts: the loss's result depends on more than its inputs. A law that does
        not apply to the subject is not tried.
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
                warnings.filterwarnings("ignore", "Generating overly large repr")  # nobody sees this repr
                (run if seed is None else hypothesis.seed(seed)(run))()
        except Exception as error:
            broken = _broken(error)
            if broken is None:
                raise
            with suppress(Unsupported):  # the loss lacks an option in both runs
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
    # Hypothesis raises an exception group if a failure does not repeat.
    return next(filter(None, map(_broken, getattr(error, "exceptions", ()))), None)


def drawn(strategy: SearchStrategy[Any], count: int, seed: int = GATE_SEED) -> list[Case]:
    """At most ``count`` cases of a strategy, the same in every run."""
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
    """Register the decorated judgement as a law, and make a test of it.

    The law belongs to the family in whose package it is written, or to all families (``properties/shared``). The
    judgement takes an `Exam`. It breaks the law by `Exam.expect`, `Exam.fail` and similar methods; a string that it
    returns is a note for the table of laws. The first paragraph of its docstring is the law's statement.

    ``id`` is the law's part, a dot and a name. ``source`` says where the law comes from, such as a section of the
    specification. ``cases`` is the strategy that draws its cases, a name in `Family.shared_cases`, or None for the
    recorded cases of the subject. ``choices`` names the choices (`Family.choices`) that the law assumes; it does not
    apply to dialects that differ in one. ``most`` is how many cases the law sees in the gate, if fewer than others;
    longer runs are in proportion. ``on`` names the kinds of device that the law is about; empty means all. With
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
        # The plugin searches with its own settings. As a @given test the law can also be run by other tools.
        test = test if drawn is None else GATE(hypothesis.given(case=drawn)(test))
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
