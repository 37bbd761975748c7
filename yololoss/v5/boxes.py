"""Boxes: decoding of logits, and the IoU family."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

EPS = 1e-7  # keeps quotients defined for boxes without area; part of the loss's definition

Boxes = Float[Tensor, "*n 4"]
Scalars = Float[Tensor, "*n"]


def decode(logits: Float[Tensor, "n 4"], anchors: Float[Tensor, "n 2"]) -> Float[Tensor, "n 4"]:
    """Boxes (centre x, y, width, height), in cells relative to each row's cell, from logits.

    ``xy = 2 sigmoid(.) - 1/2`` in (-0.5, 1.5); ``wh = (2 sigmoid(.))^2 anchor`` in (0, 4 anchor).
    ``anchors`` in cells of the layer. Source: SPEC section 2.
    """
    doubled = logits.sigmoid().mul(2)
    return torch.cat((doubled[:, :2] - 0.5, doubled[:, 2:].square() * anchors), dim=1)


def aspect_angle(logits: Float[Tensor, "n 4"], anchors: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """The angle atan(w / h) of decoded boxes, in radians, (n,), directly from their logits.

    w / h = exp(u), u = log(aw / ah) + 2 (log sigmoid(pw) - log sigmoid(ph)). If w and h underflow to
    zero, w / h is 0 / 0 and its gradient NaN; u stays exact. Beyond |u| = 30 the angle is within 1e-13
    of its limit, so clamping u there changes no float32 value and keeps exp finite. Source: SPEC 7.
    """
    log_anchor = anchors.log()
    log_wh = logsigmoid(logits[:, 2:])
    u = log_anchor[:, 0] - log_anchor[:, 1] + 2 * (log_wh[:, 0] - log_wh[:, 1])
    return u.clamp(-30, 30).exp().atan()


class _Overlap(NamedTuple):
    """What the IoU functions share. Every field has the shape of the boxes without their last axis."""

    iou: Tensor
    union: Tensor
    enclosing_wh: Tensor  # one more last axis of 2
    centre_distance2: Tensor
    wh1: Tensor  # one more last axis of 2
    wh2: Tensor  # one more last axis of 2


def _halves(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[..., :2], box[..., 2:]


def _area(sides: Tensor) -> Tensor:
    # no prod(): its gradient looks for zeros, and so waits for the device
    return sides[..., 0] * sides[..., 1]


def _overlap(box1: Tensor, box2: Tensor, corners: bool, eps: float) -> _Overlap:
    if corners:
        (low1, high1), (low2, high2) = _halves(box1), _halves(box2)
        wh1, wh2 = high1 - low1, high2 - low2
        between = (low2 + high2 - low1 - high1) / 2
    else:
        (centre1, wh1), (centre2, wh2) = _halves(box1), _halves(box2)
        low1, high1 = centre1 - wh1 / 2, centre1 + wh1 / 2
        low2, high2 = centre2 - wh2 / 2, centre2 + wh2 / 2
        between = centre2 - centre1
    inter = _area((torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0))
    union = _area(wh1) + _area(wh2) - inter + eps
    return _Overlap(
        iou=inter / union,
        union=union,
        enclosing_wh=torch.maximum(high1, high2) - torch.minimum(low1, low2),
        centre_distance2=between.square().sum(-1),
        wh1=wh1,
        wh2=wh2,
    )


def iou(box1: Boxes, box2: Boxes, *, corners: bool = False, eps: float = EPS) -> Scalars:
    """Intersection over union of boxes (*n, 4), in [0, 1], (*n).

    Boxes are (x, y, w, h) with the centre x, y, or with ``corners`` (x1, y1, x2, y2), in any unit of length. ``eps``
    is added to the area of the union.
    """
    return _overlap(box1, box2, corners, eps).iou


def giou(box1: Boxes, box2: Boxes, *, corners: bool = False, eps: float = EPS) -> Scalars:
    """Generalised IoU, in (-1, 1]: IoU minus the share of the enclosing box that is not in the union.

    Arguments and shapes as for `iou`. Source: Rezatofighi et al. 2019, "Generalized Intersection over Union".
    """
    o = _overlap(box1, box2, corners, eps)
    enclosing = _area(o.enclosing_wh) + eps
    return o.iou - (enclosing - o.union) / enclosing


def diou(box1: Boxes, box2: Boxes, *, corners: bool = False, eps: float = EPS) -> Scalars:
    """Distance IoU, in (-1, 1]: IoU minus the centres' squared distance over the enclosing box's squared diagonal.

    Arguments and shapes as for `iou`. Source: Zheng et al. 2020, "Distance-IoU Loss".
    """
    o = _overlap(box1, box2, corners, eps)
    return o.iou - o.centre_distance2 / (o.enclosing_wh.square().sum(-1) + eps)


def ciou(
    box1: Boxes,
    box2: Boxes,
    *,
    corners: bool = False,
    eps: float = EPS,
    angle1: Scalars | None = None,
) -> Scalars:
    """Complete IoU: DIoU minus ``alpha v``, a penalty on the difference of the aspect ratios.

    ``v = 4 / pi^2 (atan(w2 / h2) - atan(w1 / h1))^2``, ``alpha = v / (1 - iou + v + eps)``; alpha has no
    gradient. ``angle1`` is atan(w1 / h1) of the first boxes, (*n), if it is known more exactly than from their
    sides (`aspect_angle`). Without it a box of zero width and height has angle 0, and its gradient with respect
    to the sides may be 0 or not finite, because the ratio of sides that underflowed is lost. Other arguments and
    shapes as for `iou`.
    Source: Zheng et al. 2020, "Distance-IoU Loss", section "Complete IoU"; SPEC section 2.
    """
    o = _overlap(box1, box2, corners, eps)
    distance = o.centre_distance2 / (o.enclosing_wh.square().sum(-1) + eps)
    if angle1 is None:
        angle1 = torch.atan2(o.wh1[..., 0], o.wh1[..., 1])
    angle2 = torch.atan2(o.wh2[..., 0], o.wh2[..., 1])
    v = (4 / math.pi**2) * (angle2 - angle1).square()
    return o.iou - (distance + ciou_alpha(v, o.iou, eps) * v)


def ciou_alpha(v: Tensor, iou: Tensor, eps: float) -> Tensor:
    """The weight of CIoU's aspect term ``v``, of the same shape, which is held constant."""
    # By rounding, the IoU of a perfect fit may be an ulp or two above 1, so 1 - iou + eps may be 0 and alpha
    # infinite. In exact arithmetic the denominator is never below eps, so the clamp changes nothing.
    return (v / (v - iou + (1 + eps)).clamp(min=eps)).detach()
