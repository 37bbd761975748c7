"""The formulas of the reference: criteria and boxes, with their derivatives in closed form. NumPy, float64.

Written only from SPEC; shares no code with the loss it checks. Boxes are centre x, y, width, height, in cells
relative to a row's cell. Functions accept any leading axes, so that the error budget can compute many slightly
moved boxes at once.
"""

import math

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

EPS = 1e-7
ASPECT = 4 / math.pi**2
STEEPEST = 700.0  # bound of log(w / h), far beyond where the angle is constant; exp and cosh stay finite
TINY = 1e-300


def sigmoid(x: Reals) -> Reals:
    """Logistic function of any shape, with full relative precision on both sides (SPEC, notation)."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1 + e))


def softplus(x: Reals) -> Reals:
    """-log(1 - sigmoid(x)) of any shape, without cancellation (SPEC 5)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def bce(logits: Reals, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """BCE with logits and positive weight, elementwise, soft targets allowed (SPEC 5)."""
    return pos_weight * targets * softplus(-logits) + (1 - targets) * softplus(logits)


def bce_gradient(logits: Reals, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """Derivative of ``bce`` with respect to the logits, elementwise (SPEC 5)."""
    return (1 - targets) * sigmoid(logits) - pos_weight * targets * sigmoid(-logits)


def focal(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Focal loss, elementwise, finite for every finite logit (SPEC 5)."""
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * sigmoid(-logits) + (1 - targets) * sigmoid(logits)
    return bce(logits, targets, pos_weight) * weight * miss**gamma


def focal_gradient(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Derivative of ``focal`` with respect to the logits, elementwise, also finite for 0 < gamma < 1 (SPEC 5, 7)."""
    p, q = sigmoid(logits), sigmoid(-logits)
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * q + (1 - targets) * p
    # d log(miss) / d logit is bounded, while miss^(gamma - 1) is not. Where miss is 0, p q is 0 too.
    slope = (1 - 2 * targets) * p * q / np.maximum(miss, TINY)
    growth = bce_gradient(logits, targets, pos_weight) + bce(logits, targets, pos_weight) * (gamma * slope)
    return growth * weight * miss**gamma


def quality_focal(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Quality focal loss, elementwise: as ``focal``, with |t - sigmoid|^gamma (SPEC 5)."""
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return np.asarray(bce(logits, targets, pos_weight) * weight * np.abs(targets - sigmoid(logits)) ** gamma)


def bce_blur(logits: Reals, targets: Reals, alpha: float = 0.05) -> Reals:
    """BCE, elementwise, reduced where a label seems to be missing (SPEC 5)."""
    return np.asarray(bce(logits, targets) * (1 - np.exp((sigmoid(logits) - targets - 1) / (alpha + 1e-4))))


def iou(box1: Reals, box2: Reals) -> Reals:
    """Intersection over union of boxes (..., 4) (SPEC 2)."""
    gap, _, union = _lay_over(box1, box2)
    return _area(np.maximum(gap, 0)) / union


def giou(box1: Reals, box2: Reals) -> Reals:
    """IoU minus the empty share of the enclosing box, (..., 4) to (...) (SPEC 2)."""
    _, hull, union = _lay_over(box1, box2)
    enclosing = _area(hull) + EPS
    return iou(box1, box2) - (enclosing - union) / enclosing


def diou(box1: Reals, box2: Reals) -> Reals:
    """IoU minus the squared distance of the centres / the squared diagonal of the enclosing box (SPEC 2)."""
    _, hull, _ = _lay_over(box1, box2)
    moved = box2[..., :2] - box1[..., :2]
    return np.asarray(iou(box1, box2) - (moved**2).sum(-1) / ((hull**2).sum(-1) + EPS))


def ciou(box1: Reals, angle1: Reals, box2: Reals) -> Reals:
    """DIoU minus alpha v, from boxes (..., 4) and the angles atan(w / h) (...) of ``box1`` (SPEC 2)."""
    v = ASPECT * (_angle(box2) - angle1) ** 2
    return diou(box1, box2) - _alpha(v, iou(box1, box2)) * v


def ciou_gradient(box1: Reals, angle1: Reals, box2: Reals) -> tuple[Reals, Reals]:
    """Derivative of ``ciou`` by box1 (..., 4) and angle1 (...), alpha constant; the mean at ties (SPEC 2)."""
    gap, hull, union = _lay_over(box1, box2)
    side = np.maximum(gap, 0)
    inter = _area(side)
    # an edge of the overlap is box1's if that lies inside box2, an edge of the enclosing box if it lies outside
    apart, wider = box1[..., :2] - box2[..., :2], (box1[..., 2:] - box2[..., 2:]) / 2
    start, end = np.heaviside(apart - wider, 0.5), np.heaviside(-apart - wider, 0.5)
    by_centre, by_size = end - start, (end + start) / 2
    open_other = np.heaviside(gap, 0.5) * side[..., ::-1]  # d inter / d gap: the other side, if boxes overlap
    d_inter = np.concatenate((by_centre * open_other, by_size * open_other), axis=-1)
    d_area = np.concatenate((np.zeros_like(side), box1[..., :1:-1]), axis=-1)  # of w h: h, w
    d_iou = ((d_inter * union[..., None]) - inter[..., None] * (d_area - d_inter)) / union[..., None] ** 2

    diagonal = ((hull**2).sum(-1) + EPS)[..., None]
    distance = (apart**2).sum(-1)[..., None]
    d_hull = np.concatenate(((start - end) * hull, (2 - start - end) / 2 * hull), axis=-1) * 2
    d_moved = np.concatenate((2 * apart, np.zeros_like(apart)), axis=-1)
    d_distance = (d_moved * diagonal - distance * d_hull) / diagonal**2

    turned = _angle(box2) - angle1
    alpha = _alpha(ASPECT * turned**2, inter / union)
    return d_iou - d_distance, 2 * alpha * ASPECT * turned


def box_logit_gradient(logits: Reals, anchors: Reals, d_box: Reals, d_angle: Reals) -> Reals:
    """Gradient for the logits x, y, w, h (..., 4), from that of decoded box (..., 4) and angle (...) (SPEC 2)."""
    p, q = sigmoid(logits), sigmoid(-logits)
    size = 4 * p[..., 2:] ** 2 * anchors
    turn = d_angle * 0.5 / np.cosh(_log_ratio(logits, anchors))  # d atan(e^u) / d u
    by_size = 2 * q[..., 2:] * (d_box[..., 2:] * size + np.stack((turn, -turn), axis=-1))
    return np.concatenate((d_box[..., :2] * 2 * p[..., :2] * q[..., :2], by_size), axis=-1)


def decode(logits: Reals, anchors: Reals) -> tuple[Reals, Reals]:
    """Boxes (..., 4) and their angles atan(w / h) (...), from logits x, y, w, h (SPEC 2, 7)."""
    p = sigmoid(logits)
    box = np.concatenate((2 * p[..., :2] - 0.5, 4 * p[..., 2:] ** 2 * anchors), axis=-1)
    return box, np.arctan(np.exp(_log_ratio(logits, anchors)))


def _log_ratio(logits: Reals, anchors: Reals) -> Reals:
    """log(w / h) of decoded boxes, computed from logits, since the sides may underflow."""
    log_p = -softplus(-logits[..., 2:])
    log_ratio = np.log(anchors[..., 0] / anchors[..., 1]) + 2 * (log_p[..., 0] - log_p[..., 1])
    return np.clip(log_ratio, -STEEPEST, STEEPEST)


def _lay_over(box1: Reals, box2: Reals) -> tuple[Reals, Reals, Reals]:
    """Sides of the overlap (negative if apart) and of the enclosing box, (..., 2), and the area of the union."""
    # from sides and distances, not edges: the rounding of an edge would lose a side far smaller than its centre
    reach, apart = (box1[..., 2:] + box2[..., 2:]) / 2, abs(box1[..., :2] - box2[..., :2])
    gap = np.minimum(np.minimum(box1[..., 2:], box2[..., 2:]), reach - apart)
    hull = np.maximum(np.maximum(box1[..., 2:], box2[..., 2:]), reach + apart)
    union = _area(box1[..., 2:]) + _area(box2[..., 2:]) - _area(np.maximum(gap, 0)) + EPS
    return gap, hull, union


def _area(sides: Reals) -> Reals:
    return sides[..., 0] * sides[..., 1]


def _angle(box: Reals) -> Reals:
    return np.arctan2(box[..., 2], box[..., 3])


def _alpha(v: Reals, overlap: Reals) -> Reals:
    return v / np.maximum(1 - overlap + v + EPS, EPS)


def criterion(logits: Reals, targets: Reals, pos_weight: float, gamma: float) -> Reals:
    """BCE, or focal loss if gamma is above 0, elementwise (SPEC 5)."""
    return focal(logits, targets, pos_weight, gamma) if gamma > 0 else bce(logits, targets, pos_weight)


def criterion_gradient(logits: Reals, targets: Reals, pos_weight: float, gamma: float) -> Reals:
    """Derivative of ``criterion`` with respect to the logits, elementwise (SPEC 5)."""
    return (
        focal_gradient(logits, targets, pos_weight, gamma) if gamma > 0 else bce_gradient(logits, targets, pos_weight)
    )
