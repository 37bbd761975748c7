"""Gradients: what the network learns from. A loss may have the right value and a wrong gradient.

Only cells with rows have a gradient in their box and class logits. So the gradient shows the assignment, even of a
loss that does not show its rows.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from .budget import BECAUSE
from .pools import HYPS, ONE_CALL
from .strategies import ANY, cases
from .test_gather import trained, used

# Objectness and classes have one criterion, so what is wrong with it is one fault.
PARTS = (("box", "box", np.s_[:4]), ("class", "criterion", np.s_[5:]), ("objectness", "criterion", np.s_[4:5]))


@law(
    "gradients.finite",
    title="A gradient is not finite",
    source="SPEC 7",
    cases=ANY,
    infinite=True,
    several=True,
    everywhere=True,
)
def test_every_gradient_is_finite(exam: Exam) -> None:
    """No logit gets a NaN or infinite gradient, even for predicted boxes of size 0 and saturated logits."""
    exam.only_if(bool(np.isfinite(exam.calls[-1].total)), "the total itself is not finite")
    for i, gradient in enumerate(exam.gradients):
        for name, kind, part in PARTS:
            place = f"layer {i}, gradient of the {name} logits at image, anchor, row, column, channel"
            exam.expect(np.isfinite(gradient[..., part]), place, "finite", gradient[..., part], kind=kind)


@law(
    "gradients.value",
    title="The gradient of a logit is wrong",
    source="SPEC 6",
    cases=ANY,
    everywhere=True,
)
def test_every_gradient_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of the total with respect to every logit equals the reference's."""
    budget = exam.budget
    for i, (want, off) in enumerate(zip(budget.reference.gradients, budget.gradients, strict=True)):
        place = f"layer {i}, gradient at image, anchor, row, column, channel"
        exam.expect_close(place, want, exam.gradients[i], off, BECAUSE)


@law(
    "gradients.zero-unassigned-cells",
    title="A cell without a row has a box or class gradient",
    source="SPEC 6",
    cases=cases(),
)
def test_a_cell_without_a_row_has_no_box_or_class_gradient(exam: Exam) -> None:
    """In a cell that no row uses, the gradient of the x, y, w, h and class logits is exactly 0."""
    for i, rows in enumerate(exam.budget.reference.rows):
        rest = np.delete(exam.gradients[i], 4, axis=-1)
        rest[used(exam, i, rows)] = 0
        place = f"layer {i}, gradient outside objectness at image, anchor, row, column"
        exam.expect(rest == 0, place, "0 where no row is", rest)


# A class logit near 0 has a gradient that is larger than rounding, so every assigned cell shows. The constant logit is
# 1, not 0. At 0, with two classes, the class gradients of two rows of one cell may cancel (1/2 and -1/2), and a box
# that fits has no gradient. The gradients of C classes, summed over n rows, are n (C sigmoid(x) - 1): not 0 at x = 1.
TELLING = cases(
    min_targets=1,
    classes=(2, 3, 5),
    hyps=HYPS[:1],
    logits=((1.0, 0.0), (0.0, 1.0), (4.0, 0.0)),
    spots=False,
)


@law(
    "gradients.assignment",
    title="The cells that are trained are not those of the targets",
    source="FAMILIES, call forms",
    cases=TELLING,
)
def test_the_assignment_read_off_the_gradient_is_that_of_the_reference(exam: Exam) -> None:
    """The cells with a box or class gradient are exactly the cells of the reference's rows."""
    for i, rows in enumerate(exam.budget.reference.rows):
        place = f"layer {i}, assigned at image, anchor, row, column"
        exam.expect_equal(place, used(exam, i, rows), trained(exam, i))


SCALE = 2.0**16  # the initial scale of torch's GradScaler


@law(
    "gradients.loss-scaling",
    title="The gradient of a scaled total is not the scaled gradient",
    source="calculus",
    cases=cases(dtypes=("float32", "float64")),
    again=True,
)
def test_a_scaled_total_has_a_scaled_gradient(exam: Exam) -> None:
    """The gradient of 65,536 x the total is 65,536 x the total's gradient, as mixed-precision training requires."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        total, items = subject.loss(p, targets)
        total *= SCALE  # in place: trainers on several devices multiply the total by the number of devices
        return total, items

    scaled = exam.on(exam.case, calling=calling)
    for i, (here, there) in enumerate(zip(exam.gradients, scaled.gradients, strict=True)):
        want, off = exam.budget.reference.gradients[i], exam.budget.gradients[i]
        right = np.abs(here - want) <= off
        place = f"layer {i}, gradient of the scaled total, of those that are right"
        exam.expect_close(place, SCALE * here[right], there[right], 2 * SCALE * off[right], BECAUSE)


STEP = 2.0**-6  # of all objectness logits, for a central difference
SMOOTH = cases(dtypes=("float64",), options=ONE_CALL[:1], logits=((4.0, 0.0), (1.0, 0.0)), spots=False)


def ends(exam: Exam) -> tuple[Exam, Exam]:
    """The case with all objectness logits raised, and lowered, by `STEP`."""
    up, down = (exam.on(exam.case.with_logits(tuple(raised(x, s) for x in exam.case.logits))) for s in (STEP, -STEP))
    return up, down


@law(
    "gradients.finite-difference",
    title="The objectness gradient is not the slope of the total",
    source="calculus",
    cases=SMOOTH,
    again=True,
)
def test_the_objectness_gradient_is_the_slope_of_the_total(exam: Exam) -> None:
    """A small step of all objectness logits changes the total by that step x the sum of their gradients."""
    up, down = ends(exam)
    slope = (up.calls[0].total - down.calls[0].total) / (2 * STEP)
    summed = float(sum(g[..., 4].sum() for g in exam.gradients))
    rounding = (up.budget.totals[0] + down.budget.totals[0]) / (2 * STEP)
    curved = STEP**2 * curvature(exam)
    exam.expect_close("sum of objectness gradients", slope, summed, rounding + curved, "central difference")


def curvature(exam: Exam) -> float:
    """A bound on the third derivative of the total by all objectness logits together."""
    # The third derivative of BCE is below 1 + its positive weight, that of focal loss below 8 (1 + gamma)^3 times that.
    hyp, reference = exam.case.hyp, exam.budget.reference
    size = hyp.obj * reference.scales[1] * reference.batch * sum(reference.calls[0].balance) * (1 + hyp.obj_pw)
    return float(size * (8 * (1 + hyp.fl_gamma) ** 3 if hyp.fl_gamma else 1))


def raised(logits: Tensor, step: float) -> Tensor:
    """A copy with every objectness logit raised."""
    copy = logits.clone()
    copy[..., 4] += step
    return copy


# hyperparameters that are exact in float32, in which losses keep the positive weights
EXACT_HYPS = [hyp for hyp in HYPS if all(float(np.float32(w)) == w for w in (hyp.cls_pw, hyp.obj_pw))]
DOUBLE = 2.0**-29  # the unit of float64 as a share of float32's
CLEAR = 2.0**-10  # where float32 may take a gradient no further than this share of it, no tie of edges is near


@law(
    "gradients.double-precision",
    title="The gradient of float64 predictions has the precision of float32",
    source="SPEC, numerical notes",
    cases=cases(dtypes=("float64",), hyps=EXACT_HYPS, spots=False),
    only={"float64": "exact"},
)
def test_float64_predictions_have_an_exact_gradient(exam: Exam) -> None:
    """The gradient of float64 predictions is computed in float64, as checks by small differences need it."""
    pairs = zip(exam.gradients, exam.budget.reference.gradients, exam.budget.gradients, strict=True)
    for i, (got, want, off) in enumerate(pairs):
        clear = off <= CLEAR * abs(want)
        allowed = 2 * DOUBLE * off  # the reference is rounded as well
        place = f"gradient of layer {i}, at clear places"
        exam.expect_close(place, want[clear], got[clear], allowed[clear], "the budget of float32, in float64's unit")


@law(
    "gradients.second-derivative",
    title="The second derivative is not the slope of the gradient",
    source="calculus",
    cases=SMOOTH,
    again=True,
)
def test_the_second_derivative_is_the_slope_of_the_gradient(exam: Exam) -> None:
    """A loss that can be differentiated twice, as gradient penalties do, has the right second derivative, or raises.

    Judged for the objectness logits, all raised together: no other part of the total depends on them.
    """
    found: list[float] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        total, items = subject.loss(p, targets)
        with suppress(RuntimeError):  # a loss may refuse this
            gradients = torch.autograd.grad(total.sum(), p, create_graph=True, allow_unused=True)
            summed = sum(g[..., 4].sum() for g in gradients if g is not None)
            second: Sequence[Tensor | None] = ()  # a penalty on the gradient may have no effect
            if isinstance(summed, Tensor) and summed.requires_grad:
                second = torch.autograd.grad(summed, p, retain_graph=True, allow_unused=True)
            found.append(float(sum(g[..., 4].sum() for g in second if g is not None)))
        return total, items

    _ = exam.on(exam.case, calling=calling).calls
    exam.only_if(bool(found), "the loss cannot be differentiated twice")
    up, down = ends(exam)
    summed = [float(sum(g[..., 4].sum() for g in end.gradients)) for end in (up, down)]
    rounding = sum(float(g[..., 4].sum()) for end in (up, down) for g in end.budget.gradients) / (2 * STEP)
    # The fourth derivative of BCE is below its third's bound, that of focal loss below 8 (1 + gamma) times that.
    curved = STEP**2 * curvature(exam) * (8 * (1 + exam.case.hyp.fl_gamma) if exam.case.hyp.fl_gamma else 1)
    slope = (summed[0] - summed[1]) / (2 * STEP)
    exam.expect_close("sum of second derivatives", slope, found[0], rounding + curved, "central difference")
