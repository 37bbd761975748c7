"""Boxes: each anchor's predicted box is compared with its target by CIoU, in cells.

An anchor predicts its distances to the four sides: with R > 1 bins as the mean of 0 to R - 1 under their softmax, with
one bin as the logit itself. The box item is gain x the sum of (1 - CIoU) x score over the sum of scores.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .case import SIDES, SeededLogits
from .items import expect_item, expect_sides, sides_of, with_gains
from .reading import decided, in_order
from .strategies import EVERY_KIND, WITH_TARGETS


@law(
    "boxes.background",
    title="The box of an anchor without a target has a gradient",
    source="SPEC 6",
    cases=EVERY_KIND,
    everywhere=True,
)
def test_the_boxes_of_the_background_have_no_gradient(exam: Exam) -> None:
    """The gradient of the side logits is exactly 0 where no target is: outside all enlarged boxes."""
    in_order(exam)
    budget = exam.budget
    r = budget.reference
    inside = r.candidate | budget.edges_in_doubt
    near = np.stack([inside[mine].any(axis=0) for mine in r.mine])[:, None]
    found = sides_of(exam)
    exam.expect((found == 0) | near, "gradient at image, channel, anchor", "0", found)


@law("boxes.item", title="The box item is wrong", source="SPEC 4, 5", cases=EVERY_KIND)
def test_the_box_item_is_that_of_the_reference(exam: Exam) -> None:
    """The box item is the gain times the sum of (1 - CIoU) x score over the sum of scores."""
    expect_item(exam, 0)


@law(
    "boxes.gradient", title="The gradient of the box term is wrong", source="SPEC 4, 6", cases=WITH_TARGETS, again=True
)
def test_the_gradient_of_the_box_term_is_that_of_the_reference(exam: Exam) -> None:
    """Without the third term, the gradient of the side logits is that of (1 - CIoU) x score, with alpha constant."""
    expect_sides(exam, with_gains(exam, dfl=0.0))


@law(
    "boxes.perfect-fit",
    title="A box that fits its target exactly still has a loss",
    source="SPEC 10.17",
    cases=WITH_TARGETS,
    again=True,
)
def test_a_perfect_fit_has_no_box_loss(exam: Exam) -> None:
    """If every anchor predicts the distances to its only target, the box item is finite, and 0 within rounding."""
    targets, seed = exam.case.targets, getattr(exam.case.predictions, "seed", 0)
    exam.only_if(exam.case.dtype in ("float32", "float64"), "half precision cannot predict exact distances")
    fit = SeededLogits(seed=seed, box_scale=0.0, aim=True)
    case = exam.case.changed(reg_max=1, targets=targets[:1], predictions=fit)
    other = exam.on(case)
    floor = other.budget.reference.calls[0].items[0]
    exam.expect_close("box item", floor, other.items[0], other.budget.items[0][0], BECAUSE)


@law(
    "boxes.shifted-bins",
    title="Adding a number to all bins of a side changes the loss",
    source="SPEC 10.11",
    cases=WITH_TARGETS,
    again=True,
)
def test_a_number_added_to_all_bins_changes_nothing(exam: Exam) -> None:
    """Adding 1 to all bins of a side changes no item, as softmax does not see it."""
    bins = exam.case.reg_max
    exam.only_if(bins > 1 and exam.case.dtype in ("float32", "float64"), "one bin, or half precision")
    budget = decided(exam)
    logits = [level.clone() for level in exam.case.logits]
    for level in logits:
        level[:, : SIDES * bins] += 1.0
    other = exam.on(exam.case.with_logits(logits))
    decided(other)
    allowed = budget.items[0] + other.budget.items[0]
    off = abs(np.subtract(budget.reference.calls[0].items, other.budget.reference.calls[0].items))
    exam.expect_close("items (box, cls, third)", exam.items, other.items, allowed + off, BECAUSE)
