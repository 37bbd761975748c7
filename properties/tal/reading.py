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

STEPS = 2.0**10  # of the smallest steps of a dtype: a gradient of so many shows its digits
LEAST = 2.0**-100  # smaller gradients say nothing, in float32 either
MOST = 0.75  # share of the background that must show the same sum of scores
ANYTHING_ABOVE_0 = 1e-300


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
    def expected(self) -> Reals:
        """The gradient of a class logit without a score, times T_sum, (B, C, A)."""
        return np.asarray(self.factor * self._of.reference.sigmoid)

    @cached_property
    def background(self) -> Bools:
        """Where no target can be, and a gradient is larger than the smallest steps of its dtype, (B, C, A)."""
        return np.asarray(~self.allowed & (self.expected > STEPS * max(self._of.least, LEAST)))

    @cached_property
    def divisor(self) -> float | None:
        """T_sum as most of the background shows it; None if it shows nothing, or no number."""
        wanted, shown = self.expected[self.background], self.gradient[self.background]
        if not len(shown) or (shown <= 0).any():
            return None
        middle = float(np.median(wanted / shown))
        agree = abs(shown * middle - wanted) <= 2 * (self._rounded * self.expected)[self.background]
        return float(wanted[agree].sum() / shown[agree].sum()) if agree.mean() > MOST else None

    @cached_property
    def _rounded(self) -> Reals:
        """How far the gradient of a logit without a score may be off, as a share of it, (B, C, A)."""
        b = self._of
        steps = (b.least + b.step * self.factor) / np.maximum(self.expected, ANYTHING_ABOVE_0)
        return np.asarray(b.unit * (FEW + EXP * np.minimum(abs(b.reference.scores), 200)) + 2 * b.cast + 2 * steps)

    @cached_property
    def scores(self) -> Reals:
        """t of every anchor and class."""
        return np.asarray(self._of.reference.sigmoid - self.gradient * (self.divisor or 1.0) / self.factor)

    @cached_property
    def error(self) -> Reals:
        """How far the scores of a right loss may be off for the rounding of its gradient, whatever the assignment."""
        b = self._of
        x = np.minimum(abs(b.reference.scores), 200)
        sigmoid, rest = b.reference.sigmoid, abs(b.reference.sigmoid - self.scores)
        rounded = b.unit * (FEW * (sigmoid + abs(self.scores)) + EXP * sigmoid * x) + b.step
        step = b.least * (self.divisor or 1.0) / self.factor
        return np.asarray(rounded + 2 * (b.cast + self._divisor_error) * rest + step)

    @cached_property
    def _divisor_error(self) -> float:
        """How far T_sum may be off, as a share: as all of the background, if it is rounded in the same direction."""
        share = (self._rounded * self.expected)[self.background]
        return float(share.sum() / max(float(self.expected[self.background].sum()), ANYTHING_ABOVE_0))

    def is_of(self, item: float) -> bool:
        """Whether a class item is that of the scores that its gradient shows."""
        b, sum_of_scores = self._of, self.divisor or 1.0
        gain = self.case.gains.cls / sum_of_scores
        want = gain * float(b.reference.bce_with(self.scores).sum())
        off = gain * b.bce(self.scores, self.error) + 2 * self._divisor_error * abs(want)
        return bool(abs(item - want) <= 2 * off)

    @cached_property
    def found(self) -> Bools:
        """Where a target is for sure, (B, C, A)."""
        return np.asarray(self.scores > 2 * self.error)


def read(exam: Exam) -> Reading:
    """The scores that the run shows. If its class gradient shows none that can be read, the law does not apply."""
    in_order(exam)
    reading = Reading(exam)
    exam.only_if(reading.divisor is not None, "the gradient of the background shows no sum of scores")
    boxes = exam.has_items and exam.items[0] > 0
    exam.only_if(bool(reading.found.any()) or not boxes, "the class gradient shows no scores, and there are boxes")
    of_item = not exam.has_items or reading.is_of(float(exam.items[1]))
    exam.only_if(of_item, "the class gradient is not that of the class item")
    return reading


def in_order(exam: Exam) -> None:
    """The rows are in the order of images. `form.row-order` judges what others do."""
    images = [target[0] for target in exam.case.targets]
    exam.only_if(images == sorted(images), "rows that are not in the order of images, as form.row-order judges")


def decided(exam: Exam) -> Budget:
    """The budget of a case in which rounding decides nothing. In others two right losses may differ."""
    in_order(exam)
    budget: Budget = exam.budget
    exam.only_if(budget.doubt is None, f"rounding decides {budget.doubt}")
    return budget
