"""Scores: how good each anchor of a target is, which is what its class logit should predict.

t = m U / (M + eps), where m is the anchor's metric, and M and U are the largest metric and overlap of the anchors that
the target has in the end. So the best anchor's score is the target's largest overlap, unless M is tiny.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .reading import decided, read
from .strategies import EVERY_KIND


@law(
    "scores.range",
    title="A score is above the largest overlap, or below 0",
    source="SPEC 10.3",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_a_score_lies_between_0_and_the_largest_overlap(exam: Exam) -> None:
    """A score lies between 0 and the largest overlap that a target of its class and image has with any candidate."""
    reading, budget = read(exam), exam.budget
    r = budget.reference
    most = np.zeros((exam.case.batch, exam.case.classes, 1))
    for row in np.flatnonzero(r.valid):
        top = (r.overlap[row] + budget.overlap[row])[r.candidate[row] | budget.edges_in_doubt[row]].max(initial=0)
        most[r.image[row], r.label[row]] = max(most[r.image[row], r.label[row], 0], top)
    slack = 2 * reading.error
    ok = (reading.scores >= -slack) & (reading.scores <= most + slack)
    exam.expect(ok, "score at image, class, anchor", "from 0 to the largest overlap", reading.scores)


@law("scores.value", title="A score is wrong", source="SPEC 3.7", cases=EVERY_KIND)
def test_the_scores_are_those_of_the_reference(exam: Exam) -> None:
    """The score of every anchor and class is the reference's."""
    budget, reading = decided(exam), read(exam)
    allowed = 2 * reading.error + budget.score
    place = "score at image, class, anchor"
    exam.expect_close(place, budget.reference.score, reading.scores, allowed, BECAUSE)
