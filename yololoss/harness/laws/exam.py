"""A law, and an exam: one law's examination of one subject on one case."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from hypothesis.strategies import SearchStrategy
from numpy.typing import ArrayLike, NDArray

from yololoss.harness.cases.case import Case
from yololoss.harness.devices.devices import Around
from yololoss.harness.subjects.comparison import Aspect, Comparison
from yololoss.harness.subjects.compiled import Compiled
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import Budget, Family, LossUnderTest, Wrong
from yololoss.harness.subjects.outcome import Call, Grid, Outcome, Trouble
from yololoss.harness.subjects.subject import CalledSo, Calling, Subject, Unsupported

T = TypeVar("T")
HUNG = "did not return"
ELSEWHERE = "the same case in another run"  # where a law breaks if the subject raises there, and not in the first run
NO_ANSWER = ("raised", HUNG, "exited", "killed")  # kinds of trouble after which there is no result


class NotApplicable(Exception):
    """The law does not apply to this case or subject. The message is the reason."""


class Run:
    """One run of a subject on a case: what it did, and what was computed of the case, once for all laws about it."""

    def __init__(self, subject: LossUnderTest, case: Case, shown: Budget | None = None) -> None:
        self.subject, self.case = subject, case
        self.judged_as_shown = shown is not None  # whether its budget is made from what the loss shows of its steps
        self._made: dict[Callable[[Any], Any], Any] = {} if shown is None else {subject.family.budget: shown}
        self.broke: dict[str, Any] = {}  # by law: how it broke, or whether it nearly did, if it may explain another one

    @cached_property
    def outcome(self) -> Outcome:
        """What the subject did with the case. The subject is run on first use."""
        return execute(self.subject, self.case)

    @property
    def answered(self) -> bool:
        """Whether the loss gave a result, if it ran. If not, laws that run it again need not: it would give none."""
        return not any(trouble.kind.startswith(NO_ANSWER) for trouble in self._troubles)

    @property
    def trains(self) -> bool:
        """Whether the loss gives gradients. One that lacks an option of the case gives nothing."""
        with suppress(Unsupported):
            return bool(self.outcome.gradients)
        return False

    @property
    def hung(self) -> bool:
        """Whether the loss was interrupted, since it did not return."""
        return any(trouble.kind == HUNG for trouble in self._troubles)

    @property
    def _troubles(self) -> tuple[Trouble, ...]:
        return self.outcome.troubles if "outcome" in vars(self) else ()

    @cached_property
    def finite(self) -> tuple[bool, bool]:
        """Whether all that the calls returned is finite, and all gradients."""
        calls = [value for call in self.outcome.calls for value in (call.total, *call.items)]
        return bool(np.isfinite(calls).all()), all(np.isfinite(g).all() for g in self.outcome.gradients)

    def of(self, make: Callable[[Any], T]) -> T:
        """``make(case)``, such as a reference model, computed once."""
        if make not in self._made:
            self._made[make] = make(self.case)
        return self._made[make]  # type: ignore[no-any-return]  # each ``make`` has its own type

    @cached_property
    def as_shown(self) -> "Run | None":
        """The same run, judged by what the loss shows of its own steps; None if it shows nothing that can be used."""
        shown = self.subject.family.budget_as_shown(self.subject, self.case, self.outcome)
        if shown is None:
            return None
        run = Run(self.subject, self.case, shown)
        run.outcome = self.outcome
        return run

    @property
    def budget(self) -> Budget:
        """How far rounding may take a right loss of its dialect from the reference; made once."""
        family = self.subject.family
        if family.budget not in self._made:
            self._made[family.budget] = family.budget_of(self.subject, self.case)
        return self._made[family.budget]  # type: ignore[no-any-return]  # what is made has many types


@dataclass
class Tally:
    """How often a law was tried and judged, why it did not apply, what it noted, and what explained that it broke."""

    tried: int = 0
    judged: int = 0  # cases in which there was something to judge
    not_applicable: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)  # by the earlier law that broke on the same cases

    def clear(self) -> None:
        """Set all counts to zero."""
        self.tried = self.judged = 0
        self.not_applicable.clear()
        self.notes.clear()
        self.explained.clear()


@dataclass(frozen=True)
class Law:
    """One property of the losses of a family: its statement, and its judgement."""

    id: str
    statement: str  # in one sentence
    title: str  # of a report on its being broken
    source: str
    family: Family | None  # None: all families
    judge: Callable[["Exam"], str | None]
    # A string: a name in `Family.shared_cases`, for laws of all families. A tuple: these cases alone.
    # None: the recorded cases of the subject.
    cases: SearchStrategy[Any] | str | tuple[Case, ...] | None
    only: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)  # the dialects: choice, option or options
    again: bool = False  # whether it runs the loss again: then it judges only a share of the cases
    on: tuple[str, ...] = ()  # kinds of device; empty: any
    infinite: bool = False  # whether it also judges NaN and infinity
    several: bool = False  # whether it tells faults apart (`Exam.fail`), so that each is a finding of its own
    everywhere: bool = False  # whether it holds for every valid case, and not only for those of its domain
    tally: Tally = field(default_factory=Tally)

    def place(self, family: Family) -> tuple[int, bool, int]:
        """The sort key of a family's laws: cheap ones first, in the order of `Family.parts`."""
        part = self.id.partition(".")[0]
        costly = self.again and not self.about_input  # laws about input are quick: the loss refuses the input
        order = (*family.parts, part)  # parts that only shared laws have come last
        first = family.first.index(self.id) if self.id in family.first else len(family.first)
        return first, costly, order.index(part)

    def strategy(self, family: Family) -> SearchStrategy[Any] | None:
        """The strategy that draws the law's cases, for that family; None if it has cases of its own."""
        found = self._of(family)
        return found if isinstance(found, SearchStrategy) else None

    def fixed(self, family: Family) -> tuple[Case, ...]:
        """The law's own cases, for that family; none if they are drawn or recorded."""
        found = self._of(family)
        return found if isinstance(found, tuple) else ()

    def own(self, subject: LossUnderTest) -> tuple[Case, ...]:
        """The law's own cases: fixed ones, or those recorded of the subject. Empty if its cases are drawn."""
        if self.cases is None:
            return tuple(subject.recorded)
        return tuple(subject.family.resized(subject.dialect, case) for case in self.fixed(subject.family))

    def _of(self, family: Family) -> SearchStrategy[Any] | tuple[Case, ...] | None:
        return family.shared_cases[self.cases] if isinstance(self.cases, str) else self.cases

    def examine(self, run: Run) -> float:
        """Judge one run of a subject. Returns the largest error as a share of the tolerance. Raises LawBroken."""
        self.tally.tried += 1
        subject = run.subject
        # laws about accelerators compare this run with one on the CPU; other laws compare other runs with this one
        exam = Exam(self, run, base=not self.on or subject.compile)
        try:
            invalid = self.cannot_judge(run.case)
            exam.only_if(invalid is None, str(invalid))
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

    @property
    def about_input(self) -> bool:
        """Whether it is about bad input."""
        return self.id.partition(".")[0] == "input"

    def cannot_judge(self, case: Case) -> str | None:
        """Why the law is not about a case, if that is no valid input; None if it may judge it."""
        return None if case.invalid is None or self.about_input else f"the case is no valid input: {case.invalid}"

    def options(self, choice: str) -> tuple[str, ...]:
        """The options of a choice with which a dialect is one that the law is about."""
        found = self.only[choice]
        return (found,) if isinstance(found, str) else found

    def assumes(self, subject: LossUnderTest) -> str | None:
        """Why the law does not apply to the subject's family, dialect or device; None if it does."""
        if self.family not in (None, subject.family):
            return f"is not about losses of the family {subject.family.name}"
        if self.cases is None and not subject.recorded:
            return "needs --baseline"
        kind = "compile" if subject.compile else subject.device.type
        if kind not in (self.on or (subject.device.type,)):
            return f"needs --device {' or '.join(self.on)}" if self.on else "is not about compilation"
        options = {choice: getattr(subject.dialect, choice) for choice in self.only}
        other = [f"{choice} = {option}" for choice, option in options.items() if option not in self.options(choice)]
        return f"is not about dialects with {', '.join(other)}" if other else None


class LawBroken(AssertionError):
    """A subject broke a law on a case."""

    def __init__(self, law: Law, case: Case, what: str, expected: str, observed: str, because: str) -> None:
        super().__init__(law, case, what, expected, observed, because)
        self.law, self.case = law, case
        self.what, self.expected, self.observed, self.because = what, expected, observed, because
        self.repeats = True  # whether the subject does the same when the case is run again
        self.died = False  # whether the case ended the process in which it was judged
        self.runs: tuple[Run, ...] = ()  # all that the law had the subject run
        self.title = law.title  # in the family's words
        self.numbers: tuple[str, ...] = ()  # what is computed of the case, step by step
        self.kind = ""  # of the fault, if the law tells several apart
        self.by_budget = False  # whether the law compared the subject with the reference
        self.by_gradient = False  # whether it had read gradients: without them, none of them is the reason

    @property
    def wrong(self) -> Wrong:
        """The same, for a family to put in words."""
        return Wrong(self.law.id, self.law.title, self.what, self.expected, self.observed, self.kind)

    def __str__(self) -> str:
        lines = [
            f"{self.law.id} broke: {self.title}",
            f"  law        {self.law.statement}",
            f"  where      {self.what}",
            f"  expected   {self.expected}",
            f"  observed   {self.observed}",
            f"  tolerance  {self.because}",
            f"  source     {self.law.source}",
            "  case",
            *(f"    {line}" for line in str(self.case).splitlines()),
            *(["  in numbers"] if self.numbers else []),
            *(f"    {line}" for line in self.numbers),
        ]
        if not self.repeats:
            lines.insert(
                4, "  repeats    no: a second run of this case gave another result. The loss keeps state, or is random"
            )
        return "\n".join(lines)


class Exam:
    """One law's examination of one subject on one case.

    A law's judgement takes an exam. It reads what the subject did (`rows`, `calls`, `items`, `gradients`, `outcome`),
    compares it by `expect`, `expect_equal`, `expect_close`, `compare` or `fail`, and gets other runs by `on`.
    """

    def __init__(self, law: Law, run: Run, *, base: bool = False, first: "Exam | None" = None) -> None:
        self.law = law
        self.run = run
        self.subject = run.subject
        self.case: Any = run.case  # of the family's case type
        self.judged = False  # whether anything was compared
        self.nearest = 0.0  # the largest error seen, as a share of the tolerance
        self._base = base  # whether other runs are compared with this one
        self.by_gradient = False  # whether gradients were read, or what the law compares is about them
        self._by_budget = False  # whether the budget was asked for
        self._first = first  # the exam that this one was made from by `on`
        self.runs: list[Run] = [] if first is None else first.runs  # all that the law had the subject run
        self.runs.append(run)

    @property
    def outcome(self) -> Outcome:
        """What the subject did with the case. The subject is run on first use."""
        return self.run.outcome

    @property
    def rows(self) -> tuple[Any, ...]:
        """The rows that the subject built, one element for each layer. If it shows none, the law does not apply."""
        if self.outcome.rows is None:
            self.must_be_made()
            raise NotApplicable("the subject shows no rows")
        return self.outcome.rows

    @property
    def calls(self) -> tuple[Call, ...]:
        """What every call returned. If a call raised, the law does not apply: `run.no-exception` reports it."""
        if len(self.outcome.calls) < self.case.calls:
            self._raised()
        self._must_be("totals.finite", self.run.finite[0])
        return self.outcome.calls

    @property
    def has_items(self) -> bool:
        """Whether the subject returns the items of its family besides its total."""
        return len(self.calls[-1].items) >= len(self.subject.family.items)

    @property
    def items(self) -> NDArray[np.float64]:
        """The items of the last call, in the order of `Family.items`. If there are none, the law does not apply."""
        if not self.has_items:
            raise NotApplicable("the subject returns no items")
        return np.array(self.calls[-1].items[: len(self.subject.family.items)])

    @property
    def gradients(self) -> tuple[Grid, ...]:
        """The gradient of the last call's total, one array for each layer."""
        self.by_gradient = True
        if not self.outcome.gradients:
            self._raised()
        self._must_be("gradients.finite", self.run.finite[1])
        return self.outcome.gradients

    def _raised(self) -> NoReturn:
        """Fail if only this run of the case raised, and not the first. Otherwise `run.no-exception` reports it."""
        if self._first is not None and self._first.case == self.case and not self._base:
            _ = self._first.gradients
            raised = next((t.detail for t in self.outcome.troubles), "no gradient")
            self.fail(ELSEWHERE, "nothing raised, as in the first", raised)
        raise NotApplicable(f"the subject raised: {self._complaints[0]}" if self._complaints else "the subject ended")

    @property
    def _complaints(self) -> list[str]:
        """The types of the exceptions that were raised."""
        return [t.detail.partition(":")[0] for t in self.outcome.troubles if t.kind.startswith("raised")]

    def must_be_made(self) -> None:
        """If the loss could not be constructed, the law does not apply: `run.no-exception` reports it."""
        if any(t.kind == "raised in construction" for t in self.outcome.troubles):
            raise NotApplicable(f"the subject could not be constructed: {self._complaints[0]}")

    def _must_be(self, judge: str, finite: bool) -> None:
        """Only one law reports a NaN, and not every law that compares it. In a second run a NaN is a difference."""
        if self._base and not self.law.infinite and not finite:
            raise NotApplicable(f"not finite, as {judge} says")

    def of(self, make: Callable[[Any], T]) -> T:
        """``make(case)``, such as a reference model, computed once for all laws that judge this run."""
        return self.run.of(make)

    @property
    def budget(self) -> Any:
        """How far rounding may take a right loss of its dialect from the reference (the family's `Budget`)."""
        self._by_budget = True
        return self.run.budget

    def on(
        self,
        case: Case,
        change: Callable[[Subject], None] | None = None,
        *,
        calling: Calling | None = None,
        device: torch.device | None = None,
        around: Around | None = None,
        valid: bool = True,
    ) -> "Exam":
        """An exam of the same loss, built again, on another case: for laws about two calls.

        ``change`` is applied to the new subject first. ``calling`` calls its loss, if given. ``device`` and ``around``
        run it on another device or in other surroundings. Raises NotApplicable if the dialect has no answer to the
        case, unless that is not meant to be ``valid``.
        """
        own = self.subject
        excluded = own.family.excludes(own.dialect, case)
        self.only_if(not valid or excluded is None, str(excluded))

        def make(case: Case, device: torch.device) -> Subject:
            subject = own.make(case, device)
            if around is not None and around.compiled:
                subject = Compiled(subject)
            if change is not None:
                change(subject)
            return subject if calling is None else CalledSo(subject, calling)

        as_it_is = change is None and calling is None and around is None
        own_make = own.make if as_it_is else make
        subject = replace(own, make=own_make, device=device or own.device, around=around or own.around)
        return Exam(self.law, Run(subject, case), base=device is not None, first=self)

    def also(self, *cases: Case) -> None:
        """Say that the law has the subject answer these cases as well, within another run.

        Where the subject fails on one of them, that explains what the law finds.
        """
        self.runs.extend(Run(self.subject, case) for case in cases)

    def only_if(self, condition: bool, reason: str) -> None:
        """Raise NotApplicable with the reason, unless the condition holds."""
        if not condition:
            raise NotApplicable(reason)

    def fail(
        self, what: str, expected: Any, observed: Any, because: str = "none: this is exact", kind: str = ""
    ) -> NoReturn:
        """Raise LawBroken. ``kind`` tells faults of one law apart (`Law.several`)."""
        broken = LawBroken(self.law, self.case, what, str(expected), str(observed), because)
        broken.kind = kind
        broken.runs, broken.by_budget, broken.by_gradient = tuple(self.runs), self._by_budget, self.by_gradient
        raise broken

    def expect(self, holds: ArrayLike, what: str, expected: Any, observed: ArrayLike, kind: str = "") -> None:
        """Fail unless every element of ``holds`` is true. Shows the first that is not, with its observed value."""
        ok = np.asarray(holds)
        self.judged |= ok.size > 0
        if not ok.all():
            at = tuple(int(i) for i in np.argwhere(~ok)[0])
            values = np.broadcast_to(np.asarray(observed), ok.shape)
            self.fail(f"{what}{list(at) if at else ''}", expected, values[at], kind=kind)

    def expect_close(
        self, what: str, expected: ArrayLike, observed: ArrayLike, tolerance: ArrayLike, because: str
    ) -> None:
        """Fail if both differ by more than ``tolerance``. Shows the element with the largest share of its tolerance."""
        want, got, allowed = np.broadcast_arrays(expected, observed, tolerance)
        self.judged |= want.size > 0
        different = abs(got - want)
        with np.errstate(over="ignore"):  # a large difference where none is allowed
            share = different / np.maximum(allowed, 1e-300)
        bad = ~(different <= allowed)  # NaN is not within any tolerance
        if not bad.any():
            self.nearest = max(self.nearest, float(share.max(initial=0.0)))
        else:
            excess = np.where(bad, np.nan_to_num(share, nan=np.inf), -1)
            at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
            place = f"{what}{list(at) if at else ''}"
            off = f" ({got[at] - want[at]:+.3g})" if np.isfinite(different[at]) else ""  # as six digits do not show it
            self.fail(place, f"{want[at]:.6g}", f"{got[at]:.6g}{off}", f"{allowed[at]:.3g}: {because}")

    def compare(self, record: Iterable[Comparison], aspect: Aspect) -> None:
        """Fail if an aspect of the record differs from now. Shows the element that differs most."""
        for each in record:
            if each.aspect == aspect:
                self.judged |= each.expected.size > 0
                if each.differs.any():
                    self.fail(*each.worst)

    def expect_equal(self, what: str, expected: ArrayLike, observed: ArrayLike) -> None:
        """Fail unless both have the same shape and the same elements. Shows the first that differs."""
        want, got = np.asarray(expected), np.asarray(observed)
        self.judged |= want.size > 0
        if want.shape != got.shape:
            self.fail(*_other_rows(what, want, got))
        different = (want != got) & ~(_isnan(want) & _isnan(got))
        if different.any():
            at = tuple(int(i) for i in np.argwhere(different)[0])
            self.fail(f"{what}{list(at) if at else ''}", want[at], got[at])


def _other_rows(what: str, want: NDArray[Any], got: NDArray[Any]) -> tuple[str, str, str]:
    """For two arrays of different shapes: their shapes, and some of the rows that only one of them has."""
    rows = [Counter(map(tuple, x.tolist())) if x.ndim == 2 else Counter[Any]() for x in (want, got)]
    told = []
    for shape, mine in zip((want.shape, got.shape), (rows[0] - rows[1], rows[1] - rows[0]), strict=True):
        some = ", ".join(map(str, list(mine.elements())[:3])) + (", ..." if mine.total() > 3 else "")
        told.append(f"shape {shape}, with {some}" if some else f"shape {shape}")
    return what, told[0], told[1]


def _isnan(values: NDArray[Any]) -> NDArray[np.bool_]:
    # a NaN differs from itself; unlike np.isnan this takes objects and strings
    return np.asarray(values != values)  # noqa: PLR0124
