"""An independent model of the loss, from SPEC alone: NumPy, float64, gradients in closed form.

It shares nothing with the loss it checks. All is float64 but the assignment, where the float32 comparison is
the fact (SPEC 1). Boxes are centre x, y, width, height, in cells relative to a row's cell; functions take any
leading axes. Inside, the rows and cells of all layers lie end to end: a layer more costs no NumPy call more.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

EPS = 1e-7
ASPECT = 4 / math.pi**2
LEAST_LOSS = 1e-6  # the project's bound on autobalance's .0001 / loss
STEEPEST = 350.0  # bound of log(w/h) / 2: exp and cosh stay finite, and the angle is flat long before
TINY = 1e-300
SHIFTS = np.array([(0, 0), (-0.5, 0), (0, -0.5), (0.5, 0), (0, 0.5)], np.float32)  # in order of the choices


def sigmoid(x: Reals) -> Reals:
    """Logistic function of any shape, with full relative precision on both sides (SPEC, notation)."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


def softplus(x: Reals) -> Reals:
    """-log(1 - sigmoid(x)) of any shape, without cancellation (SPEC 5)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def bce(logits: Reals, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """BCE with logits and positive weight, elementwise, soft targets allowed (SPEC 5)."""
    return pos_weight * targets * softplus(-logits) + (1 - targets) * softplus(logits)


def bce_gradient(logits: Reals, targets: Reals, pos_weight: float = 1.0) -> Reals:
    """Derivative of ``bce`` by the logits, elementwise (SPEC 5)."""
    return (1 - targets) * sigmoid(logits) - pos_weight * targets * sigmoid(-logits)


def focal(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Focal loss, elementwise, finite for every finite logit (SPEC 5)."""
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * sigmoid(-logits) + (1 - targets) * sigmoid(logits)
    return bce(logits, targets, pos_weight) * weight * miss**gamma


def focal_gradient(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Derivative of ``focal`` by the logits, elementwise, finite for 0 < gamma < 1 too (SPEC 5, 7)."""
    p, q = sigmoid(logits), sigmoid(-logits)
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    miss = targets * q + (1 - targets) * p
    # d log(miss) / d logit: bounded, whereas miss^(gamma - 1) is not. Where miss is 0, p q is 0 as well.
    slope = (1 - 2 * targets) * p * q / np.maximum(miss, TINY)
    growth = bce_gradient(logits, targets, pos_weight) + bce(logits, targets, pos_weight) * (gamma * slope)
    return growth * weight * miss**gamma


def quality_focal(logits: Reals, targets: Reals, pos_weight: float, gamma: float, alpha: float = 0.25) -> Reals:
    """Quality focal loss, elementwise: as ``focal``, with |t - sigmoid| to the power (SPEC 5)."""
    weight = targets * alpha + (1 - targets) * (1 - alpha)
    return bce(logits, targets, pos_weight) * weight * np.abs(targets - sigmoid(logits)) ** gamma


def bce_blur(logits: Reals, targets: Reals, alpha: float = 0.05) -> Reals:
    """BCE, elementwise, damped where a label seems to be missing (SPEC 5)."""
    return bce(logits, targets) * (1 - np.exp((sigmoid(logits) - targets - 1) / (alpha + 1e-4)))


@dataclass(frozen=True, eq=False)
class _Pair:
    low: Reals  # (..., 2) left and top edge of box 1, minus those of box 2
    high: Reals  # (..., 2) right and bottom edge of box 1, minus those of box 2
    gap: Reals  # (..., 2) sides of the intersection, negative where apart
    hull: Reals  # (..., 2) sides of the enclosing box
    union: Reals  # (...) area, with epsilon
    overlap: Reals  # (...) IoU
    diagonal: Reals  # (...) squared, of the enclosing box, with epsilon
    distance: Reals  # (...) squared, of the centres, over the diagonal


def _pair(box1: Reals, box2: Reals) -> _Pair:
    """Lay two boxes (..., 4) over one another (SPEC 2)."""
    half1, half2, move = box1[..., 2:] / 2, box2[..., 2:] / 2, box1[..., :2] - box2[..., :2]
    low, high = move - half1 + half2, move + half1 - half2
    low1, high1 = box1[..., :2] - half1, box1[..., :2] + half1
    low2, high2 = box2[..., :2] - half2, box2[..., :2] + half2
    low, high = low1 - low2, high1 - high2
    gap, hull = (
        np.minimum(high1, high2) - np.maximum(low1, low2),
        np.maximum(high1, high2) - np.minimum(low1, low2),
    )
    return gap
