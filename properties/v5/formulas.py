"""The formulas of the reference: criteria and boxes, with their derivatives in closed form. NumPy, float64.

Written only from SPEC; shares no code with the loss it checks. Boxes are centre x, y, width, height, in cells
relative to a row's cell. Functions accept any leading axes, so that the error budget can compute many slightly
moved boxes at once.
"""

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .dialects import UPSTREAM, Dialect

Reals = NDArray[np.float64]

ASPECT = 4 / math.pi**2
STEEPEST = 700.0  # bound of log(w / h), far beyond where the angle is constant; exp and cosh stay finite
TINY = 1e-300


class Logits:
    """Logits of any shape, and the functions of them that the formulas share, each computed once."""

    def __init__(self, x: Reals) -> None:
        self.x = x

    @cached_property
    def _decayed(self) -> Reals:
        return np.exp(-np.abs(self.x))

    @cached_property
    def sigmoid(self) -> Reals:
        """Logistic function, with full relative precision on both sides (SPEC, notation)."""
        return np.asarray(np.where(self.x >= 0, 1.0, self._decayed) / (1 + self._decayed))

    @cached_property
    def opposite(self) -> Reals:
        """sigmoid(-x), with full relative precision on both sides."""
        return np.asarray(np.where(self.x <= 0, 1.0, self._decayed) / (1 + self._decayed))

    @cached_property
    def _tail(self) -> Reals:
        return np.log1p(self._decayed)

    @cached_property
    def no_cost(self) -> Reals:
        """-log(1 - sigmoid(x)), without cancellation (SPEC 5)."""
        return np.maximum(self.x, 0) + self._tail

    @cached_property
    def yes_cost(self) -> Reals:
        """-log(sigmoid(x)), without cancellation (SPEC 5)."""
        return np.maximum(-self.x, 0) + self._tail


def sigmoid(x: Reals) -> Reals:
    """Logistic function of any shape (`Logits.sigmoid`)."""
    return Logits(x).sigmoid


def bce(logits: Logits, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """BCE with logits and positive weight, elementwise, soft targets allowed (SPEC 5)."""
    return pos_weight * targets * logits.yes_cost + (1 - targets) * logits.no_cost


def bce_gradient(logits: Logits, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """Derivative of ``bce`` with respect to the logits, elementwise (SPEC 5)."""
    return (1 - targets) * logits.sigmoid - pos_weight * targets * logits.opposite


def focal(logits: Logits, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Focal loss, elementwise, finite for every finite logit (SPEC 5)."""
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * logits.opposite + (1 - targets) * logits.sigmoid
    return bce(logits, targets, pos_weight) * weight * miss**gamma


def focal_gradient(logits: Logits, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Derivative of ``focal`` with respect to the logits, elementwise, also finite for 0 < gamma < 1 (SPEC 5, 7)."""
    p, q = logits.sigmoid, logits.opposite
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * q + (1 - targets) * p
    # d log(miss) / d logit is bounded, while miss^(gamma - 1) is not. Where miss is 0, p q is 0 too.
    slope = (1 - 2 * targets) * p * q / np.maximum(miss, TINY)
    growth = bce_gradient(logits, targets, pos_weight) + bce(logits, targets, pos_weight) * (gamma * slope)
    return growth * weight * miss**gamma


def quality_focal(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Quality focal loss, elementwise: as ``focal``, with |t - sigmoid|^gamma (SPEC 5)."""
    weight, own = targets * alpha + (1 - targets) * (1 - alpha), Logits(logits)
    return np.asarray(bce(own, targets, pos_weight) * weight * np.abs(targets - own.sigmoid) ** gamma)


def bce_blur(logits: Reals, targets: Reals, alpha: float = 0.05) -> Reals:
    """BCE, elementwise, reduced where a label seems to be missing (SPEC 5)."""
    own = Logits(logits)
    return np.asarray(bce(own, targets) * (1 - np.exp((own.sigmoid - targets - 1) / (alpha + 1e-4))))


class Overlap:
    """Boxes (..., 4) laid over others, and the measures of their overlap, (...) (SPEC 2)."""

    def __init__(self, box1: Reals, box2: Reals, dialect: Dialect = UPSTREAM) -> None:
        self.box1, self.box2, self.dialect = box1, box2, dialect
        self._eps = dialect.overlap_eps
        # from sides and distances, not edges: the rounding of an edge would lose a side far smaller than its centre
        reach, apart = (box1[..., 2:] + box2[..., 2:]) / 2, abs(box1[..., :2] - box2[..., :2])
        # sides of the overlap (negative if apart) and of the enclosing box, (..., 2)
        self._gap = np.minimum(np.minimum(box1[..., 2:], box2[..., 2:]), reach - apart)
        self.hull = np.maximum(np.maximum(box1[..., 2:], box2[..., 2:]), reach + apart)
        self._side = np.maximum(self._gap, 0)
        self._inter = _area(self._side)
        self._taller = dialect.taller_in_area  # what some dialects add to each height
        sides = (box[..., 2] * (box[..., 3] + self._taller) for box in (box1, box2))
        self._union = sum(sides) - self._inter + self._eps

    @cached_property
    def iou(self) -> Reals:
        """Intersection over union."""
        return self._inter / self._union

    @property
    def giou(self) -> Reals:
        """IoU minus the empty share of the enclosing box."""
        enclosing = _area(self.hull) + self._eps
        return self.iou - (enclosing - self._union) / enclosing

    @cached_property
    def _diagonal(self) -> Reals:
        return np.asarray((self.hull**2).sum(-1) + self._eps)

    @cached_property
    def _distance(self) -> Reals:
        return np.asarray(((self.box1[..., :2] - self.box2[..., :2]) ** 2).sum(-1))

    @property
    def diou(self) -> Reals:
        """IoU minus the squared distance of the centres / the squared diagonal of the enclosing box."""
        return np.asarray(self.iou - self._distance / self._diagonal)

    def _turned(self, angle1: Reals) -> Reals:
        return np.arctan2(self.box2[..., 2], self.box2[..., 3] + self.dialect.taller_in_angle) - angle1

    def _alpha(self, v: Reals) -> Reals:
        rest = np.maximum(1 - self.iou + v + self._eps, self._eps)
        return np.divide(v, rest, out=np.zeros_like(v), where=rest > 0)  # 0 / 0 is a perfect fit without an epsilon

    def ciou(self, angle1: Reals) -> Reals:
        """DIoU minus alpha v, from the angles atan(w / h) (...) of ``box1``."""
        v = ASPECT * self._turned(angle1) ** 2
        return self.diou - self._alpha(v) * v

    def value(self, angle1: Reals) -> Reals:
        """The overlap that the dialect takes, from the angles (...) of ``box1``."""
        kind = self.dialect.overlap
        found = self.ciou(angle1) if kind == "ciou" else getattr(self, kind)
        return np.clip(found, -1, 1) if self.dialect.overlap_range == "clamped" else found

    def gradient_parts(self, angle1: Reals) -> tuple[Reals, Reals, Reals]:
        """Derivative of ``value`` by box1, in two parts (..., 4), and angle1 (...), alpha constant; the mean at ties.

        The parts are those of the edges of the overlap, and of the enclosing box. At a tie of edges, a loss may take
        either box's edge for the one, and independently for the other.
        """
        box1, box2, side = self.box1, self.box2, self._side
        # an edge of the overlap is box1's if that lies inside box2, an edge of the enclosing box if it lies outside
        apart, wider = box1[..., :2] - box2[..., :2], (box1[..., 2:] - box2[..., 2:]) / 2
        start, end = np.heaviside(apart - wider, 0.5), np.heaviside(-apart - wider, 0.5)
        by_centre, both = end - start, end + start
        open_other = np.heaviside(self._gap, 0.5) * side[..., ::-1]  # d inter / d gap: the other side, if boxes overlap
        d_inter = np.concatenate((by_centre * open_other, both / 2 * open_other), axis=-1)
        d_area = np.concatenate((np.zeros_like(side), box1[..., :1:-1]), axis=-1)  # of w h: h, w
        d_area[..., 2] += self._taller
        union, inter = self._union[..., None], self._inter[..., None]
        d_union = d_area - d_inter
        of_inner = (d_inter * union - inter * d_union) / union**2
        of_outer, by_angle = np.zeros_like(of_inner), np.zeros_like(angle1)
        d_hull = np.concatenate((-by_centre, (2 - start - end) / 2), axis=-1)  # of the enclosing box's sides
        if self.dialect.overlap == "giou":
            enclosing = (_area(self.hull) + self._eps)[..., None]
            d_enclosing = d_hull * np.tile(self.hull[..., ::-1], 2)
            of_inner, of_outer = of_inner + d_union / enclosing, -union * d_enclosing / enclosing**2
        if self.dialect.overlap in ("diou", "ciou"):
            diagonal, distance = self._diagonal[..., None], self._distance[..., None]
            d_moved = np.concatenate((2 * apart, np.zeros_like(apart)), axis=-1)
            of_outer = -(d_moved * diagonal - distance * d_hull * 2 * np.tile(self.hull, 2)) / diagonal**2
        if self.dialect.overlap == "ciou":
            turned = self._turned(angle1)
            by_angle = 2 * self._alpha(ASPECT * turned**2) * ASPECT * turned
        if self.dialect.overlap_range == "clamped":
            kept = abs(self.value(angle1)) < 1  # the clamp has no gradient
            return of_inner * kept[..., None], of_outer * kept[..., None], by_angle * kept
        return of_inner, of_outer, by_angle


def iou(box1: Reals, box2: Reals) -> Reals:
    """Intersection over union of boxes (..., 4) (SPEC 2)."""
    return Overlap(box1, box2).iou


def giou(box1: Reals, box2: Reals) -> Reals:
    """IoU minus the empty share of the enclosing box, (..., 4) to (...) (SPEC 2)."""
    return Overlap(box1, box2).giou


def diou(box1: Reals, box2: Reals) -> Reals:
    """IoU minus the squared distance of the centres / the squared diagonal of the enclosing box (SPEC 2)."""
    return Overlap(box1, box2).diou


def ciou(box1: Reals, angle1: Reals, box2: Reals) -> Reals:
    """DIoU minus alpha v, from boxes (..., 4) and the angles atan(w / h) (...) of ``box1`` (SPEC 2)."""
    return Overlap(box1, box2).ciou(angle1)


class BoxLogits:
    """Logits x, y, w, h (n, 4) that predict boxes from anchors' sides (n, 2) (SPEC 2, 7)."""

    def __init__(self, logits: Reals, anchors: Reals, dialect: Dialect = UPSTREAM) -> None:
        self.logits, self.anchors = logits, anchors
        self._taller = dialect.taller_in_angle  # what some dialects add to a height
        self._own = own = Logits(logits)
        self.sigmoid, self.opposite = own.sigmoid, own.opposite
        self.box = np.concatenate((2 * own.sigmoid[:, :2] - 0.5, 4 * own.sigmoid[:, 2:] ** 2 * anchors), axis=-1)
        # log(w / h), computed from logits, since the sides may underflow
        log_p = -own.yes_cost[:, 2:]
        log_ratio = np.log(anchors[:, 0] / anchors[:, 1]) + 2 * (log_p[:, 0] - log_p[:, 1])
        self._log_ratio = np.clip(log_ratio, -STEEPEST, STEEPEST)
        self.angle = np.arctan(np.exp(self._log_ratio))  # atan(w / h)
        if self._taller:
            self.angle = np.arctan2(self.box[:, 2], self.box[:, 3] + self._taller)

    @cached_property
    def _turns(self) -> Reals:
        """Derivative of the angle by log w and log h, (n, 2)."""
        if self._taller:
            return self.turns(self.box[:, 2:])
        turn = 0.5 / np.cosh(self._log_ratio)  # d atan(e^u) / d u
        return np.stack((turn, -turn), axis=-1)

    def gradient(self, d_box: Reals, d_angle: Reals, turns: Reals | None = None) -> Reals:
        """Gradient for the logits (..., n, 4), from that of the boxes (..., n, 4) and angles (..., n).

        ``turns`` is for angles that were computed from other sides.
        """
        turns = self._turns if turns is None else turns
        p, q = self.sigmoid, self.opposite
        by_size = 2 * q[:, 2:] * (d_box[..., 2:] * self.box[:, 2:] + d_angle[..., None] * turns)
        return np.concatenate((d_box[..., :2] * 2 * p[:, :2] * q[:, :2], by_size), axis=-1)

    def turns(self, sides: Reals) -> Reals:
        """Derivative of the angle of these sides (..., n, 2) by log w and log h of the box, (..., n, 2)."""
        w, taller = sides[..., 0], sides[..., 1] + self._taller
        turns = np.stack((self.box[:, 2] * taller, -self.box[:, 3] * w), axis=-1)
        return np.asarray(turns / np.maximum(w**2 + taller**2, TINY)[..., None])


def _area(sides: Reals) -> Reals:
    return sides[..., 0] * sides[..., 1]


def criterion(logits: Logits, targets: Reals, pos_weight: float, gamma: float) -> Reals:
    """BCE, or focal loss if gamma is above 0, elementwise (SPEC 5)."""
    return focal(logits, targets, pos_weight, gamma) if gamma > 0 else bce(logits, targets, pos_weight)


def criterion_gradient(logits: Logits, targets: Reals, pos_weight: float, gamma: float) -> Reals:
    """Derivative of ``criterion`` with respect to the logits, elementwise (SPEC 5)."""
    return (
        focal_gradient(logits, targets, pos_weight, gamma) if gamma > 0 else bce_gradient(logits, targets, pos_weight)
    )
