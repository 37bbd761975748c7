"""Assignment: which anchors predict which target.

Anchors whose point is strictly inside a target's box, small boxes enlarged, are its candidates. It takes the k with the
largest metric, score^alpha overlap^beta. An anchor that several targets took goes to the one with the largest overlap.
The laws read the assignment off the class gradient (`reading`), so they judge any loss.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .reading import Reading, decided, read
from .reference import Bools
from .strategies import CROWD, EVERY_KIND, MANY


@law(
    "assign.inside-box",
    title="An anchor outside every target of a class is trained as one of them",
    source="SPEC 3.1, 10.1",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_anchors_with_a_score_are_inside_a_target(exam: Exam) -> None:
    """An anchor has a score at a class only if its point is inside a (small ones: enlarged) target of that class."""
    reading = read(exam)
    outside = reading.found & ~reading.allowed
    exam.expect(~outside, "score at image, class, anchor", "0, as no target of that class is there", reading.scores)


@law(
    "assign.one-label",
    title="An anchor is trained as several classes",
    source="SPEC 10.1, 10.3",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_an_anchor_has_one_label(exam: Exam) -> None:
    """An anchor has a score in one class at most."""
    count = read(exam).found.sum(axis=1)
    exam.expect(count <= 1, "classes with a score at image, anchor", "1 at most", count)


@law(
    "assign.at-most-k",
    title="The targets of an image have more than k anchors each",
    source="SPEC 3.5, 10.2",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_targets_have_at_most_k_anchors_on_average(exam: Exam) -> None:
    """The targets of an image have at most k T anchors with a score, and at most k2 T with a second top-k."""
    reading, r = read(exam), exam.budget.reference
    most = min(r.topk, r.topk2 or r.topk) * r.mine.sum(axis=1)
    count = reading.found.any(axis=1).sum(axis=1)
    exam.expect(count <= most, "anchors with a score in image", f"at most {most.tolist()}", count)


def wrong_anchors(exam: Exam) -> tuple[Bools, Reading]:
    """Where the loss has no score and the reference has, or the other way round, (B, C, A).

    If most scores that are there are wrong, the law does not apply: some may be too small to be seen, or too large to
    be none, as the law scores.value says.
    """
    budget, reading = decided(exam), read(exam)
    want = budget.reference.score
    # far above what can be seen: a score that is there but too small is the fault of scores.value, as is one below 0
    missing = (want > 128 * (reading.error + budget.score)) & ~reading.found & (reading.scores > -8 * reading.error)
    other = reading.found & (want == 0) & (reading.scores > 8 * (reading.error + budget.score))
    right = abs(reading.scores - want) <= 2 * reading.error + budget.score
    there = reading.found & (want > 0)
    wrong = missing | other
    exam.only_if(not wrong.any() or (there & ~right).sum() <= (there & right).sum(), "most scores are wrong")
    return wrong, reading


@law("assign.contested", title="The wrong target wins an anchor", source="SPEC 3.4", cases=CROWD)
def test_a_contested_anchor_goes_to_the_largest_overlap(exam: Exam) -> None:
    """An anchor that several targets chose has the label of the one with the largest overlap, and no other."""
    wrong, reading = wrong_anchors(exam)
    r = exam.budget.reference
    several = np.stack([r.chosen[mine].sum(axis=0) for mine in r.mine]) > 1
    contested = (several & (r.owner == r.owner_before_topk2))[:, None]  # not those that a second top-k leaves out
    exam.only_if(bool(contested.any()), "no contested anchor")
    exam.only_if(not (wrong & ~contested).any(), "other anchors are wrong as well, as assign.anchors says")
    expected = "above 0 for the target with the largest overlap alone"
    exam.expect(~(wrong & contested), "score at image, class, anchor", expected, reading.scores)


def right_anchors(exam: Exam) -> None:
    """The loss has a score where the reference has one, and nowhere else."""
    wrong, reading = wrong_anchors(exam)
    want = exam.budget.reference.score
    at = tuple(np.argwhere(wrong)[0]) if wrong.any() else None
    expected = "0" if at is None or want[at] == 0 else f"{want[at]:.4g}"
    exam.expect(~wrong, "score at image, class, anchor", expected, reading.scores)


@law("assign.anchors", title="The wrong anchors predict a target", source="SPEC 3.2 to 3.5", cases=EVERY_KIND)
def test_the_anchors_of_the_targets_are_those_of_the_reference(exam: Exam) -> None:
    """Every anchor to which the reference gives a target has a score at that label, and no other anchor has one."""
    right_anchors(exam)


@law(
    "assign.many-pairs",
    title="With many targets and anchors, the wrong anchors predict a target",
    source="SPEC 3",
    cases=(MANY, MANY.changed(topk2=1)),
)
def test_many_targets_are_treated_like_few(exam: Exam) -> None:
    """With 40 targets and 8,400 anchors the anchors of the targets are those of the reference, too."""
    right_anchors(exam)
