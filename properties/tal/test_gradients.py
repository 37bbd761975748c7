"""Gradients: of the total by every logit. The scores and the assignment are constants for them."""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE
from .case import SIDES
from .items import with_gains
from .reading import decided
from .strategies import EVERY_KIND, WITH_HUGE, WITH_TARGETS


@law("gradients.finite", title="A gradient is not finite", source="SPEC 9", cases=WITH_HUGE, infinite=True,
     everywhere=True)  # fmt: skip
def test_every_gradient_is_finite(exam: Exam) -> None:
    """The gradient of every logit is finite if the logits are."""
    for i, gradient in enumerate(exam.gradients):
        place = f"gradient of level {i} at image, channel, row, column"
        exam.expect(np.isfinite(gradient), place, "finite", gradient)


@law("gradients.value", title="A gradient is wrong", source="SPEC 6", cases=EVERY_KIND)
def test_every_gradient_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient of the total by every logit is the reference's."""
    budget = decided(exam)
    pairs = zip(budget.reference.gradients, exam.gradients, budget.gradients, strict=True)
    for i, (want, got, off) in enumerate(pairs):
        exam.expect_close(f"gradient of level {i} at image, channel, row, column", want, got, off, BECAUSE)


@law(
    "gradients.no-path-through-scores",
    title="The scores carry a gradient",
    source="SPEC 6",
    cases=WITH_TARGETS,
    again=True,
)
def test_the_scores_carry_no_gradient(exam: Exam) -> None:
    """With the class gain alone no box logit has a gradient, and without it no class logit has one."""
    channels = SIDES * exam.case.reg_max
    for gains, part, what in (
        ({"box": 0.0, "dfl": 0.0}, slice(channels), "box logit"),
        ({"cls": 0.0}, slice(channels, None), "class logit"),
    ):
        for i, gradient in enumerate(with_gains(exam, **gains).gradients):
            place = f"gradient of a {what}, level {i}, at image, channel, row, column"
            exam.expect(gradient[:, part] == 0, place, "0", gradient[:, part])
