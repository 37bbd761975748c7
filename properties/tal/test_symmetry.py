"""Symmetry: changes of the input that do not change the loss (SPEC 10). They need no value of the reference.

Both sides of each equation are rounded, so the tolerance is the sum of both budgets, and of the difference of the two
references: CIoU adds an epsilon to heights, but not to widths. A loss with a fault of another kind rounds other numbers
than the reference: so some roundings of what it returned itself are added. Where rounding decides the assignment of one
side, the laws do not apply.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE, FEW
from .case import SIDES, Case
from .reading import in_order
from .strategies import POWERS, cases

SYMMETRIC = cases(
    min_targets=1,
    dtypes=("float32", "float64"),
    layouts=("contiguous",),
    target_dtypes=("float32",),
    first_strides=POWERS,
)
Row = tuple[float, ...]


def same_edges(exam: Exam) -> None:
    """All levels end where the image ends, so that a mirrored image has mirrored grids."""
    sides = zip(exam.case.grids, exam.case.strides, strict=True)
    ends = {(rows * stride, columns * stride) for (rows, columns), stride in sides}
    exam.only_if(len(ends) == 1, "a level that is larger than the image")


def undoubted(*exams: Exam) -> None:
    """Rows in order, where rounding decides nothing in the assignment."""
    in_order(exams[0])
    for each in exams:
        each.only_if(each.budget.doubt is None, f"rounding decides {each.budget.doubt}")


def own_rounding(budget: Any, here: Any, there: Any) -> Any:
    """How far a loss that is another one than the reference may round its own numbers in two runs."""
    return FEW * budget.unit * (abs(here) + abs(there))


def same_loss(exam: Exam, other: Exam, factor: float = 1.0, total: float = 1.0) -> None:
    """The items are ``factor`` times, the total ``total`` times as large."""
    one, two = exam.budget, other.budget
    undoubted(exam, other)
    want, there = (np.array(b.reference.calls[0].items) for b in (one, two))
    off = factor * one.items[0] + two.items[0] + abs(factor * want - there)
    if exam.has_items:
        ours, theirs = factor * exam.items, other.items
        off = off + own_rounding(one, ours, theirs)
        exam.expect_close("items (box, cls, third)", ours, theirs, off, BECAUSE)
    here, now = (b.reference.calls[0].total for b in (one, two))
    mine, its = total * exam.calls[0].total, other.calls[0].total
    allowed = total * one.totals[0] + two.totals[0] + abs(total * here - now) + own_rounding(one, mine, its)
    exam.expect_close("total", mine, its, allowed, BECAUSE)


def same_gradient(exam: Exam, other: Exam, back: Callable[[Tensor, int], Tensor]) -> None:
    """The other gradient, transformed back, equals this one."""
    one, two = exam.budget, other.budget
    for i, (here, there) in enumerate(zip(exam.gradients, other.gradients, strict=True)):
        known = there, two.gradients[i], two.reference.gradients[i]
        brought, off, want = (back(torch.from_numpy(np.ascontiguousarray(g)), i).numpy() for g in known)
        allowed = one.gradients[i] + off + abs(one.reference.gradients[i] - want) + own_rounding(one, here, brought)
        exam.expect_close(f"gradient of level {i}", here, brought, allowed, BECAUSE)


def turned(exam: Exam, turn: Callable[[Tensor, int], Tensor], **fields: Any) -> None:
    """Transform the logits, and other fields: the loss stays, and the gradient is transformed."""
    undoubted(exam)
    logits = [turn(level, i) for i, level in enumerate(exam.case.logits)]
    other = exam.on(exam.case.with_logits(logits, **fields))
    same_loss(exam, other)
    same_gradient(exam, other, turn)


def mapped(case: Case, row: Callable[..., Row]) -> tuple[Row, ...]:
    """The target rows (image, class, x, y, w, h), each changed by ``row``."""
    return tuple(row(*target) for target in case.targets)


def sides_swapped(logits: Tensor, bins: int, order: tuple[int, ...]) -> Tensor:
    """The box channels of the four sides in another order."""
    channels = [side * bins + bin for side in order for bin in range(bins)]
    rest = range(SIDES * bins, logits.shape[1])
    return logits[:, [*channels, *rest]]


@law("symmetry.left-right", title="Mirroring left to right changes the loss", source="SPEC 10.5", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_a_mirrored_image_has_the_same_loss(exam: Exam) -> None:
    """Mirroring predictions and targets left to right changes neither the loss nor the (mirrored) gradient."""
    same_edges(exam)

    def turn(logits: Tensor, level: int) -> Tensor:
        return sides_swapped(logits.flip(3), exam.case.reg_max, (2, 1, 0, 3))

    turned(exam, turn, targets=mapped(exam.case, lambda b, c, x, y, w, h: (b, c, 1 - x, y, w, h)))


@law("symmetry.up-down", title="Mirroring top to bottom changes the loss", source="SPEC 10.5", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_an_image_upside_down_has_the_same_loss(exam: Exam) -> None:
    """Mirroring predictions and targets top to bottom changes neither the loss nor the (mirrored) gradient."""
    same_edges(exam)

    def turn(logits: Tensor, level: int) -> Tensor:
        return sides_swapped(logits.flip(2), exam.case.reg_max, (0, 3, 2, 1))

    turned(exam, turn, targets=mapped(exam.case, lambda b, c, x, y, w, h: (b, c, x, 1 - y, w, h)))


@law("symmetry.transposition", title="Swapping x and y changes the loss", source="SPEC 10.5", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_a_transposed_image_has_the_same_loss(exam: Exam) -> None:
    """Swapping rows and columns, x and y, w and h, left and top, changes neither the loss nor the gradient."""

    def turn(logits: Tensor, level: int) -> Tensor:
        return sides_swapped(logits.transpose(2, 3), exam.case.reg_max, (1, 0, 3, 2))

    turned(
        exam,
        turn,
        targets=mapped(exam.case, lambda b, c, x, y, w, h: (b, c, y, x, h, w)),
        grids=tuple((columns, rows) for rows, columns in exam.case.grids),
    )


@law("symmetry.image-order", title="The order of the images changes the loss", source="SPEC 10.4", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_the_order_of_the_images_does_not_matter(exam: Exam) -> None:
    """Images in reverse order, with their targets, give the same loss and the gradient in reverse order."""
    last = exam.case.batch - 1
    rows = mapped(exam.case, lambda b, *rest: (last - b, *rest))
    turned(exam, lambda logits, _: logits.flip(0), targets=tuple(sorted(rows, key=lambda row: row[0])))


@law("symmetry.target-order", title="The order of the targets changes the loss", source="SPEC 10.4", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_the_order_of_the_targets_of_an_image_does_not_matter(exam: Exam) -> None:
    """The targets of each image in reverse order give the same loss and gradient."""
    backwards = exam.case.targets[::-1]
    rows = tuple(sorted(backwards, key=lambda row: row[0]))
    turned(exam, lambda logits, _: logits, targets=rows)


@law("symmetry.class-order", title="The order of the classes changes the loss", source="SPEC 10.9", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_the_order_of_the_classes_does_not_matter(exam: Exam) -> None:
    """Classes in reverse order, logits, labels and weights together, give the same loss."""
    first, last, weights = SIDES * exam.case.reg_max, exam.case.classes - 1, exam.case.class_weights

    def turn(logits: Tensor, level: int) -> Tensor:
        return torch.cat((logits[:, :first], logits[:, first:].flip(1)), dim=1)

    rows = mapped(exam.case, lambda b, c, *rest: (b, last - c, *rest))
    turned(exam, turn, targets=rows, class_weights=None if weights is None else weights[::-1])


@law("symmetry.stride", title="The unit of the strides changes the loss", source="SPEC 10.6", cases=SYMMETRIC,
     again=True)  # fmt: skip
def test_doubled_strides_change_nothing(exam: Exam) -> None:
    """With all strides twice as large the loss is the same, up to epsilons: everything scales with it."""
    undoubted(exam)
    other = exam.on(exam.case.changed(strides=tuple(2 * stride for stride in exam.case.strides)))
    same_loss(exam, other)


@law("symmetry.duplicated-batch", title="Every image twice does not double the total", source="SPEC 10.7",
     cases=SYMMETRIC, again=True)  # fmt: skip
def test_every_image_twice_doubles_the_total(exam: Exam) -> None:
    """The batch after itself has the items of the batch (where the scores sum to 1 or more), and twice the total."""
    undoubted(exam)
    budget, batch = exam.budget, exam.case.batch
    t = float(budget.reference.row_scores.sum())
    share = 2 * max(t, 1.0) / max(2 * t, 1.0)
    rows = (*exam.case.targets, *mapped(exam.case, lambda b, *rest: (b + batch, *rest)))
    logits = [torch.cat((level, level)) for level in exam.case.logits]
    other = exam.on(exam.case.with_logits(logits, batch=2 * batch, targets=rows))
    same_loss(exam, other, factor=share, total=2 * share)


@law("symmetry.images-apart", title="An image's result depends on other images", source="SPEC 10.7, 10.14",
     cases=SYMMETRIC, again=True)  # fmt: skip
def test_the_scores_of_an_image_depend_on_no_other(exam: Exam) -> None:
    """The first image by itself has the class gradients that it has in the batch, but for the sum of scores."""
    exam.only_if(exam.case.batch > 1, "one image")
    undoubted(exam)
    one = exam.budget
    rows = tuple(target for target in exam.case.targets if target[0] == 0)
    alone = exam.on(exam.case.with_logits([level[:1] for level in exam.case.logits], batch=1, targets=rows))
    undoubted(alone)
    two = alone.budget
    share = one.reference.batch / two.reference.batch * two.reference.divisor / one.reference.divisor
    for i, (here, there) in enumerate(zip(exam.gradients, alone.gradients, strict=True)):
        off = one.gradients[i][:1] + share * two.gradients[i]
        exam.expect_close(f"gradient of level {i}, first image", here[:1], share * there, off, BECAUSE)
