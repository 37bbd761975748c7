"""A task-aligned loss from the ground up, as many are written: padded targets, dense tables of pairs, autograd.

Written from SPEC alone, and shares no code with the bundled loss. It takes predictions in both forms, targets in any
order, and computes half precision in float32.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SIDES, EPS, INSIDE = 4, 1e-7, 1e-9


def plain_ciou(one: Tensor, two: Tensor) -> Tensor:
    """CIoU of boxes by their corners (..., 4)."""
    w1, h1 = one[..., 2] - one[..., 0], one[..., 3] - one[..., 1] + EPS
    w2, h2 = two[..., 2] - two[..., 0], two[..., 3] - two[..., 1] + EPS
    wide = torch.minimum(one[..., 2], two[..., 2]) - torch.maximum(one[..., 0], two[..., 0])
    high = torch.minimum(one[..., 3], two[..., 3]) - torch.maximum(one[..., 1], two[..., 1])
    common = wide.clamp(min=0) * high.clamp(min=0)
    iou = common / (w1 * h1 + w2 * h2 - common + EPS)
    span_x = torch.maximum(one[..., 2], two[..., 2]) - torch.minimum(one[..., 0], two[..., 0])
    span_y = torch.maximum(one[..., 3], two[..., 3]) - torch.minimum(one[..., 1], two[..., 1])
    apart_x = (two[..., 0] + two[..., 2] - one[..., 0] - one[..., 2]) / 2
    apart_y = (two[..., 1] + two[..., 3] - one[..., 1] - one[..., 3]) / 2
    v = (torch.atan2(w2, h2) - torch.atan2(w1, h1)).square() * (4 / torch.pi**2)
    with torch.no_grad():
        alpha = v / (1 - iou + v + EPS)
    return iou - (apart_x.square() + apart_y.square()) / (span_x.square() + span_y.square() + EPS) - alpha * v


class PlainTal:
    """Built from a model, called as ``loss(preds, batch)``; total (3,) and items (3,)."""

    def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        head = model.model[-1]
        self.hyp, self.stride, self.classes, self.bins = model.args, head.stride, head.nc, head.reg_max
        self.weights = getattr(model, "class_weights", None)
        self.k, self.k2 = tal_topk, None if tal_topk2 == tal_topk else tal_topk2

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The three terms times the batch size; and without it, detached."""
        boxes, scores, grids = self.read(preds)
        point, stride = self.anchors(grids, scores.device)
        size = torch.tensor(grids[0], device=scores.device).flip(0) * self.stride[0]
        label, corners, valid = padded(batch, len(scores), size)
        shares = boxes.unflatten(1, (SIDES, self.bins))
        bins = torch.arange(self.bins, device=scores.device, dtype=shares.dtype)
        distance = shares[:, :, 0] if self.bins == 1 else (shares.softmax(2) * bins[:, None]).sum(2)
        near, far = distance.movedim(1, 2).chunk(2, dim=2)
        predicted = torch.cat((point - near, point + far), dim=2)
        with torch.no_grad():
            pixels = (predicted * stride[:, None]).detach().float()
            owner, t = self.assign(scores.sigmoid(), pixels, point * stride[:, None], label, corners, valid)
            wanted = torch.zeros_like(scores)
            image, anchor = (owner >= 0).nonzero(as_tuple=True)
            target = owner[image, anchor]
            wanted[image, label[image, target], anchor] = t[image, anchor].to(wanted.dtype)
            weight, total = t[image, anchor], t.sum().clamp(min=1)
        cls = torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        cls = cls if self.weights is None else cls * self.weights[:, None]
        box = corners[image, target] / stride[anchor, None]
        fit = ((1 - plain_ciou(predicted[image, anchor], box)) * weight).sum()
        third = (self.third(shares[image, :, :, anchor], distance[image, :, anchor], box, point[anchor],
                            stride[anchor], size) * weight).sum()  # fmt: skip
        gains = torch.tensor((self.hyp.box, self.hyp.cls, self.hyp.dfl), device=scores.device)
        items = torch.stack((fit, cls.sum(), third)) / total * gains
        return items.float() * len(scores), items.detach().float()

    def read(self, preds: Any) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Box and class logits (B, n, A), at least in float32, and rows and columns of each level."""
        preds = preds[1] if isinstance(preds, tuple) else preds
        if isinstance(preds, Mapping):
            boxes, scores, feats = preds["boxes"], preds["scores"], preds["feats"]
        else:
            feats = preds
            joined = torch.cat([level.flatten(2) for level in preds], dim=2)
            boxes, scores = joined.split((SIDES * self.bins, self.classes), dim=1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        return boxes.to(wide), scores.to(wide), [(level.shape[2], level.shape[3]) for level in feats]

    def anchors(self, grids: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Points in cells (A, 2), and strides (A,)."""
        points, strides = [], []
        for (rows, columns), stride in zip(grids, self.stride.tolist(), strict=True):
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            points.append(torch.stack((x, y), dim=-1).reshape(-1, 2))
            strides.append(torch.full((rows * columns,), stride))
        return torch.cat(points).to(device), torch.cat(strides).to(device)

    def assign(
        self, probability: Tensor, predicted: Tensor, point: Tensor, label: Tensor, corners: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The number of each anchor's target in its image (B, A), -1 without one, and the score of the anchor."""
        small = self.stride[min(1, len(self.stride) - 1)]
        low, high = corners.chunk(2, dim=2)
        centre, half = (low + high) / 2, torch.where(high - low < small, small, high - low) / 2
        inside = (
            torch.minimum(point - (centre - half)[:, :, None], (centre + half)[:, :, None] - point).amin(3) > INSIDE
        )
        candidate = inside & valid[:, :, None]  # (B, G, A)
        if not candidate.shape[1]:
            return candidate.new_full((len(corners), len(point)), -1, dtype=torch.int64), point.new_zeros(
                len(corners), len(point)
            )
        overlap = plain_ciou(corners[:, :, None], predicted[:, None]).clamp(min=0).masked_fill(~candidate, 0)
        score = probability.gather(1, label[:, :, None].expand(-1, -1, len(point)))
        metric = score**0.5 * overlap**6
        chosen = self.best(metric, self.k) & candidate
        winner = overlap.masked_fill(~candidate, -1).argmax(1)
        owner = torch.where(chosen.sum(1) > 1, winner, chosen.int().argmax(1))
        owner = torch.where(chosen.any(1), owner, -1)
        own = owner[:, None] == torch.arange(corners.shape[1], device=owner.device)[:, None]
        if self.k2 is not None:
            own &= self.best(metric.masked_fill(~own, 0), self.k2)
            owner = torch.where(own.any(1), owner, -1)
        metric, overlap = metric.masked_fill(~own, 0), overlap.masked_fill(~own, 0)
        t = metric * overlap.amax(2, keepdim=True) / (metric.amax(2, keepdim=True) + 1e-9)
        return owner, t.amax(1)

    def best(self, metric: Tensor, k: int) -> Tensor:
        """The k largest of each row."""
        at = metric.topk(min(k, metric.shape[2]), dim=2).indices
        return torch.zeros_like(metric, dtype=torch.bool).scatter_(2, at, True)

    def third(
        self, logits: Tensor, distance: Tensor, box: Tensor, point: Tensor, stride: Tensor, size: Tensor
    ) -> Tensor:
        """DFL of each row, or L1 if there is one bin."""
        near, far = box.chunk(2, dim=1)
        wanted = torch.cat((point - near, far - point), dim=1)
        if self.bins == 1:
            return ((distance - wanted).abs() * stride[:, None] / size.repeat(2)).mean(1)
        wanted = wanted.clamp(0, self.bins - 1 - 0.01)
        lower = wanted.long()
        part = wanted - lower
        shares = -logits.log_softmax(2)
        of_lower, of_upper = (shares.gather(2, at[..., None]).squeeze(2) for at in (lower, lower + 1))
        return (of_lower * (1 - part) + of_upper * part).mean(1)


def padded(batch: Mapping[str, Tensor], images: int, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class (B, G), corners in pixels (B, G, 4) and which are targets (B, G)."""
    image = batch["batch_idx"].reshape(-1).long()
    cls, boxes = batch["cls"].reshape(-1).long(), batch["bboxes"].reshape(-1, SIDES).float()
    counts = [int((image == i).sum()) for i in range(images)]
    label = cls.new_zeros(images, max(counts, default=0))
    corners = boxes.new_zeros(*label.shape, SIDES)
    valid = torch.zeros_like(label, dtype=torch.bool)
    for i, count in enumerate(counts):
        x, y, w, h = (boxes[image == i] * size.repeat(2)).unbind(1)
        label[i, :count], valid[i, :count] = cls[image == i], True
        corners[i, :count] = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1)
    return label, corners, valid
