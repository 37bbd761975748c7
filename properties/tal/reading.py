"""Reads the scores of a loss, and with them its assignment, off its gradient.

The gradient of a class logit is B gain (sigmoid - t) weight / T_sum, for every anchor and class (SPEC 6). Where no
target can be, t is 0: these logits show T_sum. The others then show t. So the assignment of any loss can be seen.
"""

from functools import cached_property

import numpy as np

from yololoss.harness.laws.exam import Exam

from .budget import EXP, FEW, Budget
from .case import SIDES
from .overlap import Reals
from .reference import Bools

SEEN = 2.0**-40  # least part of the class gradient that T_sum is read from


class Reading:
    """The scores that a run of a loss shows, (B, C, A), and how far each may be off."""

    def __init__(self, exam: Exam) -> None:
        self.case, self.budget = exam.case, exam.budget
        channels = SIDES * self.case.reg_max
        joined = [level.reshape(*level.shape[:2], -1) for level in exam.gradients]
        self.gradient = np.concatenate(joined, axis=2)[:, channels:]

    @property
    def _of(self) -> Budget:
        return self.budget  # type: ignore[no-any-return]

    @cached_property
    def allowed(self) -> Bools:
        """Where a target of that class and image may be, (B, C, A): inside its enlarged box, or in doubt."""
        r = self._of.reference
        found = np.zeros_like(r.scores, dtype=bool)
        for row in np.flatnonzero(r.valid):
            found[r.image[row], r.label[row]] |= r.candidate[row] | self._of.edges_in_doubt[row]
        return found

    @cached_property
    def factor(self) -> Reals:
        """What the gradient is multiplied with before it is divided by T_sum, (C, 1)."""
        r = self._of.reference
        return np.asarray(r.batch * self.case.gains.cls * r.class_weights)

    @cached_property
    def divisor(self) -> float | None:
        """T_sum as the background shows it; None if it shows nothing."""
        background = ~self.allowed
        shown = float(self.gradient[background].sum())
        expected = float((self.factor * self._of.reference.sigmoid)[background].sum())
        return expected / shown if shown > SEEN * expected > 0 and self._visible else None

    @property
    def _visible(self) -> bool:
        """Whether the background's gradients are larger than the smallest steps of their dtype."""
        expected = (self.factor * self._of.reference.sigmoid)[~self.allowed]
        return bool(expected.sum() > 2**12 * self._of.least * expected.size)

    @cached_property
    def scores(self) -> Reals:
        """t of every anchor and class."""
        return np.asarray(self._of.reference.sigmoid - self.gradient * (self.divisor or 1.0) / self.factor)

    @cached_property
    def error(self) -> Reals:
        """How far a right loss's gradient may be off, as a score; whatever the assignment."""
        b = self._of
        r = b.reference
        rounded = b.unit * (FEW * (1 + r.sigmoid) + EXP * r.sigmoid * np.minimum(abs(r.scores), 200))
        return np.asarray(rounded + 2 * b.cast * (r.sigmoid + 1) + b.least * (self.divisor or 1.0) / self.factor)

    @cached_property
    def found(self) -> Bools:
        """Where a target is for sure, (B, C, A)."""
        return np.asarray(self.scores > 2 * self.error)


def read(exam: Exam) -> Reading:
    """The scores that the run shows. If the background shows nothing of T_sum, the law does not apply."""
    reading = Reading(exam)
    exam.only_if(reading.divisor is not None, "the gradient of the background shows no sum of scores")
    return reading


def decided(exam: Exam) -> Budget:
    """The budget of a case in which rounding decides nothing. In others two right losses may differ."""
    budget: Budget = exam.budget
    exam.only_if(budget.doubt is None, f"rounding decides {budget.doubt}")
    return budget
