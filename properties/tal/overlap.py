"""CIoU as the specification defines it (SPEC 4), and its gradient in closed form. NumPy, float64."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
EPS = 1e-7


class Gradient(NamedTuple):
    """The derivative of CIoU by the corners of the first box, (..., 4), and the size of the terms that it sums."""

    value: Reals
    size: Reals


class Overlap:
    """Boxes laid over targets: corners x1, y1, x2, y2 (..., 4), which are broadcast."""

    def __init__(self, box: Any, target: Any) -> None:
        self.x1, self.y1, self.x2, self.y2 = np.moveaxis(np.asarray(box, np.float64), -1, 0)
        self.u1, self.v1, self.u2, self.v2 = np.moveaxis(np.asarray(target, np.float64), -1, 0)
        self.w, self.h = self.x2 - self.x1, self.y2 - self.y1 + EPS
        self.target_w, self.target_h = self.u2 - self.u1, self.v2 - self.v1 + EPS
        self.across = np.minimum(self.x2, self.u2) - np.maximum(self.x1, self.u1)
        self.down = np.minimum(self.y2, self.v2) - np.maximum(self.y1, self.v1)
        self.common = np.maximum(self.across, 0) * np.maximum(self.down, 0)
        union = self.w * self.h + self.target_w * self.target_h - self.common + EPS
        self.union = np.where(union == 0, EPS, union)
        self.iou = self.common / self.union
        self.wide = np.maximum(self.x2, self.u2) - np.minimum(self.x1, self.u1)
        self.high = np.maximum(self.y2, self.v2) - np.minimum(self.y1, self.v1)
        self.diagonal = self.wide**2 + self.high**2 + EPS
        self.off_x = self.u1 + self.u2 - self.x1 - self.x2
        self.off_y = self.v1 + self.v2 - self.y1 - self.y2
        self.between = (self.off_x**2 + self.off_y**2) / 4
        self.turn = np.arctan2(self.target_w, self.target_h) - np.arctan2(self.w, self.h)
        self.v = 4 / math.pi**2 * self.turn**2
        self.alpha = self.v / (1 - self.iou + self.v + EPS)

    @property
    def value(self) -> Reals:
        """CIoU, (...)."""
        return np.asarray(self.iou - self.between / self.diagonal - self.alpha * self.v)

    def gradient(self) -> Gradient:
        """By x1, y1, x2, y2. Where edges coincide, minimum and maximum share the gradient half and half."""
        # of the common part by each corner, where there is one
        inner = [
            -_above(self.x1, self.u1) * (self.across > 0) * np.maximum(self.down, 0),
            -_above(self.y1, self.v1) * (self.down > 0) * np.maximum(self.across, 0),
            _above(self.u2, self.x2) * (self.across > 0) * np.maximum(self.down, 0),
            _above(self.v2, self.y2) * (self.down > 0) * np.maximum(self.across, 0),
        ]
        area = [-self.h, -self.w, self.h, self.w]
        outer = [
            -2 * self.wide * _above(self.u1, self.x1),
            -2 * self.high * _above(self.v1, self.y1),
            2 * self.wide * _above(self.x2, self.u2),
            2 * self.high * _above(self.y2, self.v2),
        ]
        apart = [-self.off_x / 2, -self.off_y / 2] * 2
        slope = self.w**2 + self.h**2
        angle = [-self.h / slope, self.w / slope, self.h / slope, -self.w / slope]
        return self._joined(inner, area, outer, apart, angle)

    def _joined(self, *parts: list[Any]) -> Gradient:
        value, size = [], []
        for inner, area, outer, apart, angle in zip(*parts, strict=True):
            terms = (
                inner * (self.union + self.common) / self.union**2,
                -self.common * area / self.union**2,
                -apart / self.diagonal,
                self.between * outer / self.diagonal**2,
                self.alpha * 8 / math.pi**2 * self.turn * angle,
            )
            value.append(sum(terms))
            size.append(sum(map(abs, terms)))
        return Gradient(np.stack(value, axis=-1), np.stack(size, axis=-1))


def _above(one: Reals, other: Reals) -> Reals:
    """1 where one number is the larger, 1/2 where they are equal, else 0."""
    return np.asarray(np.heaviside(one - other, 0.5))
