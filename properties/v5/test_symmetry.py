"""Symmetry: changes of the input that do not change the loss. They need no reference, and hold for every dialect.

A mirrored image has the same objects: mirrored predictions with mirrored targets have the same loss. The same holds
for images in another order, classes with other numbers, and so on. To mirror predictions, these laws flip the grid and
change the sign of the x logit: the offset 2 sigmoid(x) - 1/2 becomes 1 minus itself.

Mirroring the centres is exact in float32. No centre lies on a grid line, where the neighbour rules are not symmetric
(the right neighbour of a centre on a line is its own cell). Both sides of each equation are rounded, so the tolerance
is the sum of both tolerances.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .case import Case
from .reference import Reference
from .strategies import cases

SYMMETRIC = cases(
    exact=True,
    min_targets=1,
    layouts=("contiguous",),
    dtypes=("float32", "float64"),
    target_dtypes=("float32",),
)
Row = tuple[float, ...]


def mapped(case: Case, row: Callable[..., Row]) -> tuple[Row, ...]:
    """The target rows (image, class, x, y, w, h), each changed by ``row``."""
    return tuple(row(*target) for target in case.targets)


def signed(logits: Tensor, *channels: int) -> Tensor:
    """A copy with some channels negated."""
    copy = logits.clone()
    copy[..., channels] *= -1
    return copy


def shared_cells(reference: Reference) -> bool:
    """Whether any two rows of a layer share image, anchor and cell."""
    return any(len(set(zip(r.image, r.anchor, r.row, r.column, strict=True))) < len(r) for r in reference.rows)


def no_shared_cells(exam: Exam) -> None:
    """Skip cases with shared cells: there the order of rows decides, and these laws change the order."""
    exam.only_if(exam.case.options.sort_obj_iou or not shared_cells(exam.budget.reference), "a cell is shared")


def same_loss(exam: Exam, other: Exam, factor: float = 1.0) -> None:
    """The items, if there are any, are equal, and the total is ``factor`` times as large.

    A dialect that adds an epsilon to heights is not quite symmetric: the reference says by how much.
    """
    one, two = exam.budget, other.budget
    here, there = one.reference.calls[-1], two.reference.calls[-1]
    if exam.has_items:
        off = one.items[-1] + two.items[-1] + abs(np.subtract(here.items, there.items))
        exam.expect_close("items (box, obj, cls)", exam.items, other.items, off, BECAUSE)
    allowed = factor * one.totals[-1] + two.totals[-1] + abs(factor * here.total - there.total)
    exam.expect_close("total", factor * exam.calls[-1].total, other.calls[-1].total, allowed, BECAUSE)


def same_gradient(exam: Exam, other: Exam, back: Callable[[Tensor], Tensor]) -> None:
    """The other gradient, transformed back, equals this one."""
    for i, (here, there) in enumerate(zip(exam.gradients, other.gradients, strict=True)):
        known = there, other.budget.gradients[i], other.budget.reference.gradients[i]
        brought, off, want = (back(torch.from_numpy(g)).numpy() for g in known)
        tolerance = exam.budget.gradients[i] + abs(off) + abs(exam.budget.reference.gradients[i] - want)
        exam.expect_close(f"gradient of layer {i}", here, brought, tolerance, BECAUSE)


def mirrored(exam: Exam, axis: int, channel: int, row: Callable[..., Row]) -> None:
    """Flip the grids along an axis: items and total stay the same, and the gradient is flipped too."""
    no_shared_cells(exam)

    def turn(logits: Tensor) -> Tensor:
        return signed(logits.flip(axis), channel)

    logits = tuple(turn(x) for x in exam.case.logits)
    other = exam.on(exam.case.with_logits(logits, targets=mapped(exam.case, row)))
    same_loss(exam, other)
    same_gradient(exam, other, turn)


@law(
    "symmetry.left-right",
    title="Mirroring left to right changes the loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_a_mirrored_image_has_the_same_loss(exam: Exam) -> None:
    """Mirroring predictions and targets left to right changes neither the loss nor the (mirrored) gradient."""
    mirrored(exam, axis=3, channel=0, row=lambda b, c, x, y, w, h: (b, c, 1 - x, y, w, h))


@law(
    "symmetry.up-down",
    title="Mirroring top to bottom changes the loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_an_image_upside_down_has_the_same_loss(exam: Exam) -> None:
    """Mirroring predictions and targets top to bottom changes neither the loss nor the (mirrored) gradient."""
    mirrored(exam, axis=2, channel=1, row=lambda b, c, x, y, w, h: (b, c, x, 1 - y, w, h))


@law(
    "symmetry.transposition",
    title="Swapping x and y changes the loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_a_transposed_image_has_the_same_loss(exam: Exam) -> None:
    """Swapping x and y (of grids, anchors' sides, targets, logits) changes neither the loss nor the gradient."""
    no_shared_cells(exam)

    def swap(logits: Tensor) -> Tensor:
        order = [1, 0, 3, 2, *range(4, logits.shape[-1])]
        return logits.transpose(2, 3)[..., order].contiguous()

    other = exam.on(
        exam.case.with_logits(
            tuple(swap(x) for x in exam.case.logits),
            predictions=plain(exam.case),
            grids=tuple((w, h) for h, w in exam.case.grids),
            anchors=tuple(tuple((h, w) for w, h in layer) for layer in exam.case.anchors),
            targets=mapped(exam.case, lambda b, c, x, y, w, h: (b, c, y, x, h, w)),
        )
    )
    same_loss(exam, other)
    same_gradient(exam, other, swap)


def plain(case: Case) -> object:
    """The case's logits without overrides, for derived cases of other shapes."""
    return case.predictions.model_copy(update={"overrides": ()})


@law(
    "symmetry.image-order",
    title="The order of the images changes the loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_the_order_of_images_does_not_matter(exam: Exam) -> None:
    """Reversing the images, in predictions and targets, changes neither the loss nor the gradient."""
    last = exam.case.batch - 1
    other = exam.on(
        exam.case.with_logits(
            tuple(x.flip(0) for x in exam.case.logits),
            targets=mapped(exam.case, lambda b, *rest: (last - b, *rest)),
        )
    )
    same_loss(exam, other)
    same_gradient(exam, other, lambda g: g.flip(0))


@law(
    "symmetry.target-order",
    title="The order of the targets changes the loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_the_order_of_targets_does_not_matter_where_no_cell_is_shared(exam: Exam) -> None:
    """Reversing the target rows changes neither the loss nor the gradient, unless rows share a cell."""
    no_shared_cells(exam)
    other = exam.on(exam.case.changed(targets=exam.case.targets[::-1]))
    same_loss(exam, other)
    same_gradient(exam, other, lambda g: g)


@law(
    "symmetry.class-order",
    title="The order of the classes changes the loss",
    source="SPEC 4",
    cases=SYMMETRIC,
    again=True,
)
def test_the_numbers_of_classes_do_not_matter(exam: Exam) -> None:
    """Reversing the classes, in predictions and targets, changes neither the loss nor the gradient."""
    last = exam.case.classes - 1

    def turn(logits: Tensor) -> Tensor:
        return torch.cat((logits[..., :5], logits[..., 5:].flip(-1)), dim=-1)

    other = exam.on(
        exam.case.with_logits(
            tuple(turn(x) for x in exam.case.logits),
            targets=mapped(exam.case, lambda b, c, *rest: (b, last - c, *rest)),
        )
    )
    same_loss(exam, other)
    same_gradient(exam, other, turn)


@law(
    "symmetry.anchor-order",
    title="The order of the anchors changes the loss",
    source="SPEC 1.2",
    cases=SYMMETRIC,
    again=True,
)
def test_the_order_of_anchors_does_not_matter(exam: Exam) -> None:
    """Reversing the anchors of every layer, with their predictions, changes neither the loss nor the gradient."""
    no_shared_cells(exam)
    other = exam.on(
        exam.case.with_logits(
            tuple(x.flip(1) for x in exam.case.logits),
            anchors=tuple(layer[::-1] for layer in exam.case.anchors),
        )
    )
    same_loss(exam, other)
    same_gradient(exam, other, lambda g: g.flip(1))


def reversed_layers(case: Case) -> Case:
    """The case with its layers in the opposite order."""
    return case.with_logits(
        case.logits[::-1],
        predictions=plain(case),
        grids=case.grids[::-1],
        strides=case.strides[::-1],
        anchors=case.anchors[::-1],
    )


@law(
    "symmetry.layer-order",
    title="The order of the layers changes the loss",
    source="SPEC 3, balance",
    cases=SYMMETRIC,
    again=True,
)
def test_the_order_of_layers_does_not_matter_to_box_and_class(exam: Exam) -> None:
    """Reversing the layers changes neither the box nor the class item; objectness has a balance for each layer."""
    other = exam.on(reversed_layers(exam.case))
    budget = exam.budget.items[-1]
    exam.expect_close("items (box, cls)", exam.items[::2], other.items[::2], 2 * budget[::2], BECAUSE)


@law(
    "symmetry.duplicated-batch",
    title="Two copies of a batch do not have twice its loss",
    source="FAMILIES, relations",
    cases=SYMMETRIC,
    again=True,
)
def test_a_duplicated_batch_has_twice_the_total(exam: Exam) -> None:
    """A batch of two equal copies has the same items and twice the total."""
    batch = exam.case.batch
    twice = exam.case.targets + mapped(exam.case, lambda b, *rest: (b + batch, *rest))
    logits = tuple(torch.cat((x, x)) for x in exam.case.logits)
    other = exam.on(exam.case.with_logits(logits, batch=2 * batch, targets=twice))
    same_loss(exam, other, factor=2.0 if exam.subject.dialect.batch == "times" else 1.0)


@law(
    "symmetry.concatenated-batches",
    title="Two batches in one do not have the mean of their objectness losses",
    source="SPEC 6",
    cases=SYMMETRIC,
    again=True,
)
def test_the_objectness_of_a_batch_is_the_mean_of_its_halves(exam: Exam) -> None:
    """The objectness item of two concatenated batches is the mean of their objectness items."""
    case = exam.case
    empty = exam.on(case.changed(targets=(), predictions=plain(case)))
    both = exam.on(
        case.with_logits(
            tuple(torch.cat(pair) for pair in zip(case.logits, empty.case.logits, strict=True)), batch=2 * case.batch
        )
    )
    mean = (exam.items[1] + empty.items[1]) / 2
    tolerance = exam.budget.items[-1][1] + empty.budget.items[-1][1]
    exam.expect_close("objectness item", mean, both.items[1], 2 * tolerance, BECAUSE)


@law("symmetry.stride", title="The loss depends on the strides", source="SPEC 1, 2", cases=SYMMETRIC, again=True)
def test_strides_do_not_matter_if_anchors_are_in_cells(exam: Exam) -> None:
    """The loss does not depend on pixels: other strides, with the same anchors in cells, give the same total."""
    other = exam.on(exam.case.changed(strides=tuple(2 * s for s in exam.case.strides)))
    off = 2 * exam.budget.totals[-1]
    exam.expect_close("total", exam.calls[-1].total, other.calls[-1].total, off, BECAUSE)
