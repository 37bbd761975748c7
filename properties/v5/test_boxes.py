"""Boxes: each row's decoded prediction is compared with its target by CIoU.

A prediction has four logits. The centre is 2 sigmoid(x) - 1/2, in cells relative to the row's cell, so it may lie up
to half a cell outside on each side. The size is (2 sigmoid(x))^2 times the anchor, so up to four times the anchor.
CIoU is the overlap (IoU), minus the distance of the centres relative to the enclosing box, minus a penalty for a
different aspect ratio. The box item is the mean of 1 - CIoU over a layer's rows, summed over layers, times its gain.
"""

import numpy as np
from torch import Tensor

from yololoss.harness.cases.domain import any_of
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .items import expect_item
from .named import compared
from .pools import SMALL
from .strategies import cases

FEW_ROWS = cases(min_targets=1)
NAMED_BECAUSE = "rounding, and an epsilon in any place, see properties/v5/named.py"


@law("boxes.item", title="The box item is wrong", source="SPEC 2", cases=FEW_ROWS, everywhere=True)
def test_the_box_item_is_that_of_the_reference(exam: Exam) -> None:
    """The box item is the gain times the sum over layers of the mean of 1 - CIoU over rows."""
    budget = exam.budget
    if budget.reference.own and exam.subject.dialect.overlap != "own":  # taken from the loss, and has a name
        want, got, allowed = compared(budget.reference)
        exam.expect_close("usual row and (overlap, by x, y, w, h)", want, got, allowed, NAMED_BECAUSE)
    expect_item(exam, 0)


@law("boxes.item-range", title="The box item is outside its range", source="SPEC 2", cases=FEW_ROWS)
def test_the_loss_of_a_row_lies_between_0_and_3(exam: Exam) -> None:
    """1 - CIoU of each row lies in [0, 3), so the box item lies between 0 and 3 x gain x number of layers."""
    exam.only_if(not exam.subject.dialect.taken, "the overlap may have another range")
    budget = exam.budget
    most = 3 * exam.case.hyp.box * exam.case.layers * budget.reference.scales[0]
    slack = budget.items[-1][0]
    exam.expect(-slack <= exam.items[0] <= most + slack, "box item", f"from 0 to {most:g}", exam.items[0])


ONE = cases(min_targets=1, max_targets=1, dtypes=("float32", "float64"))
# boxes so small that the eps of CIoU changes the result by more than rounding
SPECKS = cases(min_targets=1, max_targets=1, dtypes=("float32", "float64"), large=SMALL)


@law(
    "boxes.perfect-fit",
    title="A box that fits its target exactly still has a loss",
    source="SPEC 2",
    cases=ONE,
    again=True,
)
def test_a_perfect_fit_has_no_box_loss(exam: Exam) -> None:
    """If every row's prediction equals its target, the box item is finite, and 0 within rounding."""
    fitted = exam.on(exam.case.with_logits(fit(exam)))
    wrong = exam.budget.reference
    exam.only_if(any(len(r) for r in wrong.rows), "no row")
    exam.only_if(not clipped(exam), "a target is larger than any prediction")
    budget = fitted.budget
    # not exactly 0: the logits are rounded, and eps is part of the union of a small box
    floor = budget.reference.calls[-1].items[0]
    exam.expect_close("box item", floor, fitted.items[0], budget.items[-1][0], BECAUSE)
    eps = max(exam.subject.dialect.overlap_eps, 1e-7)
    most = max(float(((1 + 2 * r.box[:, 2]) / (r.box[:, 2] * r.box[:, 3])).max()) for r in wrong.rows if len(r))
    allowed = exam.case.hyp.box * exam.case.layers * budget.reference.scales[0] * (1e-3 + eps * most)
    allowed += max(budget.items[-1][0], floor)  # a dialect may give one target two boxes in a clamped cell
    exam.expect(fitted.items[0] <= allowed, "box item", f"at most {allowed:.3g}", fitted.items[0])


def clipped(exam: Exam) -> bool:
    """Whether a side of a target is four times its anchor's or more, which no logit predicts."""
    return any((r.box[:, 2:] >= 3.99 * r.anchor_wh).any() for r in exam.budget.reference.rows)


def fit(exam: Exam, off: float = 0.0) -> tuple[Tensor, ...]:
    """The case's logits, changed so that each row's cell predicts its target; in a shared cell, that of the last row.

    With ``off``, each cell predicts its target moved by ``off`` times its sides, and 1 + ``off`` times as large.
    """
    out = []
    for i, rows in enumerate(exam.budget.reference.rows):
        logits = exam.case.logits[i].clone()
        centre, size = np.split(rows.box.astype(np.float64), 2, axis=1)
        centre, size = centre + off * size, (1 + off) * size
        share = np.concatenate(((centre + 0.5) / 2, np.sqrt(size / rows.anchor_wh) / 2), axis=1)
        share = np.clip(share, 1e-9, 1 - 1e-9)
        for n in range(len(rows)):
            at = (rows.image[n], rows.anchor[n], rows.row[n], rows.column[n])
            logits[at][:4] = logits.new_tensor(np.log(share[n] / (1 - share[n])))
        out.append(logits)
    return tuple(out)


@law(
    "boxes.near-fit",
    title="A box that nearly fits its target has another loss or gradient",
    source="SPEC 2",
    cases=any_of(ONE, SPECKS),
    again=True,
)
def test_a_box_a_little_off_its_target_is_judged_as_by_the_reference(exam: Exam) -> None:
    """If predictions differ from their targets by a third of the sides, box item and gradient equal the reference's."""
    near = exam.on(exam.case.with_logits(fit(exam, off=1 / 3)))
    budget = near.budget
    if near.has_items:
        want = budget.reference.calls[-1].items[0]
        exam.expect_close("box item", want, near.items[0], budget.items[-1][0], BECAUSE)
    for i, (grid, off) in enumerate(zip(budget.reference.gradients, budget.gradients, strict=True)):
        place = f"layer {i}, gradient at image, anchor, row, column, channel"
        exam.expect_close(place, grid[..., :4], near.gradients[i][..., :4], off[..., :4], BECAUSE)


@law(
    "boxes.gradient", title="The gradient of a box logit is wrong", source="SPEC 2, 7", cases=FEW_ROWS, everywhere=True
)
def test_the_gradient_of_the_box_logits_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of the x, y, w, h logits is gain x batch / rows x that of 1 - CIoU, with alpha held constant."""
    budget = exam.budget
    for i, (want, off) in enumerate(zip(budget.reference.gradients, budget.gradients, strict=True)):
        exam.expect_close(
            f"layer {i}, gradient at image, anchor, row, column, channel",
            want[..., :4],
            exam.gradients[i][..., :4],
            off[..., :4],
            BECAUSE,
        )
