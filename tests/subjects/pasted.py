"""Overlaps that people paste into a fork, each by the formula of its paper (DIALECTS), in float32.

``tests.subjects.pasted:NAME`` is upstream's loss with that overlap. ``WeightedClasses`` keeps
upstream's overlap.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from properties.v5.dialects import UPSTREAM, Dialect

from .chosen import Chosen

EPS = 1e-7


class Boxes(NamedTuple):
    """Predicted boxes and targets, by corners (n, 2) each, and what the formulas share."""

    low1: Tensor
    high1: Tensor
    low2: Tensor
    high2: Tensor

    @property
    def side1(self) -> Tensor:
        return self.high1 - self.low1

    @property
    def side2(self) -> Tensor:
        return self.high2 - self.low2

    @property
    def apart(self) -> Tensor:
        """From centre to centre."""
        return (self.low2 + self.high2 - self.low1 - self.high1) / 2

    @property
    def hull(self) -> Tensor:
        return torch.max(self.high1, self.high2) - torch.min(self.low1, self.low2)

    def iou(self, shrunk: float = 1.0) -> Tensor:
        """Of both boxes shrunk about their centres."""
        low1, high1 = _about(self.low1, self.high1, shrunk)
        low2, high2 = _about(self.low2, self.high2, shrunk)
        inter = (torch.min(high1, high2) - torch.max(low1, low2)).clamp(min=0).prod(1)
        return inter / ((high1 - low1).prod(1) + (high2 - low2).prod(1) - inter + EPS)

    def far(self) -> Tensor:
        """The squared distance of the centres, as a share of the squared diagonal of the enclosing box."""
        return self.apart.square().sum(1) / (self.hull.square().sum(1) + EPS)

    def aspect(self) -> tuple[Tensor, Tensor]:
        """CIoU's v, and its alpha, which has no gradient."""
        one, two = (torch.atan(side[:, 0] / (side[:, 1] + EPS)) for side in (self.side1, self.side2))
        v = 4 / math.pi**2 * (two - one) ** 2
        return v, (v / (1 - self.iou() + v + EPS)).detach()


def _about(low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor]:
    middle, half = (low + high) / 2, (high - low) / 2 * share
    return middle - half, middle + half


def ciou(boxes: Boxes) -> Tensor:
    v, alpha = boxes.aspect()
    return boxes.iou() - boxes.far() - alpha * v


def eiou(boxes: Boxes) -> Tensor:
    wrong = (boxes.side1 - boxes.side2).square() / (boxes.hull.square() + EPS)
    return boxes.iou() - boxes.far() - wrong.sum(1)


def alpha_iou(boxes: Boxes) -> Tensor:
    v, alpha = boxes.aspect()
    return (boxes.iou() + EPS) ** 3 - (boxes.far() + EPS) ** 3 - (alpha * v + EPS) ** 3


def siou(boxes: Boxes) -> Tensor:
    s = boxes.apart
    length = (s.square().sum(1) + EPS**2).sqrt()
    sines = s.abs() / length[:, None]
    sine = torch.where(sines[:, 0] > 0.5**0.5, sines[:, 1], sines[:, 0])
    angle = torch.cos(2 * torch.asin(sine.clamp(max=1 - EPS)) - math.pi / 2)
    distance = (1 - torch.exp(-(2 - angle)[:, None] * (s / (boxes.hull + EPS)).square())).sum(1)
    unlike = (boxes.side1 - boxes.side2).abs() / (torch.max(boxes.side1, boxes.side2) + EPS)
    return boxes.iou() - (distance + ((1 - torch.exp(-unlike)) ** 4).sum(1)) / 2


def mpdiou(boxes: Boxes) -> Tensor:
    corners = (boxes.low1 - boxes.low2).square().sum(1) + (boxes.high1 - boxes.high2).square().sum(1)
    return boxes.iou() - corners / 200.0  # the grid of which this fork's author thought


def inner_iou(boxes: Boxes) -> Tensor:
    return boxes.iou(0.75) - boxes.far()


def nwd(boxes: Boxes) -> Tensor:
    squares = boxes.apart.square().sum(1) + ((boxes.side1 - boxes.side2) / 2).square().sum(1)
    return 0.5 * ciou(boxes) + 0.5 * torch.exp(-(squares + EPS).sqrt() / 2.0)


class Pasted(Chosen):
    """A loss with another overlap."""

    dialect: Dialect = UPSTREAM
    measure: Callable[[Boxes], Tensor]
    boxes: Boxes

    @override
    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        x, a, t = logits.float(), anchors.float(), target.float()
        centre, side = 2 * x[:, :2].sigmoid() - 0.5, 4 * x[:, 2:].sigmoid() ** 2 * a
        self.boxes = Boxes(centre - side / 2, centre + side / 2, t[:, :2] - t[:, 2:] / 2, t[:, :2] + t[:, 2:] / 2)
        return type(self).measure(self.boxes).double()

    @override
    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        result = super().__call__(p, targets)
        vars(self).pop("boxes", None)
        return result


class WiseIoU(Pasted):
    """Version 1: far boxes count more."""

    measure = Boxes.iou

    @override
    def row_loss(self, overlap: Tensor) -> Tensor:
        return torch.exp(self.boxes.far().detach()) * (1 - overlap)


class FocalEIoU(Pasted):
    """Boxes that overlap count more."""

    measure = staticmethod(eiou)

    @override
    def row_loss(self, overlap: Tensor) -> Tensor:
        return self.boxes.iou().detach().clamp(min=EPS) ** 0.5 * (1 - overlap)


class WeightedClasses(Chosen):
    """A weight for each class."""

    dialect = Dialect(class_weights=(0.5, 2.0, 1.25))


class MovedInVain(Pasted):
    """An overlap that nobody has named; a part of each row's loss is built where no gradient is recorded."""

    @staticmethod
    def measure(boxes: Boxes) -> Tensor:
        """The overlap."""
        return boxes.iou() - 0.3 * boxes.far()

    @override
    def row_loss(self, overlap: Tensor) -> Tensor:
        with torch.no_grad():
            apart = self.boxes.apart.square().sum(1)
        return 1 - overlap + 0.2 * apart


class Repels(Chosen):
    """Rows of one layer repel each other: a term in the box item, which no row has alone."""

    dialect = Dialect(added_term="in the box item")

    def more(self, p: list[Tensor], targets: Tensor) -> Tensor:
        """The term without the batch size."""
        found = torch.zeros((), dtype=torch.float64)
        for layer, _, _, (image, anchor, row, column), _ in zip(p, *self.build_targets(p, targets), strict=True):
            centre = 2 * layer[image, anchor, row, column, :2].double().sigmoid() - 0.5
            centre = centre + torch.stack((column, row), dim=1)
            near = torch.exp(-(centre[:, None] - centre).square().sum(2)) * (image[:, None] == image)
            found = found + near.mean() if len(image) else found
        return 0.1 * self.hyp["box"] * found

    @override
    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        total, items = super().__call__(p, targets)
        more = self.more(p, targets)
        return (total + p[0].shape[0] * more).float(), self.with_it(items, more.detach().float())

    def with_it(self, items: Tensor, more: Tensor) -> Tensor:
        """The items with the term."""
        return items + torch.stack((more, more * 0, more * 0))


class RepelsBeside(Repels):
    """The same, in an item of its own."""

    dialect = Dialect(added_term="an item")

    @override
    def with_it(self, items: Tensor, more: Tensor) -> Tensor:
        return torch.cat((items, more.reshape(1)))


class RepelsInVain(Repels):
    """The term is built where no gradient is recorded. Nobody declares it."""

    dialect = UPSTREAM

    @override
    def more(self, p: list[Tensor], targets: Tensor) -> Tensor:
        return super().more(p, targets).detach()


def siou_by_division(boxes: Boxes) -> Tensor:
    """SIoU without an epsilon: its angle is 0 / 0 where two centres are the same."""
    sine = boxes.apart.abs().amin(1) / boxes.apart.square().sum(1).sqrt()
    angle = torch.cos(2 * torch.asin(sine) - math.pi / 2)
    distance = (1 - torch.exp(-(2 - angle)[:, None] * (boxes.apart / boxes.hull).square())).sum(1)
    unlike = (boxes.side1 - boxes.side2).abs() / torch.max(boxes.side1, boxes.side2)
    return boxes.iou() - (distance + ((1 - torch.exp(-unlike)) ** 4).sum(1)) / 2


class SIoUByDivision(Pasted):
    measure = siou_by_division


class FocalOfNegative(Pasted):
    """The power is that of EIoU, which is negative for boxes far apart."""

    measure = eiou

    @override
    def row_loss(self, overlap: Tensor) -> Tensor:
        return overlap.detach() ** 0.5 * (1 - overlap)


class HiddenNaN(Pasted):
    """CIoU without an epsilon, and its NaN replaced by 0."""

    @staticmethod
    def measure(boxes: Boxes) -> Tensor:
        """The overlap."""
        shared = (torch.min(boxes.high1, boxes.high2) - torch.max(boxes.low1, boxes.low2)).clamp(min=0).prod(1)
        iou = shared / (boxes.side1.prod(1) + boxes.side2.prod(1) - shared)
        one, two = (torch.atan(side[:, 0] / side[:, 1]) for side in (boxes.side1, boxes.side2))
        v = 4 / math.pi**2 * (two - one) ** 2
        return (iou - boxes.far() - (v / (1 - iou + v)).detach() * v).nan_to_num()


OVERLAPS: dict[str, Any] = {
    "EIoU": eiou,
    "AlphaIoU": alpha_iou,
    "SIoU": siou,
    "MPDIoU": mpdiou,
    "InnerIoU": inner_iou,
    "NWD": nwd,
}
for name, function in OVERLAPS.items():
    globals()[name] = type(name, (Pasted,), {"measure": staticmethod(function), "__module__": __name__})
NAMES = (*OVERLAPS, WiseIoU.__name__, FocalEIoU.__name__)
# How a dialect names each.
FORMULAS = {
    "EIoU": "eiou",
    "FocalEIoU": "focal-eiou",
    "AlphaIoU": "alpha-iou",
    "SIoU": "siou",
    "MPDIoU": "mpdiou, overlap_numbers = [200]",
    "InnerIoU": "inner-diou",
    "WiseIoU": "wise-iou",
    "NWD": "nwd, overlap_numbers = [2, 0.5]",
}
