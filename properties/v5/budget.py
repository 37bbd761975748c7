"""The error budget: how far a correct loss may be from the reference. Every law takes its tolerances from here.

A subject computes in float32 or better; the reference in float64. Rounding to a dtype changes a number by at most u
of itself (`UNITS`), so

- a decoded coordinate is the result of at most `CHAIN` operations. Its error is 8 u times its size and the size of
  what it is added to; the same holds for the angle;
- the error of a value computed from coordinates is measured: the reference runs again with each coordinate moved both
  ways by its error, and the change of the value is its error. At a tie of box edges the gradient jumps. The two ways
  lie on the two sides of the jump, so both sides, and all values between them, are accepted;
- the result itself adds about 16 roundings, doubled because their order is free (`RESULT`);
- a BCE of logit x is a difference of numbers of the size of x. Its error is u (1 + |x|), even if its value is near 0,
  while the error of its gradient sigma - t is only u;
- a mean of n numbers of one sign, summed pairwise, adds 2 log2 n roundings;
- the gradients of k rows of one cell are added one by one in the predictions' dtype. This adds k - 1 roundings, each at
  most u times the sum of their sizes.

For half-precision predictions a subject may compute sigmoid, 2 sigmoid - 1/2, (2 sigmoid)^2 and the criteria in their
dtype, and also the gradient through them, as upstream does (SPEC, notation). This adds `HALF_CHAIN` roundings of that
dtype. Anchors, CIoU, sums and results are still float32.

Two runs that are both within the budget differ by at most twice the budget. The budget covers accelerators too. The
error of CUDA's exp, log and atan is at most 2 units in the last place (CUDA C programming guide, mathematical
functions); the budget allows 8 for a coordinate and 16 for a result. A sum on CUDA is a tree over threads, and each
thread first adds up at most 32 of the 65,536 elements that a case may have; the budget allows 16 roundings in addition
to the tree.
"""

import math
from functools import cached_property

import numpy as np

from yololoss.harness.subjects.outcome import Grid

from .case import Case
from .formulas import box_logit_gradient, ciou, ciou_gradient, criterion, criterion_gradient, sigmoid
from .reference import LEAST_LOSS, Reference, rebalanced

BECAUSE = "rounding, see properties/v5/budget.py"
# Half the distance from 1 to the next number. For float64 predictions it is that of float32, since targets, anchors and
# results are still float32.
UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-24}
CHAIN = 8
HALF_CHAIN = 8
RESULT = 32
COMPLEMENT = 4
U = UNITS["float32"]
# A loss may return 0 for a gradient smaller than the dtype's smallest number.
# A loss may treat the angle atan(e^u) as constant beyond |u| = 30 (SPEC 7), where its slope is below e^-30; times at
# most 8.
FLAT = 8 * math.exp(-30)
ANYTHING = 1e100  # finite, so that 0 times it is 0
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-126}
QUARTER = math.pi / 2  # the largest possible error of a box's angle


class Budget:
    """Tolerances of one case, in the shapes of the Reference's values."""

    because = BECAUSE

    def __init__(self, case: Case) -> None:
        self.case = case
        self.reference = Reference(case)
        self.unit = UNITS[case.dtype]
        self.half = HALF_CHAIN * self.unit if case.dtype in ("float16", "bfloat16") else 0.0

    @cached_property
    def _moved(self) -> tuple[tuple[Grid, Grid], ...]:
        """Per layer: boxes (20, n, 4) and angles (20, n), moved both ways by one and by two errors of each quantity."""
        out = []
        r = self.reference
        for box, angle, target, rows in zip(r.decoded, r.angles, r.boxes, r.rows, strict=True):
            reach = 1 + abs(box[:, :2]) + abs(target[:, :2]) + box[:, 2:] + target[:, 2:]
            size = box[:, 2:] + reach / 4  # sides are differences of edges, and each edge is rounded at its own size
            error = CHAIN * U * np.concatenate((reach, size, np.ones((len(box), 1))), axis=1)
            if self.half:
                share = box[:, 2:] / rows.anchor_wh  # (2 sigmoid)^2, which may be subnormal or 0
                relative = self.half / 2 + SMALLEST[self.case.dtype] / np.maximum(share, 1e-300)
                turn = np.minimum(relative.sum(axis=1, keepdims=True) / 2, QUARTER)  # atan(w / h): at most half of it
                half = (np.full_like(reach, self.half / 2), relative * box[:, 2:], turn)
                error += np.concatenate(half, axis=1)
            steps = np.concatenate((np.eye(5), -np.eye(5), 2 * np.eye(5), -2 * np.eye(5)))[:, None] * error
            out.append((np.maximum(box + steps[..., :4], [-np.inf, -np.inf, 0, 0]), angle + steps[..., 4]))
        return tuple(out)

    @cached_property
    def overlaps(self) -> tuple[Grid, ...]:
        """Of each row's CIoU, (n,) per layer."""
        r = self.reference
        moved = (ciou(*m, t) - o for m, t, o in zip(self._moved, r.boxes, r.overlaps, strict=True))
        return tuple(_around(change) + RESULT * U for change in moved)

    @cached_property
    def objectness(self) -> tuple[Grid, ...]:
        """Of each cell's objectness target, (B, A, H, W) per layer; 0 in cells without a row."""
        pairs = zip(self.overlaps, self.reference.winner, strict=True)
        # a loss may also cast the value to the predictions' dtype
        return tuple(np.append(o + self.unit, 0.0)[winner] for o, winner in pairs)

    @cached_property
    def _terms(self) -> Grid:
        """Of the unweighted box, objectness and class means, (L, 3)."""
        return np.array([self._layer_terms(i) for i in range(self.case.layers)])

    def _layer_terms(self, i: int) -> tuple[float, float, float]:
        r, hyp = self.reference, self.case.hyp
        x, t = r.logits[i][..., 4], r.objectness[i]
        objectness = self._criterion_error(x, t, self.objectness[i], hyp.obj_pw)
        if not len(r.rows[i]):
            return 0.0, objectness, 0.0
        box = float(self.overlaps[i].mean()) + self._mean_error(1 - r.overlaps[i])
        cls = 0.0
        if self.case.classes > 1:
            cls = self._criterion_error(r.selected[i][:, 5:], r.class_targets[i], 0.0, hyp.cls_pw)
        return box, objectness, cls

    def _criterion_error(self, x: Grid, t: Grid, off: Grid | float, weight: float) -> float:
        """Of a mean of BCE or focal losses whose targets have an error of up to ``off``."""
        gamma = self.case.hyp.fl_gamma
        value = criterion(x, t, weight, gamma)
        by_target = np.maximum(
            abs(criterion(x, np.minimum(t + off, 1), weight, gamma) - value),
            abs(criterion(x, np.maximum(t - off, 0), weight, gamma) - value),
        )
        elements = by_target + RESULT * self.unit * (self._bce_size(x, weight) + value)
        return float(elements.mean()) + self._mean_error(value)

    def _bce_size(self, x: Grid, weight: float) -> Grid:
        """The size of the numbers whose difference a BCE is; a focal factor, below 1, adds only its own rounding."""
        return np.asarray((1 + weight) * (1 + np.minimum(abs(x), 1e30)) / CHAIN)

    def _mean_error(self, values: Grid) -> float:
        return ((RESULT + 2 * math.log2(max(values.size, 2))) * U + self.half) * float(abs(values).mean())

    @cached_property
    def balances(self) -> tuple[Grid, ...]:
        """Of the balance table before the first call and after each, (L or 5,) each."""
        objectness = np.array([o for _, o, _ in self.reference.layer_terms])
        off = np.zeros(len(self.reference.calls[0].balance))
        out = [off]
        for call in self.reference.calls:
            if self.case.options.autobalance:
                kept = self.case.strides.index(16)
                used, after = np.array(call.balance), np.array(call.balance_after)
                steps = np.diag(self._terms[:, 1])
                moved = [rebalanced(call.balance, np.maximum(objectness + step, 0), kept) for step in (*steps, *-steps)]
                carried = after * (off / used + off[kept] / used[kept])
                off = _either_way(np.array(moved) - after) + carried + RESULT * 2.0**-53 * after
                # If rounding may take a loss below the project's bound, the subject may use another bound, or none
                # (SPEC 3, 7). Then any change of that balance is accepted; if it is the balance kept at 1, any
                # change of the others.
                free = np.zeros(len(off), dtype=bool)
                free[: len(objectness)] = objectness - np.diag(steps) < LEAST_LOSS
                off[np.where(free[kept], np.arange(len(off)) != kept, free)] = ANYTHING
            out.append(off)
        return tuple(out)

    @cached_property
    def items(self) -> tuple[Grid, ...]:
        """Of (box, obj, cls) of each call, (3,) each."""
        hyp, layers = self.case.hyp, self.case.layers
        box, objectness, cls = self._terms.T
        losses = np.array([o for _, o, _ in self.reference.layer_terms])
        out = []
        for call, off in zip(self.reference.calls, self.balances, strict=False):
            weighted = objectness * call.balance[:layers] + losses * off[:layers]
            sums = np.array((hyp.box * box.sum(), hyp.obj * weighted.sum(), hyp.cls * cls.sum()))
            out.append(sums + RESULT * U * np.abs(call.items))
        return tuple(out)

    @cached_property
    def totals(self) -> tuple[float, ...]:
        """Of each call's total."""
        pairs = zip(self.items, self.reference.calls, strict=True)
        return tuple(self.case.batch * float(o.sum()) + RESULT * U * abs(c.total) for o, c in pairs)

    @cached_property
    def gradients(self) -> tuple[Grid, ...]:
        """Of the last call's gradient, (B, A, H, W, 5 + C) per layer."""
        out = []
        for i, (box, objectness, cls) in enumerate(self.reference.weights):
            r = self.reference
            grid = np.zeros(self.case.shape(i))
            rows = np.zeros((len(r.rows[i]), grid.shape[-1]))
            rows[:, :4] = box * self._box_gradient(i) + SMALLEST[self.case.dtype]
            rows[:, 5:] = cls * self._criterion_gradient(r.selected[i][:, 5:], r.class_targets[i], 0.0, True)
            np.add.at(grid, r.cells[i], rows + self._summing(i))
            by_cell = self._criterion_gradient(r.logits[i][..., 4], r.objectness[i], self.objectness[i], False)
            used = self.balances[-2][i] / r.calls[-1].balance[i]
            grid[..., 4] = objectness * by_cell + used * abs(r.gradients[i][..., 4])
            out.append(grid + (RESULT * U + self.half) * abs(r.gradients[i]) + SMALLEST[self.case.dtype])
        return tuple(out)

    def _summing(self, i: int) -> Grid:
        """Of each row's gradient, (n, 5 + C): with k rows in its cell, it is part of at most k - 1 additions."""
        r = self.reference
        count = np.zeros(self.case.shape(i)[:4])
        np.add.at(count, r.cells[i], 1)
        return np.asarray((count[r.cells[i]] - 1)[:, None] * self.unit * abs(r.row_gradients[i]))

    def _box_gradient(self, i: int) -> Grid:
        """Of each row's gradient of CIoU with respect to its logits, (n, 4)."""
        r = self.reference
        logits, anchors = r.selected[i][:, :4], r.rows[i].anchor_wh.astype(np.float64)
        by_box, by_angle = ciou_gradient(r.decoded[i], r.angles[i], r.boxes[i])
        base = box_logit_gradient(logits, anchors, by_box, by_angle)
        moved, angles = self._moved[i]
        change = box_logit_gradient(logits, anchors, *ciou_gradient(moved, angles, r.boxes[i])) - base
        # Each part of CIoU's gradient for a coordinate is at most a few times 1 / the larger box's side, and for the
        # angle at most 2. The error of sigmoid, of its slope and of the slope of atan(e^u) is u,
        # however small they are: computed by tanh, for example, they are 1 + t and 1 - t^2. So the error of 2 p' is u,
        # that of 8 a p p' is 8 a u (p + u), and that of 2 q turn is 2 q u.
        slope = 8 / np.maximum(r.decoded[i][:, 2:], r.boxes[i][:, 2:])
        p = sigmoid(logits)
        size = np.concatenate((2 * slope, 8 * anchors * (p[:, 2:] + U) * slope), axis=1)
        turn = abs(box_logit_gradient(logits, anchors, np.zeros_like(logits), np.full(len(logits), 2.0)))
        exact = U * (size + turn)
        exact[:, 2:] += 2 * U * sigmoid(-logits[:, 2:]) * abs(by_angle)[:, None]
        # in half precision sigmoid's slope is p (1 - p), with an error of u p
        half = np.concatenate((2 * p[:, :2] * slope, 2 * r.decoded[i][:, 2:] * slope), axis=1) / 4 + turn
        return _around(change) + RESULT * exact + self.half * half + FLAT

    def _criterion_gradient(self, x: Grid, t: Grid, off: Grid | float, classes: bool) -> Grid:
        """Of the gradient of BCE or focal losses whose targets have an error of up to ``off``."""
        hyp = self.case.hyp
        weight, gamma = hyp.cls_pw if classes else hyp.obj_pw, hyp.fl_gamma
        base = criterion_gradient(x, t, weight, gamma)
        up, down = (criterion_gradient(x, np.clip(t + s, 0, 1), weight, gamma) - base for s in (off, -off))
        by_target = np.maximum(abs(up), abs(down))
        size = (1 + weight) * (1 + np.minimum(abs(x), 1e30) if gamma > 0 else 1)
        if gamma > 0 or self.half:
            return np.asarray(by_target + (RESULT * U + self.half) * size)
        # (1 - t) sigma and w t (1 - sigma): a loss may compute one sigma as 1 minus the other, with an error of u
        parts = (1 - t) * sigmoid(x) + weight * t * sigmoid(-x)
        return np.asarray(by_target + U * (RESULT * parts + COMPLEMENT * (1 + weight)))


def _either_way(changes: Grid) -> Grid:
    """From changes (2 k, ...) by k quantities moved one way, then the other: the sum of the larger change of each."""
    return np.asarray(abs(changes).reshape(2, len(changes) // 2, *changes.shape[1:]).max(axis=0).sum(axis=0))


def _around(changes: Grid) -> Grid:
    """The same for changes (4 k, ...) by moves of one and of two errors: the largest change within one move.

    If a tie lies within the move, the gradient jumps there and changes further behind it. At the jump it may differ
    from the end of the move by as much as it changes over the second half.
    """
    once, twice = np.split(changes, 2)
    return _either_way(abs(once) + abs(twice - once))
