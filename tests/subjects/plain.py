"""A second, deliberately different loss: assignment by loops, arithmetic in float64, other but equal formulas.

It conforms to SPEC, so every law must hold on it. It shares nothing with the bundled loss.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

F32 = np.float32
HALF = F32(0.5)
SHIFTS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


def near(value: np.float32) -> bool:
    """Whether a distance from an edge is in the half cell nearer to it, and the neighbour there exists."""
    return bool(value - np.floor(value) < HALF and value > 1)


def rows_of_layer(targets: Tensor, anchors: Tensor, grid: tuple[int, int], limit: float) -> list[tuple[Any, ...]]:
    """(image, anchor, row, column, class, box) of every row, by choice, anchor, target."""
    height, width = grid
    found: list[tuple[Any, ...]] = []
    for choice, (right, down) in enumerate(SHIFTS):
        for a, (aw, ah) in enumerate(anchors.cpu().numpy().astype(F32)):
            for image, cls, *fractions in targets.detach().float().cpu().numpy():
                x, y, w, h = (F32(f) * F32(n) for f, n in zip(fractions, (width, height, width, height), strict=True))
                sides = (w / aw, F32(1) / (w / aw), h / ah, F32(1) / (h / ah))
                if max(sides) >= F32(limit):
                    continue
                taken = (True, near(x), near(y), near(F32(width) - x), near(F32(height) - y))
                if not taken[choice]:
                    continue
                column = min(max(int(x - F32(right)), 0), width - 1)
                row = min(max(int(y - F32(down)), 0), height - 1)
                found.append((int(image), a, row, column, int(cls), (x - F32(column), y - F32(row), w, h)))
    return found


def overlap(logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
    """CIoU from logits (n, 4), float64, by distances in place of edges."""
    centre = 2 * logits[:, :2].sigmoid() - 0.5
    size = 4 * logits[:, 2:].sigmoid().square() * anchors
    apart = (centre - target[:, :2]).abs()
    mean = (size + target[:, 2:]) / 2
    shared = torch.minimum(torch.minimum(size, target[:, 2:]), mean - apart).clamp(min=0)
    hull = torch.maximum(torch.maximum(size, target[:, 2:]), mean + apart)
    inter = shared[:, 0] * shared[:, 1]
    union = size[:, 0] * size[:, 1] + target[:, 2] * target[:, 3] - inter + 1e-7
    iou = inter / union
    # atan2 of the square roots' ratio survives where the sides themselves underflow
    turn = torch.atan2(target[:, 2], target[:, 3]) - angle(logits, anchors)
    v = 4 / math.pi**2 * turn**2
    alpha = (v / (1 - iou + v + 1e-7).clamp(min=1e-7)).detach()
    return iou - apart.square().sum(1) / (hull.square().sum(1) + 1e-7) - alpha * v


def angle(logits: Tensor, anchors: Tensor) -> Tensor:
    """atan(w / h) of the decoded boxes: w / h is e^2d aw / ah, d the difference of softplus(-logit)."""
    difference = softplus(-logits[:, 3]) - softplus(-logits[:, 2])
    return torch.atan(torch.exp((2 * difference + torch.log(anchors[:, 0] / anchors[:, 1])).clamp(-60, 60)))


def criterion(x: Tensor, t: Tensor, weight: float, gamma: float) -> Tensor:
    """Mean BCE or focal loss, from softplus."""
    loss = weight * t * softplus(-x) + (1 - t) * softplus(x)
    if gamma > 0:
        miss = t * (-x).sigmoid() + (1 - t) * x.sigmoid()
        loss = loss * (0.75 - 0.5 * t) * torch.exp(gamma * miss.clamp(min=1e-300).log())
    return loss.mean()


class PlainLoss:
    """The loss in upstream's class form."""

    sort_obj_iou = False

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        self.hyp = model.hyp
        head = getattr(model, "module", model).model[-1]
        self.anchors, self.strides, self.nc = head.anchors, head.stride.tolist(), head.nc
        self.gr, self.autobalance = 1.0, autobalance
        self.balance = [4.0, 1.0, 0.4] if len(self.anchors) == 3 else [4.0, 1.0, 0.25, 0.06, 0.02]

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        """Upstream's four lists; indices in int32, lists as tuples."""
        out: tuple[list[Any], ...] = ([], [], [], [])
        for layer, anchors in zip(p, self.anchors, strict=True):
            rows = rows_of_layer(targets, anchors, (layer.shape[2], layer.shape[3]), self.hyp["anchor_t"])
            columns = [torch.tensor([r[k] for r in rows], dtype=torch.int32, device=layer.device) for k in range(5)]
            image, anchor, row, column, cls = columns
            out[0].append(cls)
            boxes = np.array([r[5] for r in rows], dtype=F32).reshape(-1, 4)
            out[1].append(torch.tensor(boxes, device=layer.device))
            out[2].append((image, anchor, row, column))
            out[3].append(anchors[anchor.long()])
        return out

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Total of shape () and items."""
        items = self.terms(p, targets)
        return (items.sum() * len(p[0])).float(), items.detach().float()

    def terms(self, p: list[Tensor], targets: Tensor) -> Tensor:
        """Box, objectness and class terms times gain, (3,) float64, with gradient."""
        hyp = self.hyp
        box = objectness = cls = torch.zeros((), dtype=torch.float64, device=p[0].device)
        losses = []
        for i, (layer, numbers, target, at, anchors) in enumerate(zip(p, *self.build_targets(p, targets), strict=True)):
            logits = layer.double()
            wanted = logits.new_zeros(logits.shape[:4])
            if len(numbers):
                mine = logits[tuple(index.long() for index in at)]
                ciou = overlap(mine[:, :4], anchors.double(), target.double())
                box = box + 1 - ciou.mean()
                self.fill(wanted, at, ciou.detach())
                if self.nc > 1:
                    half = hyp.get("label_smoothing", 0.0) / 2
                    truth = torch.full_like(mine[:, 5:], half)
                    truth[torch.arange(len(numbers), device=layer.device), numbers.long()] = 1 - half
                    cls = cls + criterion(mine[:, 5:], truth, hyp["cls_pw"], hyp["fl_gamma"])
            losses.append(criterion(logits[..., 4], wanted, hyp["obj_pw"], hyp["fl_gamma"]))
            objectness = objectness + losses[-1] * self.balance[i]
        if self.autobalance:
            self.rebalance([float(x.detach()) for x in losses])
        return torch.stack((hyp["box"] * box, hyp["obj"] * objectness, hyp["cls"] * cls))

    def fill(self, wanted: Tensor, at: tuple[Tensor, ...], ciou: Tensor) -> None:
        """Write the objectness targets one by one, the last (or largest) staying."""
        values = ((1 - self.gr) + self.gr * ciou.clamp(min=0)).tolist()
        order = range(len(values))
        cells = list(zip(*(index.tolist() for index in at), strict=True))
        for n in sorted(order, key=values.__getitem__) if self.sort_obj_iou else order:
            wanted[cells[n]] = values[n]

    def rebalance(self, losses: list[float]) -> None:
        """Autobalance after a call."""
        moved = [b * 0.9999 + 0.0001 / max(x, 1e-6) for b, x in zip(self.balance, losses, strict=False)]
        table = moved + self.balance[len(moved) :]
        self.balance = [b / table[self.strides.index(16)] for b in table]
