"""Classes: every class logit of every anchor is trained to predict its score, which is 0 for the background.

The class item is gain x the sum of BCE over all anchors and classes, divided by the sum of scores, at least 1. It is no
mean. Its gradient is gain x batch x (sigmoid - score) / that sum.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE, FEW
from .items import expect_item
from .reading import Reading, decided, in_order, read
from .strategies import ANY, EVERY_KIND


@law(
    "classes.background",
    title="The background is not pushed down as it should be",
    source="SPEC 5, 6",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_the_background_has_its_share_of_the_gradient(exam: Exam) -> None:
    """The gradient of a class logit where no target is, is the same multiple of its sigmoid (times class weight)."""
    in_order(exam)
    reading = Reading(exam)
    background = reading.background
    exam.only_if(bool(background.any()), "the background has no visible gradient")
    shown = reading.gradient[background]
    exam.expect(shown > 0, "gradient of background logit", "above 0", shown)
    if reading.divisor is None:
        shares = reading.expected[background] / shown
        exam.fail("sum of scores, as most background logits show it", "one number", np.unique(shares.round(4)))
    allowed = 2 * reading.error[background]
    exam.expect_close("score of background logit", 0.0, reading.scores[background], allowed, BECAUSE)


@law(
    "classes.divisor",
    title="The terms are divided by another number than the sum of scores, at least 1",
    source="SPEC 5, 6",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_the_divisor_is_the_sum_of_the_scores(exam: Exam) -> None:
    """The number by which the class term is divided is the sum of all scores, and at least 1."""
    reading = read(exam)
    total = float(np.where(reading.allowed, reading.scores, 0).sum())
    slack = float(np.where(reading.allowed, reading.error, 0).sum())
    most = max(total, 1.0)
    allowed = slack + most * FEW * (exam.budget.unit + 4 * exam.budget.cast)
    exam.expect_close("divisor of the class gradient", most, reading.divisor or 0.0, allowed, BECAUSE)


@law("classes.item", title="The class item is wrong", source="SPEC 5", cases=EVERY_KIND)
def test_the_class_item_is_that_of_the_reference(exam: Exam) -> None:
    """The class item is the gain times the sum of BCE over all anchors and classes over the sum of scores."""
    expect_item(exam, 1)


@law("classes.gradient", title="The gradient of a class logit is wrong", source="SPEC 6", cases=EVERY_KIND)
def test_the_gradient_of_the_class_logits_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of every class logit is batch x gain x (sigmoid - score) x class weight / sum of scores."""
    budget = decided(exam)
    want, got = budget.reference.class_gradient, Reading(exam).gradient
    exam.expect_close("gradient at image, class, anchor", want, got, budget.class_gradient, BECAUSE)


@law(
    "classes.weights-of-one",
    title="Class weights of 1 change the loss",
    source="SPEC 10.10",
    cases=ANY,
    only={"class_weights": "used"},
    again=True,
)
def test_weights_of_one_change_nothing(exam: Exam) -> None:
    """Class weights that are all 1 give the class item of no weights."""
    plain = exam.on(exam.case.changed(class_weights=None))
    ones = exam.on(exam.case.changed(class_weights=(1.0,) * exam.case.classes))
    allowed = 2 * plain.budget.items[0][1]
    exam.expect_close("class item", plain.items[1], ones.items[1], allowed, BECAUSE)
