"""Ties: where rounding decides the assignment, any right one is accepted, and nothing else (SPEC 7).

The loss's own assignment is read off its gradient. It must be one of those that differ from the reference by decisions
of rounding alone, and its scores and gradients must be those of that assignment.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .allowed import MOST, Allowed
from .budget import BECAUSE, Budget
from .items import sides_of
from .overlap import Reals
from .reading import Reading, read
from .strategies import EVERY_KIND


def tied(exam: Exam) -> tuple[Allowed, Reading]:
    """The right assignments, and the reading, of a case in which rounding decides something."""
    reading, budget = read(exam), exam.budget
    exam.only_if(budget.doubt is not None, "rounding decides nothing")
    exam.only_if(budget.reference.topk2 is None, "a second top-k, after which not everything can be seen")
    return Allowed(budget), reading


@law("assign.ties", title="The wrong anchors predict a target, and rounding is no reason", source="SPEC 7",
     cases=EVERY_KIND)  # fmt: skip
def test_an_assignment_that_hangs_on_rounding_is_a_right_one(exam: Exam) -> None:
    """Where rounding decides, each anchor has a target that may own it; one that is surely taken has a target."""
    allowed, reading = tied(exam)
    r = allowed.r
    may = np.zeros_like(reading.found)
    for row in np.flatnonzero(r.valid):
        may[r.image[row], r.label[row]] |= allowed.may_own[row]
    place = "score at image, class, anchor"
    exam.expect(may | ~reading.found, place, "0, as no target of that class may own it", reading.scores)
    seen = np.where(reading.found, reading.scores, 0).max(axis=1)
    least = np.where(r.candidate, allowed.budget.metric_range[0], 0)
    visible = np.stack([least[mine].min(axis=0, initial=np.inf, where=allowed.may_own[mine]) for mine in r.mine])
    error = reading.error.max(axis=1)
    sure = allowed.must_be_owned & (visible < np.inf) & (visible > 128 * error)
    exam.expect((seen > 0) | ~sure, "score at image, anchor", "above 0, as a target surely takes it", seen)
    owner = next(allowed.owners(reading), None)
    if owner is not None:
        more = allowed.too_many(np.where(seen > 0, owner, -1))
        exam.expect(more <= 0, "anchors of target beyond its k", "0 at most", more)


@law("scores.ties", title="A score is wrong, and rounding is no reason", source="SPEC 7", cases=EVERY_KIND)
def test_the_scores_are_those_of_the_losss_own_assignment(exam: Exam) -> None:
    """Where rounding decides, the scores are those of an assignment that the gradient shows."""
    (near, *_), reading = own_assignments(exam)
    allowance = 2 * reading.error + near.score
    exam.expect_close("score at image, class, anchor", near.reference.score, reading.scores, allowance, BECAUSE)


@law("gradients.ties", title="A gradient of a box is wrong, and rounding is no reason", source="SPEC 7",
     cases=EVERY_KIND)  # fmt: skip
def test_the_gradients_are_those_of_the_losss_own_assignment(exam: Exam) -> None:
    """Where rounding decides, boxes have the gradients of that assignment, at anchors whose score can be seen."""
    near, reading = own_assignments(exam)
    right = [each for each in near if _off(each, reading) <= 1]
    exam.only_if(bool(right), "scores are wrong, as scores.ties says")
    image, anchor = np.nonzero(reading.found.any(axis=1))
    got = sides_of(exam)[image, :, anchor]
    ways = [_of_boxes(each, reading) for each in right]
    fits = (want_off for want_off in ways if (abs(got - want_off[0]) <= want_off[1]).all())
    want, allowed = next(fits, ways[0])  # the same scores may be those of two targets of one class
    exam.expect_close("gradient at anchor, channel", want, got, allowed, BECAUSE)


def _of_boxes(budget: Budget, reading: Reading) -> tuple[Reals, Reals]:
    """The gradient of the boxes at anchors whose score can be seen, by an assignment, and how far it may be off."""
    r = budget.reference
    image, anchor = np.nonzero(reading.found.any(axis=1))
    at = image, slice(None), anchor
    want, off = r.placed(r.box_gradient + r.third_gradient)[at], r.placed(budget.box_gradient + budget.third_gradient)
    unseen = float(np.where(reading.allowed & ~reading.found, 2 * reading.error, 0).sum())
    return want, off[at] + budget.least + unseen / r.divisor * abs(want)


def own_assignments(exam: Exam) -> tuple[list[Budget], Reading]:
    """The budgets by the assignments that may have the scores that the gradient shows, the nearest first."""
    allowed, reading = tied(exam)
    doubtful = allowed.budget.edges_in_doubt
    found = [Budget(exam.case, exam.subject.dialect, owner, doubtful) for owner in allowed.owners(reading)]
    exam.only_if(0 < len(found) < MOST, "several targets of one class may have the anchors")
    found.sort(key=lambda each: _off(each, reading))
    unseen = ~reading.found & (found[0].reference.score - found[0].score > 2 * reading.error)
    exam.only_if(not unseen.any(), "an anchor whose score cannot be seen may have a target or none")
    return found, reading


def _off(budget: Budget, reading: Reading) -> float:
    """How far the scores are from those of an assignment, as a multiple of what is allowed."""
    return float((abs(budget.reference.score - reading.scores) / (2 * reading.error + budget.score)).max(initial=0))
