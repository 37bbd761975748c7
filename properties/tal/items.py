"""What laws of several parts compare: one item, and the gradient of one part."""

import numpy as np

from yololoss.harness.laws.exam import Exam

from .budget import BECAUSE
from .case import SIDES, Gains
from .overlap import Reals
from .reading import decided

NAMES = ("box", "class", "third")


def expect_item(exam: Exam, which: int) -> None:
    """One item is the reference's."""
    budget = decided(exam)
    want = budget.reference.calls[0].items[which]
    exam.expect_close(f"{NAMES[which]} item", want, exam.items[which], budget.items[0][which], BECAUSE)


def with_gains(exam: Exam, **gains: float) -> Exam:
    """The same case with other gains."""
    return exam.on(exam.case.changed(gains=Gains(**dict(exam.case.gains) | gains)))


def sides_of(exam: Exam) -> Reals:
    """The gradient of the side logits of all levels, (B, 4 R, A)."""
    parts = [g.reshape(*g.shape[:2], -1) for g in exam.gradients]
    return np.concatenate(parts, axis=2)[:, : SIDES * exam.case.reg_max]


def expect_sides(exam: Exam, other: Exam) -> None:
    """The gradient of the side logits in another run is the reference's."""
    budget = decided(other)
    r = budget.reference
    want = r.placed(r.box_gradient + r.third_gradient)
    off = r.placed(budget.box_gradient + budget.third_gradient) + budget.least
    exam.expect_close("gradient at image, channel, anchor", want, sides_of(other), off, BECAUSE)
