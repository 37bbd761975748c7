"""The error budget: how far a correct loss may be from the reference. Every law takes its tolerances from here.

A subject computes in float32 or better; the reference in float64. Rounding to a dtype changes a number by at most u
of itself (`UNITS`), so

- a decoded coordinate is the result of at most `CHAIN` operations. Its error is 8 u times its size and the size of
  what it is added to; the same holds for the angle;
- the error of a value computed from coordinates is measured: the reference runs again with each coordinate moved both
  ways by its error, and the change of the value is its error. At a tie of box edges the gradient jumps. The two ways
  lie on the two sides of the jump, so both sides, and all values between them, are accepted; for the edges of the
  overlap and of the enclosing box apart, since a loss may decide a tie in one way for the one, and in another for the
  other;
- the result itself adds about 16 roundings, doubled because their order is free (`RESULT`);
- a BCE of logit x is a difference of numbers of the size of x. Its error is u (1 + |x|), even if its value is near 0,
  while the error of its gradient sigma - t is only u;
- a mean of n numbers of one sign, summed pairwise, adds 2 log2 n roundings;
- the gradients of k rows of one cell are added one by one in the predictions' dtype. This adds k - 1 roundings, each at
  most u times the sum of their sizes. The size is that of the reference and its error together: two gradients within
  their errors of 0 may be as large as these.

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
from .dialects import UPSTREAM, Dialect
from .formulas import Logits, Overlap, criterion, criterion_gradient
from .reference import LEAST_LOSS, Measured, Reference, rebalanced

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


def _moves(quantities: int) -> Grid:
    """Each quantity moved up and down by one error, then by two: (4 k, k)."""
    one = np.eye(quantities)
    return np.concatenate((one, -one, 2 * one, -2 * one))


MOVES = _moves(5)  # of a box's coordinates and its angle
MOVES_OF_EDGES = _moves(7)  # and of the sides of the target, which are differences of edges too
# Centres near the target's, in halves of the larger side, and by how many errors the sides move. On an edge a side is
# one error longer: an edge that cuts it cannot be hit where it is shorter than the last digit of its place.
BESIDE = 2.0**-6  # of a half side: the gradient is largest just beside the centre
NEAR = np.array(
    [
        *((0, 0, 0, 0), (0, 0, 1, 1), (0, 0, -1, -1), (BESIDE, BESIDE, 0, 0), (-BESIDE, -BESIDE, 0, 0)),
        *((1, 0, 1, 1), (-1, 0, 1, 1), (0, 1, 1, 1), (0, -1, 1, 1)),
    ]
)
LOST = 4  # a side of fewer errors than these has no digit left
QUARTER = math.pi / 2  # the largest possible error of a box's angle


class Budget:
    """Tolerances of one case, in the shapes of the Reference's values."""

    because = BECAUSE

    def __init__(self, case: Case, dialect: Dialect = UPSTREAM, measured: Measured | None = None) -> None:
        self.case, self.dialect = case, dialect
        self.reference = Reference(case, dialect, measured)
        self.unit = UNITS[case.dtype]
        self.half = HALF_CHAIN * self.unit if case.dtype in ("float16", "bfloat16") else 0.0

    @cached_property
    def _errors(self) -> Grid:
        """Of each row's box x, y, w, h, its angle, and its target's sides, (n, 7)."""
        r = self.reference
        box, target = r.all_predicted.box, r.all_boxes
        reach = 1 + abs(box[:, :2]) + abs(target[:, :2]) + box[:, 2:] + target[:, 2:]
        size = box[:, 2:] + reach / 4  # sides are differences of edges, and each edge is rounded at its own size
        own = target[:, 2:] + reach / 4
        error = CHAIN * U * np.concatenate((reach, size, np.ones((len(box), 1)), own), axis=1)
        if self.half:
            share = box[:, 2:] / r.all_anchors  # (2 sigmoid)^2, which may be subnormal or 0
            relative = self.half / 2 + SMALLEST[self.case.dtype] / np.maximum(share, 1e-300)
            turn = np.minimum(relative.sum(axis=1, keepdims=True) / 2, QUARTER)  # atan(w / h): at most half of it
            error[:, :5] += np.concatenate((np.full_like(reach, self.half / 2), relative * box[:, 2:], turn), axis=1)
        return error

    @cached_property
    def _moved(self) -> tuple[Overlap, Grid, Grid | None]:
        """All rows' boxes (m, n, 4), laid over the targets', their angles (m, n), and what `BoxLogits.turns` says.

        They are moved both ways by one and by two errors of each of k quantities, then as `NEAR` says. By x alone, one
        of two boxes lies within the other, or an edge cuts it, or they are apart. A move by one error may step over the
        first two. The centre that is sure to show one is the target's, or half the larger side away from it.
        """
        r = self.reference
        box, target = r.all_predicted.box, np.asfortranarray(r.all_boxes)
        moves = MOVES_OF_EDGES if self.dialect.edges else MOVES
        # Each coordinate's values are contiguous in memory: NumPy is slow where its inner loop has 2 or 4 numbers.
        errors = self._errors[:, : len(moves.T)].T
        away = (target - box)[:, :2].T[:, None] + NEAR.T[:2, :, None] * np.maximum(box, target)[:, 2:].T[:, None] / 2
        near = np.zeros((len(errors), len(NEAR), len(box)))
        near[:2] = np.clip(away, -errors[:2, None], errors[:2, None])  # as near as the error allows
        near[2:4] = NEAR.T[2:, :, None] * errors[2:4, None]
        steps = np.concatenate((moves.T[..., None] * errors[:, None], near), axis=1)
        moved = box.T[:, None] + steps[:4]
        np.maximum(moved[2:], 0, out=moved[2:])
        laid, angles, turns = np.moveaxis(moved, 0, -1), r.all_predicted.angle + steps[4], None
        if self.dialect.edges:
            target = np.moveaxis(target.T[:, None] + np.concatenate((np.zeros_like(steps[:2]), steps[5:])), 0, -1)
            target[..., 2:] = np.maximum(target[..., 2:], 0)
            turns = r.all_predicted.turns(laid[..., 2:])
            angles = np.arctan2(laid[..., 2], laid[..., 3] + self.dialect.taller_in_angle) + steps[4]
        return Overlap(laid, target, self.dialect), angles, turns

    @cached_property
    def _lost(self) -> Grid:
        """1 for rows of a box, or target, so small that its sides have lost their digits, (n,); else 0."""
        if not self.dialect.edges:
            return np.zeros(len(self._errors))
        r = self.reference
        sides = np.concatenate((r.all_predicted.box[:, 2:], r.all_boxes[:, 2:]), axis=1)
        return np.asarray((sides < LOST * self._errors[:, (2, 3, 5, 6)]).any(axis=1), dtype=np.float64)

    @cached_property
    def _all_overlaps(self) -> Grid:
        """Of the overlap of each row of all layers, (n,)."""
        if self.reference.own:
            return 2 * RESULT * U + self._share
        laid, angles, _ = self._moved
        # without digits any angle is right, and with it alpha v, which is at most 1
        return _around(laid.value(angles) - self.reference.all_overlaps) + RESULT * U + self._lost

    @cached_property
    def _share(self) -> Grid:
        """Of each row's smallest side, as a share of it, (n,); at most 1."""
        r = self.reference
        sides = np.concatenate((r.all_predicted.box[:, 2:], r.all_boxes[:, 2:]), axis=1)
        return np.asarray(
            np.minimum(self._errors[:, (2, 3, 5, 6)] / np.maximum(sides, 1e-300), 1).max(axis=1, initial=0)
        )

    @cached_property
    def overlaps(self) -> tuple[Grid, ...]:
        """Of each row's CIoU, (n,) per layer."""
        return tuple(self._all_overlaps[part] for part in self.reference.row_parts)

    @cached_property
    def _all_objectness(self) -> Grid:
        """Of each cell's objectness target, (cells,); 0 in cells without a row."""
        # a loss may also cast the value to the predictions' dtype
        return np.asarray(np.append(self._all_overlaps + self.unit, 0.0)[self.reference.all_winners])

    @cached_property
    def objectness(self) -> tuple[Grid, ...]:
        """Of each cell's objectness target, (B, A, H, W) per layer; 0 in cells without a row."""
        return self.reference.grids(self._all_objectness)

    @cached_property
    def _terms(self) -> Grid:
        """Of the unweighted box, objectness and class means, (L, 3)."""
        r, hyp = self.reference, self.reference.hyp
        objectness = self._criterion_errors(
            r.all_objectness_logits, r.all_objectness, self._all_objectness, hyp.obj_pw, r.cell_parts
        )
        cls = [0.0] * self.case.layers
        if self.case.classes > 1:
            cls = self._criterion_errors(
                r.all_class_logits, r.all_class_targets, None, hyp.cls_pw, r.row_parts, r.class_weights
            )
        box = [
            float(self._all_overlaps[part].mean()) + self._mean_error(1 - r.all_overlaps[part])
            if part.stop > part.start
            else 0.0
            for part in r.row_parts
        ]
        if r.own:  # of all layers together
            share = [float(self._share[part].mean()) for part in r.row_parts if part.stop > part.start]
            box = [2 * RESULT * U * (1 + r.own.term) + sum(share), *([0.0] * (self.case.layers - 1))]
        return np.array((box, objectness, cls)).T

    def _criterion_errors(
        self,
        x: Logits,
        t: Grid,
        off: Grid | None,
        weight: float,
        parts: tuple[slice, ...],
        factor: Grid | float = 1.0,
    ) -> list[float]:
        """Of each part's mean of BCE or focal losses; their targets are exact, or have an error of up to ``off``."""
        gamma = self.reference.hyp.fl_gamma
        value, *moved = criterion(x, _moved_targets(t, off), weight, gamma)
        elements = RESULT * self.unit * (self._bce_size(x.x, weight) + value)
        if moved:
            elements = np.maximum(*(abs(m - value) for m in moved)) + elements
        elements, value = elements * factor, value * factor
        return [
            float(elements[part].mean()) + self._mean_error(value[part]) if part.stop > part.start else 0.0
            for part in parts
        ]

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
            out.append(sums * self.reference.scales + RESULT * U * np.abs(call.items))
        return tuple(out)

    @cached_property
    def totals(self) -> tuple[float, ...]:
        """Of each call's total."""
        pairs = zip(self.items, self.reference.calls, strict=True)
        return tuple(self.reference.batch * float(o.sum()) + RESULT * U * abs(c.total) for o, c in pairs)

    @cached_property
    def gradients(self) -> tuple[Grid, ...]:
        """Of the last call's gradient, (B, A, H, W, 5 + C) per layer."""
        r = self.reference
        box, _, cls = r.all_row_weights.T[..., None]
        rows = np.zeros((len(box), 5 + self.case.classes))
        added = ANYTHING if self.dialect.added_term != "none" else 0.0
        rows[:, :4] = box * self._box_gradient() + SMALLEST[self.case.dtype] + added
        by_class = self._criterion_gradient(r.all_class_logits, r.all_class_targets, None, True)
        rows[:, 5:] = cls * by_class * r.class_weights
        count = np.bincount(r.all_cells)[r.all_cells][:, None]  # of rows in its cell: up to count - 1 additions
        share = RESULT * U + self.half
        # Rounding is a share of the row's own gradient, which may be as large as this, also where rows cancel.
        rows += (share + (count - 1) * self.unit) * (abs(r.all_row_gradients) + rows)
        grid = np.zeros_like(r.all_gradients)
        np.add.at(grid, r.all_cells, rows)
        by_cell = self._criterion_gradient(r.all_objectness_logits, r.all_objectness, self._all_objectness, False)
        used = self.balances[-2][: self.case.layers] / r.calls[-1].balance[: self.case.layers]
        used = np.repeat(used, [part.stop - part.start for part in r.cell_parts])
        size = abs(r.all_gradients[:, 4])
        by_cell = r.all_cell_weights * by_cell + used * size
        grid[:, 4] = by_cell + share * (size + by_cell)
        return r.grids(grid + SMALLEST[self.case.dtype])

    def _box_gradient(self) -> Grid:
        """Of each row's gradient of CIoU with respect to its logits, (n, 4)."""
        r = self.reference
        if r.own:
            return self._measured_gradient(r.own.gradients)
        predicted, (inner, outer, by_angle) = r.all_predicted, r.all_overlap_gradients
        laid, angles, turns = self._moved
        moved_inner, moved_outer, moved_by_angle = laid.gradient_parts(angles)
        # apart, since a loss may decide a tie in one way for the overlap and in another for the enclosing box
        of_inner = predicted.gradient(moved_inner - inner, np.zeros_like(angles))
        rest = predicted.gradient(moved_outer, moved_by_angle, turns) - predicted.gradient(outer, by_angle)
        # Each part of CIoU's gradient for a coordinate is at most a few times 1 / the larger box's side, and for the
        # angle at most 2. The error of sigmoid, of its slope and of the slope of atan(e^u) is u,
        # however small they are: computed by tanh, for example, they are 1 + t and 1 - t^2. So the error of 2 p' is u,
        # that of 8 a p p' is 8 a u (p + u), and that of 2 q turn is 2 q u.
        slope = 8 / np.maximum(predicted.box[:, 2:], r.all_boxes[:, 2:])
        p = predicted.sigmoid
        size = np.concatenate((2 * slope, 8 * r.all_anchors * (p[:, 2:] + U) * slope), axis=1)
        turn = abs(predicted.gradient(np.zeros_like(p), np.full(len(p), 2.0)))
        exact = U * (size + turn)
        exact[:, 2:] += 2 * U * predicted.opposite[:, 2:] * abs(by_angle)[:, None]
        # in half precision sigmoid's slope is p (1 - p), with an error of u p
        half = np.concatenate((2 * p[:, :2] * slope, 2 * predicted.box[:, 2:] * slope), axis=1) / 4 + turn
        # where the gradient jumps at a tie, what it jumps by has the relative error of the sides
        sides = np.maximum(predicted.box[:, 2:], r.all_boxes[:, 2:])
        share = np.minimum((self._errors[:, 2:4] / sides).sum(axis=1, keepdims=True) + self.half, 1)
        jumps = (_around(of_inner) + _around(rest)) * (1 + share)
        return np.asarray(jumps + RESULT * exact + self.half * half + FLAT + self._lost[:, None] * self._steepest)

    def _measured_gradient(self, found: Grid) -> Grid:
        """Of a measured gradient, (n, 4).

        Another run computes it from the same numbers. Only the last digits of sigmoid may differ; what they do to a
        tiny box, they do as a share of its sides. A derivative by a place is at most a few times 1 / the smallest side.
        """
        r = self.reference
        p, q = r.all_predicted.sigmoid, r.all_predicted.opposite
        least = np.minimum(r.all_predicted.box[:, 2:], r.all_boxes[:, 2:]).min(axis=1, keepdims=True, initial=np.inf)
        steep = np.concatenate((8 * p[:, :2] * q[:, :2] / np.maximum(least, 1 / ANYTHING), 4 * q[:, 2:]), axis=1)
        return np.asarray(2 * RESULT * U * (abs(found) + q * p) + self._share[:, None] * (abs(found) + steep))

    @property
    def _steepest(self) -> Grid:
        """How large the angle's part of the gradient can be for sides within their error, (n, 4)."""
        predicted, off = self.reference.all_predicted, self._errors[:, 2:4]
        least = np.maximum(predicted.box[:, 2:] - off, 0)
        least[:, 1] += self.dialect.taller_in_angle
        by_side = 2 * predicted.box[:, 2:] / np.maximum(least.max(axis=1, keepdims=True), 1 / ANYTHING)
        return np.concatenate((np.zeros_like(off), 2 * predicted.opposite[:, 2:] * by_side), axis=1)

    def _criterion_gradient(self, x: Logits, t: Grid, off: Grid | None, classes: bool) -> Grid:
        """Of the gradient of BCE or focal losses; their targets are exact, or have an error of up to ``off``."""
        hyp = self.reference.hyp
        weight, gamma = hyp.cls_pw if classes else hyp.obj_pw, hyp.fl_gamma
        by_target: Grid | float = 0.0
        if off is not None:
            base, *moved = criterion_gradient(x, _moved_targets(t, off), weight, gamma)
            by_target = np.maximum(*(abs(m - base) for m in moved))
        if gamma > 0 or self.half:
            size = (1 + weight) * (1 + np.minimum(abs(x.x), 1e30) if gamma > 0 else np.ones_like(x.x))
            return np.asarray(by_target + (RESULT * U + self.half) * size)
        # (1 - t) sigma and w t (1 - sigma): a loss may compute one sigma as 1 minus the other, with an error of u
        parts = (1 - t) * x.sigmoid + weight * t * x.opposite
        return np.asarray(by_target + U * (RESULT * parts + COMPLEMENT * (1 + weight)))


def _moved_targets(t: Grid, off: Grid | None) -> Grid:
    """The targets of a criterion; and moved up and down by their error, if they have one. They stay in [0, 1]."""
    return t[None] if off is None else np.stack((t, np.minimum(t + off, 1), np.maximum(t - off, 0)))


def _either_way(changes: Grid) -> Grid:
    """From changes (2 k, ...) by k quantities moved one way, then the other: the sum of the larger change of each."""
    return np.asarray(abs(changes).reshape(2, len(changes) // 2, *changes.shape[1:]).max(axis=0).sum(axis=0))


def _around(changes: Grid) -> Grid:
    """The same for changes (4 k + 9, ...) by `Budget._moved`: the largest change within one move.

    If a tie lies within the move, the gradient jumps there and changes further behind it. At the jump it may differ
    from the end of the move by as much as it changes over the second half. What the moves near the target change more
    is a jump that moves of single quantities step over.
    """
    once, twice = np.split(changes[: -len(NEAR)], 2)
    single, near = _either_way(abs(once) + abs(twice - once)), abs(changes[-len(NEAR) :]).max(axis=0)
    return np.asarray(single + np.where(near > single, near, 0))
