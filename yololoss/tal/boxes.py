"""Boxes: anchor points, distances to the four sides, and CIoU as this loss defines it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from yololoss.v5.boxes import EPS, ciou_alpha

DFL_MARGIN = 0.01  # target distances end this much below the last bin
# Larger coordinates are cut off here: the sum of two squares of twice this number is finite in float32.
LARGEST = 2.0**62

Boxes = Float[Tensor, "*#n 4"]
Scalars = Float[Tensor, "*#n"]


class Anchors(NamedTuple):
    """The anchor points of all levels: level after level, row after row, columns fastest."""

    point: Float32[Tensor, "A 2"]  # x, y in cells of the level, the middle of a cell
    stride: Float32[Tensor, " A"]  # pixels per cell of the anchor's level

    @property
    def pixel(self) -> Float32[Tensor, "A 2"]:
        """The points in pixels."""
        return self.point * self.stride[:, None]


def anchor_points(grids: tuple[tuple[int, int], ...], strides: tuple[float, ...], device: torch.device) -> Anchors:
    """The anchor points of levels of ``grids`` (rows H, columns W) and ``strides`` (pixels).

    In float32 whatever the predictions' dtype: half precision cannot tell the points of a wide level apart.
    Source: SPEC section 2.
    """
    points, pixels = [], []
    for (rows, columns), stride in zip(grids, strides, strict=True):
        # Made on the device: a copy from the host would wait for it.
        y = torch.arange(rows, dtype=torch.float32, device=device) + 0.5
        x = torch.arange(columns, dtype=torch.float32, device=device) + 0.5
        points.append(torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)), dim=-1).flatten(0, 1))
        pixels.append(torch.full((rows * columns,), stride, dtype=torch.float32, device=device))
    return Anchors(torch.cat(points), torch.cat(pixels))


def expected_distance(logits: Float[Tensor, "*n R m"]) -> Float[Tensor, "*n m"]:
    """The distance to a side, in cells, from the logits of its R bins: the mean of 0 to R - 1 under their softmax.

    With R = 1 the logit itself is the distance, which may be negative. Source: SPEC section 2.
    """
    bins = logits.shape[-2]
    if bins == 1:
        return logits.squeeze(-2)
    return (logits.softmax(-2) * torch.arange(bins, dtype=logits.dtype, device=logits.device)[:, None]).sum(-2)


def corners_around(point: Float[Tensor, "*#n 2"], distance: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Corners x1, y1, x2, y2 of boxes at distances left, top, right, bottom from points."""
    near, far = distance.chunk(2, dim=-1)
    return torch.cat((point - near, point + far), dim=-1)


def distances_to(point: Float[Tensor, "*n 2"], corners: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Distances left, top, right, bottom from points to the sides of boxes. Negative where a point is outside."""
    near, far = corners.chunk(2, dim=-1)
    return torch.cat((point - near, far - point), dim=-1)


def bounded(corners: Tensor) -> Tensor:
    """Corners cut off at `LARGEST`, so that squares of sides are finite in float32. NaN stays NaN."""
    return corners.clamp(-LARGEST, LARGEST)


def rounded_once(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """A function of tensors of one dtype, computed in float64 and then rounded to that dtype.

    Devices round a transcendental function differently, and a CPU does so even in different places of one tensor. A
    tie would then depend on where it is. What is rounded once is almost always the same number everywhere.
    """
    wide = torch.float32 if values[0].device.type == "mps" else torch.float64  # which has no float64
    return function(*(value.to(wide) for value in values)).to(values[0].dtype)


def aspect_angle(box: Boxes, arctangent: Callable[[Tensor, Tensor], Tensor] = torch.atan2) -> Scalars:
    """The angle atan(w / (h + EPS)) of boxes x1, y1, x2, y2 (*n, 4), in radians, (*n).

    The angle of w and h is that arctangent where h is positive, and its gradient is finite for every size.
    """
    left, top, right, bottom = box.unbind(-1)
    return arctangent(right - left, bottom - top + EPS)


def ciou(box1: Boxes, box2: Boxes, angle1: Scalars | None = None, angle2: Scalars | None = None) -> Scalars:
    """Complete IoU of boxes x1, y1, x2, y2 (*n, 4), which are broadcast, (*n).

    As the v5 loss's `yololoss.ciou`, except that ``EPS`` is also added to both heights, which is visible for boxes
    that are hardly higher. ``iou - (rho^2 / c^2 + alpha v)``, where alpha has no gradient. A box may have negative
    sides; its IoU is 0. ``angle1``, ``angle2``: their `aspect_angle`, if it is known. Source: SPEC section 4.
    """
    left1, top1, right1, bottom1 = box1.unbind(-1)
    left2, top2, right2, bottom2 = box2.unbind(-1)
    # Two factors and no prod(): its gradient looks for zeros, and so waits for the device.
    common = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0) * (
        torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)
    ).clamp(min=0)
    areas = (right1 - left1) * (bottom1 - top1 + EPS) + (right2 - left2) * (bottom2 - top2 + EPS)
    union = areas - common + EPS
    iou = common / torch.where(union == 0, EPS, union)  # 0 only if a side is negative, where nothing is in common
    across = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    down = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    between = ((left2 + right2 - left1 - right1) / 2).square() + ((top2 + bottom2 - top1 - bottom1) / 2).square()
    distance = between / (across.square() + down.square() + EPS)
    angle1 = aspect_angle(box1) if angle1 is None else angle1
    angle2 = aspect_angle(box2) if angle2 is None else angle2
    v = (4 / math.pi**2) * (angle2 - angle1).square()
    return iou - (distance + ciou_alpha(v, iou, EPS) * v)
