"""The task-aligned loss again, from its specification alone, as such losses are usually written.

Targets are padded to one table an image, every pair of a target and an anchor is in dense masks, scores are one-hot,
and all gradients are autograd's. It shares no code with the bundled loss, nor with the reference.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

ALPHA, BETA, EPS = 0.5, 6.0, 1e-9
SIDES = 4


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """SPEC section 4, of corners (*n, 4)."""
    eps = 1e-7
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.unbind(-1), b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    across = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    down = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    inter = across * down
    iou = inter / (aw * ah + bw * bh - inter + eps)
    width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    apart = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = 4 / math.pi**2 * (torch.atan2(bw, bh) - torch.atan2(aw, ah)) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps)).clamp(min=eps)
    return iou - (apart / (width**2 + height**2 + eps) + alpha * v)


class PlainAligned:
    """Built as ``PlainAligned(model)``, called as ``loss(preds, batch)``."""

    def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        head = model.model[-1]
        self.hyp, self.stride, self.nc, self.reg_max = model.args, head.stride, head.nc, head.reg_max
        self.topk, self.topk2 = tal_topk, tal_topk2
        self.class_weights = getattr(model, "class_weights", None)

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        """Total (3,), and items as a dict."""
        items = self.items(preds, batch)
        third = "dfl_loss" if self.reg_max > 1 else "l1_loss"
        images = self.split(preds)[1].shape[0]
        return items * images, dict(zip(("box_loss", "cls_loss", third), items.detach(), strict=True))

    def split(self, preds: Any) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Side logits (B, 4, R, A), class logits (B, C, A), and the grids."""
        if isinstance(preds, tuple):  # (inference output, preds), which a model returns in eval mode
            preds = preds[1]
        if isinstance(preds, Mapping):
            boxes, scores = preds["boxes"], preds["scores"]
            grids = [tuple(x.shape[-2:]) for x in preds["feats"]]
        else:
            whole = torch.cat([x.flatten(2) for x in preds], dim=2)
            boxes, scores = whole[:, : SIDES * self.reg_max], whole[:, SIDES * self.reg_max :]
            grids = [tuple(x.shape[-2:]) for x in preds]
        wide = torch.promote_types(boxes.dtype, torch.float32)
        sides = boxes.to(wide).reshape(len(boxes), SIDES, self.reg_max, -1)
        return sides, scores.to(wide), grids  # type: ignore[return-value]

    def anchors(self, grids: list[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
        """Points in cells (A, 2), and strides (A, 1)."""
        points, strides = [], []
        for (rows, columns), stride in zip(grids, self.stride.tolist(), strict=True):
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            points.append(torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5)
            strides.append(torch.full((rows * columns, 1), stride))
        return torch.cat(points).to(like.device), torch.cat(strides).to(like.device)

    def table(self, batch: Mapping[str, Tensor], images: int, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classes (B, G), corners in pixels (B, G, 4), and which rows are there (B, G)."""
        image = batch["batch_idx"].reshape(-1).to(size.device).long()
        box = batch["bboxes"].to(size.device).float().reshape(-1, 4) * size.repeat(2)
        rows = torch.cat((batch["cls"].to(size.device).float().reshape(-1, 1), box), dim=1)
        most = int(torch.bincount(image, minlength=images).max()) if len(image) else 0
        table = torch.zeros(images, most, 5, device=size.device)
        for i in range(images):
            own = rows[image == i]
            table[i, : len(own)] = own
        x, y, w, h = table[..., 1:].unbind(-1)
        corners = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=-1)
        return table[..., 0].long(), corners, corners.sum(-1) > 0

    def candidates(self, corners: Tensor, there: Tensor, pixels: Tensor) -> Tensor:
        """Which anchors lie inside which box, (B, G, A); small sides are enlarged."""
        least = float(self.stride[min(1, len(self.stride) - 1)])
        low, high = corners[..., :2], corners[..., 2:]
        side = high - low
        half = torch.where(side < least, least, side) / 2
        middle = (low + high) / 2
        inside = torch.cat((pixels - (middle - half)[:, :, None], (middle + half)[:, :, None] - pixels), dim=-1)
        return (inside.amin(-1) > EPS) & there[..., None]

    def assign(self, scores: Tensor, predicted: Tensor, target: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The target of each anchor (B, A), and its score (B, A), 0 without a target."""
        classes, corners, there = target
        candidate = self.candidates(corners, there, pixels)
        overlap = torch.where(candidate, ciou(corners[:, :, None], predicted[:, None]).clamp(min=0), 0)
        probability = scores.sigmoid().gather(1, classes[..., None].expand(-1, -1, scores.shape[2]))
        metric = torch.where(candidate, probability**ALPHA * overlap**BETA, 0)
        taken = self.best(metric, self.topk) & candidate
        if taken.shape[1] > 1:
            winner = one_hot(overlap.argmax(dim=1), taken.shape[1]).movedim(-1, 1).bool()
            taken = torch.where((taken.sum(1) > 1)[:, None], winner, taken)
        if self.topk2 is not None and self.topk2 != self.topk:
            taken = taken & self.best(torch.where(taken, metric, 0), self.topk2)
        metric, overlap = torch.where(taken, metric, 0), torch.where(taken, overlap, 0)
        score = metric * overlap.amax(2, keepdim=True) / (metric.amax(2, keepdim=True) + EPS)
        return taken.int().argmax(1), score.amax(1)

    def best(self, metric: Tensor, k: int) -> Tensor:
        """The k largest of each row."""
        at = metric.topk(min(k, metric.shape[2]), dim=2).indices
        return torch.zeros_like(metric, dtype=torch.bool).scatter_(2, at, True)

    def items(self, preds: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The three terms times their gains, (3,)."""
        sides, scores, grids = self.split(preds)
        points, strides = self.anchors(grids, scores)
        height, width = (n * float(self.stride[0]) for n in grids[0])
        target = self.table(batch, len(scores), torch.tensor((width, height), device=scores.device))
        distance = self.distances(sides)
        cells = torch.cat((points - distance[..., :2], points + distance[..., 2:]), dim=-1)
        label, score = torch.zeros_like(scores[:, 0], dtype=torch.long), torch.zeros_like(scores[:, 0])
        row = label
        if target[0].shape[1]:
            with torch.no_grad():
                row, score = self.assign(scores, (cells * strides).float(), target, points * strides)
            label = target[0].gather(1, row)
        wanted = one_hot(label, self.nc).movedim(-1, 1) * score[:, None]
        bce = binary_cross_entropy_with_logits(scores, wanted.to(scores.dtype), reduction="none")
        if self.class_weights is not None:
            bce = bce * self.class_weights[:, None]
        front = score > 0
        box, third = self.of_foreground(front, row, (sides, distance, cells), target, (points, strides, width, height))
        divisor = score.sum().clamp(min=1)
        terms = ((1 - box) * score[front]).sum(), bce.sum(), (third * score[front]).sum()
        gains = self.hyp.box, self.hyp.cls, self.hyp.dfl
        return torch.stack([gain * term / divisor for gain, term in zip(gains, terms, strict=True)]).float()

    def distances(self, sides: Tensor) -> Tensor:
        """The predicted distances in cells, (B, A, 4)."""
        if self.reg_max == 1:
            return sides[:, :, 0].movedim(1, 2)
        bins = torch.arange(self.reg_max, device=sides.device, dtype=sides.dtype)
        return (sides.softmax(2) * bins[:, None]).sum(2).movedim(1, 2)

    def of_foreground(self, front: Tensor, row: Tensor, made: Any, target: Any, at: Any) -> tuple[Tensor, Tensor]:
        """CIoU and third term of each anchor that has a score, (n,)."""
        sides, distance, cells = made
        points, strides, width, height = at
        image, anchor = front.nonzero(as_tuple=True)
        if not len(image):
            return sides.sum() * 0 + sides.new_zeros(0), sides.new_zeros(0)
        box = target[1][image, row[front]] / strides[anchor]
        point = points[anchor]
        wanted = torch.cat((point - box[:, :2], box[:, 2:] - point), dim=1)
        if self.reg_max == 1:
            apart = (distance[front] - wanted).abs() * strides[anchor]
            third = (apart / torch.tensor((width, height), device=apart.device).repeat(2)).mean(1)
            return ciou(cells[front], box), third
        wanted = wanted.clamp(0, self.reg_max - 1 - 0.01)
        low = wanted.long()
        share = sides.movedim(3, 1)[front].log_softmax(-1)
        left = share.gather(2, low[..., None])[..., 0]
        right = share.gather(2, low[..., None] + 1)[..., 0]
        return ciou(cells[front], box), -((low + 1 - wanted) * left + (wanted - low) * right).mean(1)
