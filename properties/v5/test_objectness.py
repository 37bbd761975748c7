"""Objectness: every cell and anchor predicts whether an object is there, and how well its box fits.

The target of a cell is max(CIoU, 0) of its row, detached, and 0 in cells without a row. If rows share a cell, the last
one decides, or with sort_obj_iou the one with the largest CIoU. With gr below 1 the target is moved towards 1. The item
is the mean BCE over all cells of a layer times the layer's balance, summed over layers, times the gain.

The gradient of a BCE is sigmoid - target. So these laws compute the target from the gradient, for any loss.
"""

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.outcome import Grid

from .budget import BECAUSE
from .formulas import sigmoid
from .items import expect_item
from .pools import HYPS, ONE_CALL
from .strategies import cases

# Without focal loss and positive weight the gradient is sigmoid - target. The logits are small, so sigmoid is not
# saturated, and the target can be computed from the gradient.
READABLE = cases(
    min_targets=1,
    hyps=[h for h in HYPS if h.fl_gamma == 0 and h.obj_pw == 1],
    logits=((4.0, 0.0), (0.0, 0.0), (1.0, 0.0)),
)


def recovered(exam: Exam, i: int) -> tuple[Grid, Grid]:
    """The objectness targets of a layer, computed from the gradient, and their tolerances."""
    reference = exam.budget.reference
    weight = reference.weights[i][1]
    off = exam.budget.gradients[i][..., 4] / weight
    return sigmoid(reference.logits[i][..., 4]) - exam.gradients[i][..., 4] / weight, off


@law("objectness.item", title="The objectness item is wrong", source="SPEC 3", cases=cases(), everywhere=True)
def test_the_objectness_item_is_that_of_the_reference(exam: Exam) -> None:
    """The item is the gain times the sum over layers of balance times the mean BCE over all cells."""
    expect_item(exam, 1)


@law(
    "objectness.gradient",
    title="The gradient of an objectness logit is wrong",
    source="SPEC 3, 6",
    cases=cases(),
    everywhere=True,
)
def test_the_gradient_of_every_objectness_logit_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of every objectness logit is balance x gain x batch / cells x the criterion's derivative."""
    budget = exam.budget
    for i, (want, off) in enumerate(zip(budget.reference.gradients, budget.gradients, strict=True)):
        place = f"layer {i}, gradient at image, anchor, row, column"
        exam.expect_close(place, want[..., 4], exam.gradients[i][..., 4], off[..., 4], BECAUSE)


@law(
    "objectness.target-range",
    title="The objectness target of a cell is outside [0, 1]",
    source="SPEC 3",
    cases=READABLE,
)
def test_objectness_targets_lie_between_0_and_1(exam: Exam) -> None:
    """The target, computed from the gradient, lies in [0, 1] in every cell."""
    for i in range(exam.case.layers):
        target, off = recovered(exam, i)
        holds = (target >= -off) & (target <= 1 + off)
        exam.expect(holds, f"layer {i}, target at image, anchor, row, column", "from 0 to 1", target)


@law("objectness.background", title="A cell without a row has an objectness target", source="SPEC 3", cases=READABLE)
def test_cells_without_a_row_have_target_0(exam: Exam) -> None:
    """The target, computed from the gradient, is 0 in every cell that no row uses."""
    for i, winner in enumerate(exam.budget.reference.winner):
        target, off = recovered(exam, i)
        empty = winner < 0
        place = f"layer {i}, target of the empty cells"
        exam.expect_close(place, 0.0, np.where(empty, target, 0), off, BECAUSE)


@law(
    "objectness.target",
    title="The objectness target of a cell is not the overlap of its row",
    source="SPEC 3",
    cases=READABLE,
)
def test_the_target_of_a_cell_is_the_overlap_of_its_row(exam: Exam) -> None:
    """The target, computed from the gradient, is (1 - gr) + gr max(CIoU, 0) of the row that wins the cell."""
    for i, want in enumerate(exam.budget.reference.objectness):
        target, off = recovered(exam, i)
        exam.expect_close(f"layer {i}, target at image, anchor, row, column", want, target, off, BECAUSE)


def shared(exam: Exam, i: int) -> NDArray[np.bool_]:
    """The cells that more than one row uses."""
    rows = exam.budget.reference.rows[i]
    count = np.zeros(exam.case.shape(i)[:4])
    np.add.at(count, (rows.image, rows.anchor, rows.row, rows.column), 1)
    return np.asarray(count > 1)


SHARED = cases(
    min_targets=2,
    hyps=HYPS[:1],
    options=[o for o in ONE_CALL if not o.sort_obj_iou and o.gr == 1],
    logits=((4.0, 0.0), (1.0, 0.0)),
    crowded=True,
)


@law(
    "objectness.last-row-wins",
    title="A cell that rows share does not get its objectness target from the last of them",
    source="SPEC 3",
    cases=SHARED,
    only={"shared_cells": "last"},
)
def test_the_last_row_wins_a_shared_cell(exam: Exam) -> None:
    """If rows share a cell, its target is that of the last row in upstream's order."""
    shares = [shared(exam, i) for i in range(exam.case.layers)]
    exam.only_if(any(s.any() for s in shares), "no cell is shared")
    for i, want in enumerate(exam.budget.reference.objectness):
        target, off = recovered(exam, i)
        observed = np.where(shares[i], target, want)
        exam.expect_close(f"layer {i}, target of the shared cells", want, observed, off, BECAUSE)


@law(
    "objectness.largest-ciou-wins",
    title="With sort_obj_iou, a cell does not get the largest overlap of its rows",
    source="SPEC 3, sort_obj_iou",
    cases=cases(
        min_targets=2,
        hyps=HYPS[:1],
        options=[o for o in ONE_CALL if o.sort_obj_iou],
        logits=((4.0, 0.0), (1.0, 0.0)),
        crowded=True,
    ),
)
def test_with_sorting_the_largest_overlap_wins_a_shared_cell(exam: Exam) -> None:
    """With sort_obj_iou, no row of a cell has a larger CIoU than the cell's target."""
    reference = exam.budget.reference
    for i, rows in enumerate(reference.rows):
        target, off = recovered(exam, i)
        at = (rows.image, rows.anchor, rows.row, rows.column)
        least = np.maximum(reference.overlaps[i], 0)
        exam.expect(target[at] >= least - off[at], f"layer {i}, target of row", f"at least {least}", target[at])


@law(
    "objectness.gr",
    title="gr does not move the objectness targets towards 1",
    source="SPEC 3, gr",
    cases=cases(min_targets=1, hyps=HYPS[:1], options=[o for o in ONE_CALL if o.gr < 1], logits=((1.0, 0.0),)),
)
def test_a_smaller_gr_moves_targets_towards_1(exam: Exam) -> None:
    """With gr below 1 the target of every cell with a row is at least 1 - gr, and 1 if gr is 0."""
    least = 1 - exam.case.options.gr
    for i, winner in enumerate(exam.budget.reference.winner):
        target, off = recovered(exam, i)
        exam.expect((target >= least - off) | (winner < 0), f"layer {i}, target", f"at least {least:g}", target)


@law(
    "objectness.background-gradient",
    title="A cell without an object does not learn that it is empty",
    source="SPEC 3",
    cases=cases(dtypes=("float32",), logits=((4.0, 0.0), (1.0, 0.0))),
)
def test_a_layer_without_rows_still_learns_that_it_is_empty(exam: Exam) -> None:
    """The objectness logits of cells with target 0 have a gradient, also on layers that no target matches."""
    for i, gradient in enumerate(exam.gradients):
        target = exam.budget.reference.objectness[i]
        telling = abs(sigmoid(exam.budget.reference.logits[i][..., 4]) - target) > 1e-2
        dead = telling & (gradient[..., 4] == 0) & (target == 0)
        exam.expect(~dead, f"layer {i}, objectness gradient", "not 0", gradient[..., 4])


@law(
    "objectness.target-detached",
    title="A gradient flows through the objectness target",
    source="SPEC 3",
    cases=cases(
        min_targets=1,
        hyps=[h.model_copy(update={"box": 0.0, "cls": 0.0}) for h in HYPS[:1]],
        dtypes=("float32", "float64"),
    ),
)
def test_the_objectness_target_carries_no_gradient(exam: Exam) -> None:
    """If the gains of box and class are 0, only objectness logits have a gradient."""
    # An item that is not 0 though its gain is has a gradient of its own, and a law about it.
    ignored = [exam.has_items and exam.items[item] != 0 for item in (0, 2)]
    for i, gradient in enumerate(exam.gradients):
        channel = np.arange(gradient.shape[-1])
        allowed = (channel == 4) | ((channel < 4) & ignored[0]) | ((channel > 4) & ignored[1])
        place = f"layer {i}, gradient at image, anchor, row, column, channel"
        exam.expect((gradient == 0) | allowed, place, "0 except in channel 4, objectness", gradient)
