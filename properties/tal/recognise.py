"""Which dialect a loss has, by what it does.

The loss is run on some cases, once. A dialect explains a case if total and gradients are those of its reference, within
rounding. First the known dialect that explains the most is taken, then every single choice that explains more.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from yololoss.harness.subjects.dialect import Recognised
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Unsupported

from .budget import Budget
from .case import Case
from .dialects import DIALECTS, Dialect
from .reference import TOPKS
from .strategies import CASES_OF_CHOICES, CASES_OF_CONTEST, HEADS, USUAL

# Seeds of cases in which a contested anchor has the largest overlap with a target that did not take it.
CONTESTED = (44, 226, 200, 325)
TRIED = 16  # cases that are drawn
# Choices that values show, and their options.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "heads": ("one", "YOLO26", "YOLOv10"),
    "batch": ("times", "plain"),
    "small_sides": ("below s2 to s2", "below s1 to s2", "none"),
    "alpha": (0.5, 1.0),
    "topk": (10, 13),
    "contested": ("all candidates", "takers"),
    "third_of_one_bin": ("l1", "none"),
    "class_weights": ("used", "ignored"),
    "corner": ("dropped", "kept"),
}
# A target around the image's first corner: the coordinates of its own corners sum to 0.
CORNER = USUAL.changed(targets=((0.0, 1.0, 0.0, 0.0, 0.75, 0.5), *USUAL.targets[1:]))
UNSORTED = USUAL.changed(targets=USUAL.targets[::-1])


@cache
def drawn() -> tuple[Case, ...]:
    """The cases on which losses of different dialects differ; some have class weights, some one bin."""
    chance = np.random.default_rng(1)
    made = [CASES_OF_CHOICES.case(chance.bytes(CASES_OF_CHOICES.size)) for _ in range(TRIED)]
    contested = (np.random.default_rng(seed).bytes(CASES_OF_CONTEST.size) for seed in CONTESTED)
    few = [CASES_OF_CONTEST.case(data).changed(topk=2, class_weights=None) for data in contested]
    return tuple(
        case.changed(
            topk=case.topk if case in few else None,
            topk2=None,
            targets_dtype="float32",
            targets=tuple(sorted(case.targets, key=lambda row: row[0])),  # some losses take no other order
        )
        for case in (*made, *few, CORNER)
    )


def of_heads(cases: Sequence[Case]) -> Iterator[Case]:
    """The same cases for a loss with two heads, in turn as predictions of either."""
    for n, case in enumerate(cases):
        yield case.changed(topk=None, head=HEADS[n % len(HEADS)])


class Seen:
    """What a loss did with the cases."""

    def __init__(self, subject: LossUnderTest) -> None:
        self.subject = subject
        self.outcomes: dict[Case, Outcome] = {}
        self.two_heads = bool(getattr(subject.make(USUAL, subject.device), "two_heads", False))
        for case in of_heads(drawn()) if self.two_heads else drawn():
            with suppress(Unsupported):  # a constructor without top-k
                self.outcomes[case] = execute(subject, case)

    def explained(self, dialect: Dialect) -> tuple[int, int]:
        """How many cases a dialect explains, of how many in which rounding decides nothing."""
        judged = [_explains(dialect, case, outcome) for case, outcome in self.outcomes.items()]
        return judged.count(True), len(judged) - judged.count(None)

    def share(self, dialect: Dialect) -> float:
        """The share of the cases that a dialect explains."""
        explained, tried = self.explained(dialect)
        return explained / max(tried, 1)

    def explains_all(self, dialect: Dialect) -> bool:
        """Whether a dialect explains all cases in which rounding decides nothing."""
        judged = (_explains(dialect, case, outcome) for case, outcome in self.outcomes.items())
        return all(each is not False for each in judged)

    def answers(self, case: Case) -> bool:
        """Whether the loss gives a result for the case."""
        outcome = execute(self.subject, case)
        return bool(outcome.calls) and bool(np.isfinite(outcome.calls[0].total))


def _explains(dialect: Dialect, case: Case, outcome: Outcome) -> bool | None:
    """Whether a dialect explains what a loss did; None where rounding decides."""
    if not outcome.calls or not outcome.gradients:
        return False
    budget = Budget(case, dialect)
    if budget.doubt is not None:
        return None
    if not abs(outcome.calls[0].total - budget.reference.calls[0].total) <= budget.totals[0]:
        return False
    pairs = zip(budget.reference.gradients, outcome.gradients, budget.gradients, strict=True)
    return all(bool((abs(want - got) <= off).all()) for want, got, off in pairs)


def recognise(subject: LossUnderTest, named: Dialect | None) -> Recognised:
    """The dialect of a loss. Of a named one only what the loss contradicts is changed."""
    seen = Seen(subject)
    # not the bundled loss's: of what that promises beyond values, such as to refuse bad input, values say nothing
    known: Sequence[Dialect] = (
        [each for name, each in DIALECTS.items() if name != "yololoss"] if named is None else [named]
    )
    if seen.two_heads:
        known = [each.but(heads=heads) for heads in TOPKS for each in known]
    found = next(filter(seen.explains_all, known), None) or max(known, key=seen.share)  # the first of equal ones
    found = _improved(_by_answers(found, seen), seen)
    explained, tried = seen.explained(found)
    shown = [choice for choice in OPTIONS if choice != "topk" or not seen.two_heads]  # which have their own
    unsure = {choice: _as_good(found, choice, seen) for choice in shown} if explained == tried else {}
    unexplained = {} if explained == tried else {"values": f"{tried - explained} of {tried} cases have other results"}
    return Recognised(found, {c: options for c, options in unsure.items() if options}, unexplained, explained, tried)


def _by_answers(dialect: Dialect, seen: Seen) -> Dialect:
    """The dialect with the choices that show in whether a loss answers, and in what form."""
    shape = next((outcome.calls[0].total_shape for outcome in seen.outcomes.values() if outcome.calls), (3,))
    changes: dict[str, Any] = {"total": "three" if shape == (3,) else "one"}
    if (batch := _batch(seen)) is not None:
        changes["batch"] = batch
    if dialect.row_order == "any" and not seen.answers(UNSORTED):
        changes["row_order"] = "by image"
    if dialect.target_dtypes == "any" and not seen.answers(USUAL.changed(targets_dtype="float64")):
        changes["target_dtypes"] = "float32"
    return dialect.but(**changes)


def _batch(seen: Seen) -> str | None:
    """Whether the total is the items times the batch; None where a loss has no items, or those of one of its heads."""
    for case, outcome in () if seen.two_heads else seen.outcomes.items():
        items = outcome.calls[0].items if outcome.calls else None
        if items is not None and case.batch > 1 and sum(items) > 0:
            ratio = outcome.calls[0].total / sum(items)
            return "times" if abs(ratio - case.batch) < abs(ratio - 1) else "plain"
    return None


def _improved(dialect: Dialect, seen: Seen) -> Dialect:
    """The dialect with every choice that explains more than its own."""
    batch = _batch(seen)  # shown by the loss itself
    for choice, options in OPTIONS.items():
        if seen.share(dialect) == 1:
            break
        if choice == "batch" and batch is not None:
            continue
        dialect = max((dialect, *(dialect.but(**{choice: option}) for option in options)), key=seen.share)
    return dialect


def _as_good(dialect: Dialect, choice: str, seen: Seen) -> tuple[str, ...]:
    """The other options of a choice that explain all cases as well."""
    others = [option for option in OPTIONS[choice] if option != getattr(dialect, choice)]
    return tuple(str(option) for option in others if seen.explains_all(dialect.but(**{choice: option})))
