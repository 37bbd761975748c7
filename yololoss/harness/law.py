"""A law: one property that must hold, and the examination of a subject by it."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NoReturn, TypeVar

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis.strategies import SearchStrategy
from numpy.typing import ArrayLike, NDArray

from yololoss.harness.case import Case
from yololoss.harness.compiled import Compiled
from yololoss.harness.execute import execute
from yololoss.harness.families import CHOICES, FAMILIES
from yololoss.harness.mirror import NAME as MIRROR
from yololoss.harness.outcome import Call, Grid, Outcome, Rows
from yololoss.harness.record import Aspect, Comparison
from yololoss.harness.subject import Around, CalledSo, Calling, LossUnderTest, Subject, Unsupported

T = TypeVar("T")
LAWS: dict[str, "Law"] = {}
# The gate is deterministic, so that a pull request is judged on its own change: every law starts from one seed.
# Laws over the same strategy then see the same cases, and what subject and reference make of them is remembered.
# No database: Hypothesis keys it by the test's source; what is found is kept in case files.
GATE_SEED = 20261122
# The parts of a law's id, in the order in which laws are run: that of the loss, so that the first law to break tells
# most, since what is made of a wrong assignment is wrong as well. Laws that run a loss more than once come after.
PARTS = (
    "assign",
    "boxes",
    "objectness",
    "classes",
    "totals",
    "gradients",
    "input",
    "devices",
    "run",
    "state",
    "form",
    "symmetry",
    "compile",
    "baseline",
)
FIRST = ("totals.shape-and-dtype", "totals.sum")  # what is said of the total itself, before what it is made of
REMEMBERED = 256  # cases
MIRROR_SHARE = 0.1  # of the cases of a law that is not about devices: one takes five times as long on the mirror
GATE = hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,  # a slow machine is no fault of the loss
    report_multiple_bugs=False,  # one law, one finding
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,  # the finding prints the case, in full
)


class LawBroken(AssertionError):
    """A subject broke a law on a case."""

    def __init__(self, law: "Law", case: Case, what: str, expected: str, observed: str, because: str) -> None:
        super().__init__(law, case, what, expected, observed, because)
        self.law, self.case = law, case
        self.what, self.expected, self.observed, self.because = what, expected, observed, because
        self.repeats = True  # whether the subject does the same with the case again
        self.lost = False  # whether the device answers nothing any more
        self.died = False  # whether another process, in which it was judged, died of it

    def __str__(self) -> str:
        lines = [
            f"{self.law.id} broke: {self.law.statement}",
            f"  where      {self.what}",
            f"  expected   {self.expected}",
            f"  observed   {self.observed}",
            f"  tolerance  {self.because}",
            f"  source     {self.law.source}",
            "  case",
            *(f"    {line}" for line in str(self.case).splitlines()),
        ]
        if not self.repeats:
            lines.insert(
                3, "  repeats    no: run again, this case gave something else. The loss keeps state, or is random"
            )
        return "\n".join(lines)


class NotApplicable(Exception):
    """The law says nothing about this case, or this subject; the message is the reason."""


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


@dataclass(frozen=True)
class Law:
    """One property: an id, a one-sentence statement, where it comes from, and the judgement itself."""

    id: str
    statement: str
    source: str
    judge: Callable[["Exam"], str | None]
    cases: SearchStrategy[Case] | None  # None: those that are recorded of the subject
    choices: tuple[str, ...] = ()
    most: int | None = None
    on: tuple[str, ...] = ()  # kinds of device; any where there is none
    infinite: bool = False  # whether it judges what is not finite
    tally: Tally = field(default_factory=Tally)

    @property
    def anew(self) -> bool:
        """Whether it runs the loss anew, and not only judges what it did: it sees fewer cases."""
        return self.most is not None and self.most < GATE.max_examples

    @property
    def place(self) -> tuple[bool, bool, int]:
        """What laws are sorted by: cheap ones first, in the order of `PARTS`."""
        part = self.id.partition(".")[0]
        costly = self.anew and part != "input"  # those end at once
        return self.id not in FIRST, costly, PARTS.index(part)

    def examine(self, subject: LossUnderTest, case: Case) -> float:
        """Judge the subject on one case. Raises LawBroken. Returns the largest error, as a share of what is allowed."""
        self.tally.tried += 1
        # what runs on an accelerator is held against the CPU's, all else against this run
        exam = Exam(self, subject, case, base=not self.on or subject.compile)
        try:
            if self.cases is not None:  # what is recorded of a subject holds for it, whatever its family
                _applies(subject, case)
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
        if self.cases is None:
            for case in subject.recorded:
                self.examine(subject, case)
            return

        def test(case: Case) -> None:
            self.examine(subject, case)

        share = 1.0 if self.most is None else self.most / GATE.max_examples
        if subject.device.type == MIRROR and not self.on:
            share *= MIRROR_SHARE
        settings = hypothesis.settings(settings, max_examples=math.ceil(settings.max_examples * share))
        run = settings(hypothesis.given(case=self.cases)(test))
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
        """Why the law does not apply to the subject's family or device; None where it does."""
        if self.cases is None and not subject.recorded:
            return "needs --baseline"
        kind = "compile" if subject.compile else subject.device.type
        if kind not in (self.on or (subject.device.type,)):
            return f"needs --device {' or '.join(self.on)}" if self.on else "is not about compilation"
        other = [choice for choice in self.choices if choice in FAMILIES[subject.family]]
        return f"family {subject.family} has its own {', '.join(other)}" if other else None


def _broken(error: BaseException) -> LawBroken | None:
    if isinstance(error, LawBroken):
        return error
    # Hypothesis groups what it saw when a failure does not repeat.
    return next(filter(None, map(_broken, getattr(error, "exceptions", ()))), None)


def _applies(subject: LossUnderTest, case: Case) -> None:
    """A family that does not clamp cells has no answer to centres on the far edge, and so with float64 targets."""
    if "far edge" in FAMILIES[subject.family] and any(t[2] >= 1 or t[3] >= 1 for t in case.targets):
        raise NotApplicable(f"family {subject.family} has its own far edge")
    if "target dtype" in FAMILIES[subject.family] and case.targets_dtype == "float64":
        raise NotApplicable("float64 targets, which not all such losses assign in float32")


class Exam:
    """One law's examination of a subject on one case: what the subject did, and means to judge it."""

    def __init__(
        self, law: Law, subject: LossUnderTest, case: Case, *, base: bool = False, first: "Exam | None" = None
    ) -> None:
        self.law = law
        self.subject = subject
        self.case = case
        self.judged = False  # whether anything was compared
        self.nearest = 0.0  # the largest error that was seen, as a share of what is allowed
        self._base = base  # whether others are held against what this run gives
        self._first = first  # whose case this is, or is made of: then all is run anew, whatever is remembered
        self._made: dict[Any, Any] = {}

    @cached_property
    def outcome(self) -> Outcome:
        """What the subject did with the case; it is run on first use."""
        return execute(self.subject, self.case) if self._first else _executed(self.subject, self.case)

    @property
    def rows(self) -> tuple[Rows, ...]:
        """The rows the subject built, a layer each; the law does not apply where it shows none."""
        if self.outcome.rows is None:
            self.must_be_made()
            raise NotApplicable("the subject shows no rows")
        return self.outcome.rows

    @property
    def calls(self) -> tuple[Call, ...]:
        """What every call returned; the law does not apply where one raised, as run.no-exception says."""
        if len(self.outcome.calls) < self.case.options.calls:
            self._raised()
        self._must_be_finite("totals.finite", [(c.total, *c.items) for c in self.outcome.calls])
        return self.outcome.calls

    @property
    def has_items(self) -> bool:
        """Whether the subject returns items beside its total."""
        return len(self.calls[-1].items) >= 3

    @property
    def items(self) -> NDArray[np.float64]:
        """(box, obj, cls) of the last call; the law does not apply where there are none."""
        if not self.has_items:
            raise NotApplicable("the subject returns no items")
        return np.array(self.calls[-1].items[:3])

    @property
    def gradients(self) -> tuple[Grid, ...]:
        """The gradient of the last call's total, a layer each."""
        if not self.outcome.gradients:
            self._raised()
        self._must_be_finite("gradients.finite", self.outcome.gradients)
        return self.outcome.gradients

    def _raised(self) -> NoReturn:
        """What raises is for `run.no-exception` to tell, unless the same case was answered in other surroundings."""
        if self._first is not None and self._first.case == self.case and not self._base:
            _ = self._first.gradients
            raised = next((t.detail for t in self.outcome.troubles), "no gradient")
            self.fail("the same case in another run", "nothing raised, as in the first", raised)
        raise NotApplicable(f"the subject raised: {self._complaints[0]}" if self._complaints else "the subject ended")

    @property
    def _complaints(self) -> list[str]:
        """The types of what was raised."""
        return [t.detail.partition(":")[0] for t in self.outcome.troubles if t.kind.startswith("raised")]

    def must_be_made(self) -> None:
        """Nothing holds of a loss that could not be constructed; `run.no-exception` says so."""
        if any(t.kind == "raised in construction" for t in self.outcome.troubles):
            raise NotApplicable(f"the subject could not be constructed: {self._complaints[0]}")

    def _must_be_finite(self, judge: str, values: Iterable[ArrayLike]) -> None:
        """A NaN is for one law to tell, not for every law that compares with it; in a second run it is a difference."""
        if self._base and not self.law.infinite and not all(np.isfinite(v).all() for v in values):
            raise NotApplicable(f"not finite, as {judge} says")

    def of(self, make: Callable[[Case], T]) -> T:
        """What ``make`` (a reference model, say) makes of the case; made once."""
        if make not in self._made:
            self._made[make] = make(self.case) if self._first else _made(make, self.case)
        return self._made[make]  # type: ignore[no-any-return]  # each maker has a type of its own

    def on(
        self,
        case: Case,
        change: Callable[[Subject], None] | None = None,
        *,
        calling: Calling | None = None,
        device: torch.device | None = None,
        around: Around | None = None,
    ) -> "Exam":
        """The same subject, built anew, on another case: for laws about two calls.

        ``change`` is done to it first; each call of its loss is made as ``calling`` says. Or it is on another device,
        or in other surroundings.
        """
        own = self.subject

        def make(case: Case, device: torch.device) -> Subject:
            subject = own.make(case, device)
            if around is not None and around.compiled:
                subject = Compiled(subject)
            if change is not None:
                change(subject)
            return subject if calling is None else CalledSo(subject, calling)

        subject = replace(own, make=make, device=device or own.device, around=around or own.around)
        return Exam(self.law, subject, case, base=device is not None, first=self)

    def only_if(self, condition: bool, reason: str) -> None:
        """End the examination where the law says nothing."""
        if not condition:
            raise NotApplicable(reason)

    def fail(self, what: str, expected: Any, observed: Any, because: str = "none: this is exact") -> NoReturn:
        """The law is broken."""
        raise LawBroken(self.law, self.case, what, str(expected), str(observed), because)

    def expect(self, holds: ArrayLike, what: str, expected: Any, observed: ArrayLike) -> None:
        """Every element of ``holds`` must be true; the first that is not is shown with its observed value."""
        ok = np.asarray(holds)
        self.judged |= ok.size > 0
        if not ok.all():
            at = tuple(int(i) for i in np.argwhere(~ok)[0])
            values = np.broadcast_to(np.asarray(observed), ok.shape)
            self.fail(f"{what}{list(at) if at else ''}", expected, values[at])

    def expect_close(
        self, what: str, expected: ArrayLike, observed: ArrayLike, tolerance: ArrayLike, because: str
    ) -> None:
        """Both must differ by ``tolerance`` at most; the element that differs most in tolerances is shown."""
        want, got, allowed = np.broadcast_arrays(expected, observed, tolerance)
        self.judged |= want.size > 0
        different = abs(got - want)
        share = different / np.maximum(allowed, 1e-300)
        bad = ~(different <= allowed)  # NaN is not within any tolerance
        if not bad.any():
            self.nearest = max(self.nearest, float(share.max(initial=0.0)))
        else:
            excess = np.where(bad, np.nan_to_num(share, nan=np.inf), -1)
            at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
            place = f"{what}{list(at) if at else ''}"
            self.fail(place, repr(float(want[at])), repr(float(got[at])), f"{allowed[at]:.3g}: {because}")

    def compare(self, record: Iterable[Comparison], aspect: Aspect) -> None:
        """What is recorded of an aspect must be what it is now; the element that differs most is shown."""
        for each in record:
            if each.aspect == aspect:
                self.judged |= each.expected.size > 0
                if each.differs.any():
                    self.fail(*each.worst)

    def expect_equal(self, what: str, expected: ArrayLike, observed: ArrayLike) -> None:
        """Both must have the same shape and the same elements; the first that differs is shown."""
        want, got = np.asarray(expected), np.asarray(observed)
        self.judged |= want.size > 0
        if want.shape != got.shape:
            self.fail(*_other_rows(what, want, got))
        different = (want != got) & ~(_isnan(want) & _isnan(got))
        if different.any():
            at = tuple(int(i) for i in np.argwhere(different)[0])
            self.fail(f"{what}{list(at) if at else ''}", want[at], got[at])


@lru_cache(maxsize=REMEMBERED)
def _executed(subject: LossUnderTest, case: Case) -> Outcome:
    return execute(subject, case)


@lru_cache(maxsize=2 * REMEMBERED)
def _made(make: Callable[[Case], Any], case: Case) -> Any:
    return make(case)


def forget() -> None:
    """Forget what was made of cases: where they are large, and each comes once."""
    _executed.cache_clear()
    _made.cache_clear()


def _other_rows(what: str, want: NDArray[Any], got: NDArray[Any]) -> tuple[str, str, str]:
    """Of two arrays of other shapes: what differs, and some of the rows that only one has."""
    rows = [Counter(map(tuple, x.tolist())) if x.ndim == 2 else Counter[Any]() for x in (want, got)]
    told = []
    for shape, mine in zip((want.shape, got.shape), (rows[0] - rows[1], rows[1] - rows[0]), strict=True):
        some = ", ".join(map(str, list(mine.elements())[:3])) + (", ..." if mine.total() > 3 else "")
        told.append(f"shape {shape}, with {some}" if some else f"shape {shape}")
    return what, told[0], told[1]


def drawn(strategy: SearchStrategy[Case], count: int, seed: int = GATE_SEED) -> list[Case]:
    """Some cases of a strategy, the same every time."""
    found: list[Case] = []

    def collect(case: Case) -> None:
        found.append(case)

    limits = hypothesis.settings(GATE, max_examples=count, phases=[hypothesis.Phase.generate])
    hypothesis.seed(seed)(limits(hypothesis.given(case=strategy)(collect)))()
    return list(dict.fromkeys(found))


def _isnan(values: NDArray[Any]) -> NDArray[np.bool_]:
    # a NaN is what differs from itself; unlike np.isnan this takes objects and strings
    return np.asarray(values != values)  # noqa: PLR0124


def law(
    id: str,
    *,
    source: str,
    cases: SearchStrategy[Case] | None,
    choices: tuple[str, ...] = (),
    most: int | None = None,
    on: tuple[str, ...] = (),
    infinite: bool = False,
) -> Callable[[Callable[[Exam], str | None]], Callable[..., None]]:
    """Register the decorated judgement as a law, and make of it a test over ``cases``; None: those that are recorded.

    The judgement breaks the law by `Exam.expect` and the like; what it returns is a note for the table of laws. The
    first paragraph of its docstring is the law's statement. ``choices`` names what the law takes for granted
    that families of losses choose differently without fault (`families`). ``most`` is how many cases
    the law sees in the gate, if not as many as others; longer runs are in proportion. ``on`` names the kinds of
    device that it is about, if not all. ``infinite``: it judges NaN and infinity as well, which others leave to it.
    """

    def decorate(judge: Callable[[Exam], str | None]) -> Callable[..., None]:
        if id in LAWS:
            raise ValueError(f"law {id!r}: two judgements have this id")
        if id.partition(".")[0] not in PARTS:
            raise ValueError(f"law {id!r}: an id begins with its part (one of {', '.join(PARTS)}) and a dot")
        statement = " ".join((judge.__doc__ or "").split("\n\n")[0].split())
        unknown = [choice for choice in choices if choice not in CHOICES]
        if unknown:
            raise ValueError(f"law {id!r}: no such choice as {unknown[0]!r} (known: {', '.join(CHOICES)})")
        entry = LAWS[id] = Law(id, statement, source, judge, cases, choices, most, on, infinite)

        def search(subject: LossUnderTest) -> None:
            entry.search(subject, GATE, GATE_SEED)

        def examine(subject: LossUnderTest, case: Case) -> None:
            entry.examine(subject, case)

        test: Callable[..., None] = search if cases is None else examine
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(test, name, getattr(judge, name))
        # The plugin searches by its own settings; as a @given test the law can be run by other tools as well.
        test = test if cases is None else GATE(hypothesis.given(case=cases)(test))
        examined: Callable[..., None] = pytest.mark.law(entry)(test)
        return examined

    return decorate
