"""Classes: each row's C class logits are compared with C binary targets.

The target is 1 at the row's class and 0 elsewhere; with label smoothing s, 1 - s/2 and s/2. The item is the mean
BCE over rows and classes of a layer, summed over layers, times the gain. With a single class it is 0.
"""

import numpy as np
from hypothesis.strategies import SearchStrategy

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .case import Case
from .items import expect_item
from .pools import HYPS
from .strategies import cases

ROWS = cases(min_targets=1)


def with_hyp(*names: str) -> SearchStrategy[Case]:
    """Cases whose hyperparameters differ from the defaults in at least one of ``names``."""
    usual = HYPS[0]
    return cases(min_targets=1, hyps=[h for h in HYPS if any(getattr(h, n) != getattr(usual, n) for n in names)])


def item_and_gradient(exam: Exam) -> None:
    """The class item, if the subject returns items, and the gradient of the class logits equal the reference's."""
    budget = exam.budget
    if exam.has_items:
        expect_item(exam, 2)
    for i, (grid, off) in enumerate(zip(budget.reference.gradients, budget.gradients, strict=True)):
        place = f"layer {i}, gradient at image, anchor, row, column, class"
        exam.expect_close(place, grid[..., 5:], exam.gradients[i][..., 5:], off[..., 5:], BECAUSE)


@law("classes.item", title="The class item is wrong", source="SPEC 4", cases=ROWS, everywhere=True)
def test_the_class_item_is_that_of_the_reference(exam: Exam) -> None:
    """The class item is the gain times the sum over layers of the mean BCE over rows and classes."""
    expect_item(exam, 2)


@law("classes.gradient", title="The gradient of a class logit is wrong", source="SPEC 4", cases=ROWS, everywhere=True)
def test_the_gradient_of_the_class_logits_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of a row's class logits is the criterion's derivative, summed over the rows of one cell."""
    item_and_gradient(exam)


@law(
    "classes.label-smoothing",
    title="Label smoothing gives other targets",
    source="SPEC 4",
    cases=with_hyp("label_smoothing"),
)
def test_label_smoothing_takes_half_from_the_class_and_gives_half_to_the_others(exam: Exam) -> None:
    """With label smoothing s the targets are 1 - s/2 at the class and s/2 elsewhere."""
    exam.only_if(exam.case.classes > 1, "one class")
    item_and_gradient(exam)


@law(
    "classes.positive-weight",
    title="cls_pw does not multiply the positive part of the class loss",
    source="SPEC 5",
    cases=with_hyp("cls_pw"),
)
def test_the_positive_weight_multiplies_the_positive_part(exam: Exam) -> None:
    """cls_pw multiplies the positive part of each BCE, the part that increases the logit."""
    exam.only_if(exam.case.classes > 1, "one class")
    item_and_gradient(exam)


@law("classes.focal", title="The focal class loss is wrong", source="SPEC 5", cases=with_hyp("fl_gamma"))
def test_focal_loss_discounts_what_is_already_right(exam: Exam) -> None:
    """With fl_gamma above 0 the class loss is a focal loss: BCE x the alpha factor x (1 - p_t)^gamma."""
    exam.only_if(exam.case.classes > 1, "one class")
    item_and_gradient(exam)


@law("classes.one-class", title="A single class is trained", source="SPEC 4", cases=cases(min_targets=1, classes=(1,)))
def test_a_single_class_is_not_learnt(exam: Exam) -> None:
    """With one class the class item is 0 and the class logit gets no gradient."""
    if exam.has_items:
        exam.expect_equal("class item", 0.0, exam.items[2])
    for i, gradient in enumerate(exam.gradients):
        exam.expect(gradient[..., 5:] == 0, f"layer {i}, gradient of the class logit", 0, gradient[..., 5:])


@law(
    "classes.gradient-sign",
    title="A class logit is pulled the wrong way",
    source="SPEC 4",
    cases=cases(
        min_targets=1, max_targets=1, classes=(2, 3, 5), hyps=HYPS[:1], logits=((4.0, 0.0), (1.0, 0.0)), spots=False
    ),
)
def test_the_right_class_is_pulled_up_and_all_others_down(exam: Exam) -> None:
    """In a row, the logit of the target's class has a negative gradient, and every other class logit a positive one."""
    for i, rows in enumerate(exam.budget.reference.rows):
        sign = np.where(np.arange(exam.case.classes) == rows.cls[:, None], -1, 1)
        mine = exam.gradients[i][rows.image, rows.anchor, rows.row, rows.column, 5:]
        exam.expect(mine * sign > 0, f"layer {i}, class gradient of row", "below 0 at the class, above elsewhere", mine)
