"""Overlap of boxes."""

import math

import torch


def bbox_iou(box1, box2, GIoU=False, CIoU=False, angle1=None, eps=1e-7):
    """Overlap of boxes (n, 4), given as centre, width, height: (n,), the plain IoU where no other is asked for.

    ``angle1`` is atan(w / h) of the first boxes, where it is known better than their sides tell (`aspect_angle`).
    """
    (xy1, wh1), (xy2, wh2) = box1.split(2, dim=1), box2.split(2, dim=1)
    low1, high1, low2, high2 = xy1 - wh1 / 2, xy1 + wh1 / 2, xy2 - wh2 / 2, xy2 + wh2 / 2

    inter = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(1)
    union = wh1.prod(1) + wh2.prod(1) - inter + eps
    iou = inter / union

    hull = torch.maximum(high1, high2) - torch.minimum(low1, low2)
    if GIoU:
        area = hull.prod(1) + eps
        return iou - (area - union) / area
    if CIoU:
        distance = (xy2 - xy1).square().sum(1) / (hull.square().sum(1) + eps)
        angle1 = torch.atan2(*wh1.unbind(1)) if angle1 is None else angle1
        v = (torch.atan2(*wh2.unbind(1)) - angle1).square() * 4 / math.pi**2
        with torch.no_grad():
            # rounding may lift the IoU of a perfect fit above 1
            alpha = v / (v - iou + (1 + eps)).clamp(min=eps)
        return iou - distance - alpha * v
    return iou


def aspect_angle(logits, anchors):
    """atan(w / h) of predicted boxes, from their logits (n, 4).

    Where a side underflows to 0, w / h says nothing any more and its gradient is NaN; the logits still tell.
    """
    log_w, log_h = (anchors.log() + 2 * torch.nn.functional.logsigmoid(logits[:, 2:])).unbind(1)
    return (log_w - log_h).clamp(-30, 30).exp().atan()
