"""Overlaps by name that people paste into a loss, by the formulas of their papers (DIALECTS). NumPy, float64.

A loss with one of them is judged as one with an overlap of its own, which is taken from the loss itself. Then what was
taken is compared with the formula, on boxes of usual sizes: there, an epsilon in any place is lost in the tolerance.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .dialects import Dialect
from .formulas import ASPECT, TINY, BoxLogits, Overlap, Reals
from .reference import Reference

EPSILON = 1e-6  # a place of an epsilon adds at most this to an area, or to a squared length, in cells
LEAST = 0.2  # sides of usual boxes, in cells
LEAST_IOU = 0.01  # where a row's loss is multiplied with a root of it
APART = 0.05  # distance of their centres: at 0 the direction from one to the other, and a root, jump
STEP = 1e-6  # in cells, of the differences that stand for a derivative: STEP^2 and 1e-16 / STEP are both lost
ROUNDING = 2e-6  # 32 roundings to float32

EXACT = Dialect(overlap_eps=0.0)


class Pairs:
    """Boxes (n, 4) and their targets, and the overlaps by name, (n,).

    ``numbers``: those of the formula. ``diagonals``: the squared diagonal of each row's grid, (n,). ``enclosed``: boxes
    whose enclosing boxes are taken, if not the same. ``alpha``: CIoU's, if it is held constant.
    """

    def __init__(
        self,
        box: Reals,
        target: Reals,
        numbers: tuple[float, ...],
        diagonals: Reals,
        *,
        enclosed: Reals | None = None,
        alpha: Reals | None = None,
    ) -> None:
        self.laid, self.numbers, self.diagonals = Overlap(box, target, EXACT), numbers, diagonals
        self.apart = target[..., :2] - box[..., :2]
        self.one, self.two = box[..., 2:], target[..., 2:]
        self.hull = (self.laid if enclosed is None else Overlap(enclosed, target, EXACT)).hull
        self.far = (self.apart**2).sum(-1) / (self.hull**2).sum(-1)  # CIoU's distance
        turned = np.arctan2(self.two[..., 0], self.two[..., 1]) - np.arctan2(self.one[..., 0], self.one[..., 1])
        self.unlike = ASPECT * turned**2  # CIoU's v
        own_alpha = self.unlike / np.maximum(1 - self.laid.iou + self.unlike, TINY)
        self.alpha = own_alpha if alpha is None else alpha

    def overlap(self, kind: str) -> Reals:
        """The overlap of that name."""
        return np.asarray(getattr(self, f"_{kind.replace('-', '_')}")())

    def weight(self, kind: str) -> Reals:
        """What a row's loss is multiplied with; it has no gradient."""
        if kind == "focal-eiou":
            return np.asarray(self.laid.iou ** self.numbers[0])
        return np.exp(self.far) if kind == "wise-iou" else np.ones_like(self.far)

    def _wise_iou(self) -> Reals:
        return self.laid.iou

    def _eiou(self) -> Reals:
        return np.asarray(self.laid.iou - self.far - ((self.one - self.two) ** 2 / self.hull**2).sum(-1))

    _focal_eiou = _eiou

    def _alpha_iou(self) -> Reals:
        (power,) = self.numbers
        return np.asarray(self.laid.iou**power - self.far**power - (self.alpha * self.unlike) ** power)

    def _siou(self) -> Reals:
        sine = abs(self.apart).min(-1) / np.sqrt((self.apart**2).sum(-1))
        angle = np.cos(2 * np.arcsin(sine) - math.pi / 2)
        distance = (1 - np.exp(-(2 - angle)[..., None] * (self.apart / self.hull) ** 2)).sum(-1)
        unlike = abs(self.one - self.two) / np.maximum(self.one, self.two)
        return np.asarray(self.laid.iou - (distance + ((1 - np.exp(-unlike)) ** 4).sum(-1)) / 2)

    def _mpdiou(self) -> Reals:
        wider = (self.two - self.one) / 2
        corners = ((self.apart - wider) ** 2 + (self.apart + wider) ** 2).sum(-1)
        return np.asarray(self.laid.iou - corners / (self.numbers[0] if self.numbers else self.diagonals))

    def _inner_iou(self) -> Reals:
        share = np.array((1, 1, *self.numbers * 2))
        return Overlap(self.laid.box1 * share, self.laid.box2 * share, EXACT).iou

    def _inner_diou(self) -> Reals:
        return np.asarray(self._inner_iou() - self.far)

    def _nwd(self) -> Reals:
        length, share = self.numbers
        wide = np.sqrt((self.apart**2).sum(-1) + ((self.one - self.two) ** 2).sum(-1) / 4)
        ciou = self.laid.iou - self.far - self.alpha * self.unlike
        return np.asarray(share * np.exp(-wide / length) + (1 - share) * ciou)


class Compared(NamedTuple):
    """What a loss has for its rows, what the formula says, and how far they may be apart; (n, 5) each.

    The overlap, clamped to [0, 1], and the derivatives of a row's loss by its four logits.
    """

    want: Reals
    got: Reals
    allowed: Reals


def compared(reference: Reference) -> Compared:
    """The usual rows of a reference whose overlap was taken from a loss, beside the formula of its dialect."""
    assert reference.own is not None
    usual = _usual(reference)
    kind, sizes = reference.dialect.overlap, [float(rows**2 + columns**2) for rows, columns in reference.case.grids]
    numbers = reference.dialect.numbers
    diagonals = np.repeat(sizes, [part.stop - part.start for part in reference.row_parts])[usual]
    predicted = BoxLogits(reference.all_predicted.logits[usual], reference.all_anchors[usual], EXACT)
    box, target = predicted.box, reference.all_boxes[usual]
    here = Pairs(box, target, numbers, diagonals)

    def value(box: Reals, enclosed: Reals) -> Reals:
        return Pairs(box, target, numbers, diagonals, enclosed=enclosed, alpha=here.alpha).overlap(kind)

    def slopes(at: Reals) -> Reals:
        """By the box itself, and by the box that is enclosed: at a tie of edges a loss may take another for each."""
        inner = [value(at + step, at) - value(at - step, at) for step in STEP * np.eye(4)]
        outer = [value(at, at + step) - value(at, at - step) for step in STEP * np.eye(4)]
        return np.stack((inner, outer)).transpose(0, 2, 1) / (2 * STEP)

    weight, base, parts = here.weight(kind)[:, None], here.overlap(kind), slopes(box)
    slope = parts.sum(axis=0)
    reach = ROUNDING * (1 + abs(box) + abs(target)).sum(axis=1, keepdims=True)
    moved = [box + reach * move for move in (*np.eye(4), *-np.eye(4))]  # at a tie the derivative jumps
    area = np.minimum(1, np.minimum(target[:, 2:].prod(-1), box[:, 2:].prod(-1)))
    loose = (EPSILON / area + ROUNDING)[:, None]
    of_value = np.sum([abs(value(each, each) - base) for each in moved], axis=0)[:, None] + loose
    jumps = np.sum([abs(slopes(each) - parts) for each in moved], axis=(0, 1))
    of_slope = jumps + loose * (abs(slope) + 1 / LEAST)
    unturned = np.zeros_like(base)
    return Compared(
        np.concatenate((np.clip(base, 0, 1)[:, None], weight * predicted.gradient(slope, unturned)), axis=1),
        np.concatenate((reference.own.overlaps[:, None], reference.own.gradients), axis=1)[usual],
        np.concatenate((of_value, predicted.gradient(of_slope, unturned) + ROUNDING), axis=1) * np.maximum(1, weight),
    )


def _usual(reference: Reference) -> NDArray[np.bool_]:
    """(n,): rows of boxes of usual sizes, apart, of which no clamp moved two of one target into one cell."""
    box, target = reference.all_predicted.box, reference.all_boxes
    sides = np.minimum(box[:, 2:], target[:, 2:]).min(axis=1, initial=np.inf)
    apart = np.sqrt(((box[:, :2] - target[:, :2]) ** 2).sum(-1))
    rooted = (reference.dialect.overlap == "focal-eiou") & (Overlap(box, target, EXACT).iou < LEAST_IOU)
    who = np.concatenate([a.pair_target[a.row_pair] for a in reference.assignments])
    _, which, count = np.unique(np.stack((who, reference.all_cells)), axis=1, return_inverse=True, return_counts=True)
    return np.asarray((sides >= LEAST) & (apart >= APART) & ~rooted & (count[which.reshape(-1)] == 1))
