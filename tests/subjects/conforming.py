"""Conforming losses: each differs from the bundled one in a way that SPEC leaves open, so no law may accuse it."""

import math
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from tests.subjects import plain
from yololoss.v5 import boxes
from yololoss.v5.assign import LayerAssignment
from yololoss.v5.boxes import EPS
from yololoss.v5.loss import ComputeLoss


class BCE(torch.autograd.Function):
    """Elementwise BCE with a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, weight: float) -> Tensor:
        ctx.save_for_backward(x, t)
        ctx.weight = weight
        return weight * t * softplus(-x) + (1 - t) * softplus(x)

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> Any:
        x, t = ctx.saved_tensors
        return ((1 - t) * x.sigmoid() - ctx.weight * t * (-x).sigmoid()) * by_loss, None, None


class Float64Inside(ComputeLoss):
    """Computes everything but the assignment in float64."""

    def terms(self, p: Any, targets: Tensor) -> Any:
        return super().terms([x.double() for x in p], targets)


class OneHotByScatter(ComputeLoss):
    """Writes class targets by scatter."""

    def _class_targets(self, cls: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.full((len(cls), self.nc), self.cn, dtype=dtype).scatter_(1, cls[:, None], self.cp)


class OneHotByEye(ComputeLoss):
    """Takes class targets from the rows of a smoothed unit matrix."""

    def _class_targets(self, cls: Tensor, dtype: torch.dtype) -> Tensor:
        return (torch.eye(self.nc, dtype=dtype) * (self.cp - self.cn) + self.cn)[cls]


class ObjectnessByLoop(ComputeLoss):
    """Writes objectness targets one by one."""

    def _place(self, values: Tensor, rows: LayerAssignment, objectness: Tensor) -> Tensor:
        grid = torch.zeros_like(objectness)
        for n in values.argsort() if self.sort_obj_iou else range(len(values)):
            grid.index_put_(tuple(index[n] for index in rows.indices), values[n])
        return grid


class Pieces(ComputeLoss):
    """The bundled loss in pieces, each of which a variant can replace."""

    decode, angle = staticmethod(boxes.decode), staticmethod(boxes.aspect_angle)

    def terms(self, p: Any, targets: Tensor) -> Any:
        box, objectness, cls = zip(*self.layers(p, self.assign(p, targets)), strict=True)
        weighted = [o * b for o, b in zip(objectness, self.balance, strict=False)]
        if self.autobalance:
            self._rebalance([o.item() for o in objectness])
        return tuple(map(self.add, (box, weighted, cls)))

    def layers(self, p: Any, assigned: list[LayerAssignment]) -> Iterable[Any]:
        return map(self._layer_terms, p, assigned)

    def add(self, layers: Any) -> Tensor:
        return torch.stack(tuple(layers)).sum()

    def average(self, values: Tensor) -> Tensor:
        return values.mean()

    def numbers(self, logits: Tensor) -> Tensor:
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        return boxes.ciou(self.decode(logits, anchors), target, angle1=self.angle(logits, anchors))

    def elements(self, x: Tensor, t: Tensor, weight: float) -> Tensor:
        return binary_cross_entropy_with_logits(x, t, pos_weight=x.new_tensor([weight]), reduction="none")

    def power(self, base: Tensor, gamma: float) -> Tensor:
        return torch.where(base > torch.finfo(base.dtype).tiny, base, 0).clamp(min=1e-30) ** gamma

    def criterion(self, x: Tensor, t: Tensor, name: str) -> Tensor:
        loss, gamma = self.elements(x, t, self.hyp[name]), self.hyp["fl_gamma"]
        if gamma > 0:
            miss = 1 - (t * x.sigmoid() + (1 - t) * (1 - x.sigmoid()))
            loss = loss * (0.25 * t + 0.75 * (1 - t)) * self.power(miss, gamma)
        return self.average(loss)

    def target(self, values: Tensor, rows: LayerAssignment, logits: Tensor) -> Tensor:
        return self._place(values, rows, self.numbers(logits))

    def _layer_terms(self, logits: Tensor, rows: LayerAssignment) -> Any:
        x, mine = self.numbers(logits[..., 4]), self.numbers(logits[rows.indices])
        if not len(mine):
            return x.new_zeros(()), self.criterion(x, torch.zeros_like(x), "obj_pw"), x.new_zeros(())
        overlap = self.overlap(mine[:, :4], rows.anchor_wh, rows.box)
        wanted = self.target(1 - self.gr + self.gr * overlap.detach().relu(), rows, logits[..., 4])
        truth = self._class_targets(rows.cls, mine.dtype)
        cls = self.criterion(mine[:, 5:], truth, "cls_pw") if self.nc > 1 else x.new_zeros(())
        return self.average(1 - overlap), self.criterion(x, wanted, "obj_pw"), cls


class LayersLastToFirst(Pieces):
    """Works through the layers and adds them up last to first, and the terms too."""

    def layers(self, p: Any, assigned: list[LayerAssignment]) -> Iterable[Any]:
        return list(map(self._layer_terms, p[::-1], assigned[::-1]))[::-1]

    def add(self, layers: Any) -> Tensor:
        return sum(reversed(layers))

    def __call__(self, p: Any, targets: Tensor) -> Any:
        terms = self.terms(p, targets)
        items = [t * self.hyp[name] for t, name in zip(terms, ("box", "obj", "cls"), strict=True)]
        total = sum(len(p[0]) * item for item in items[::-1])
        return total.float().reshape(1), torch.stack(items).detach().float()


class LayersInThreads(Pieces):
    """Works on all layers at the same time."""

    def layers(self, p: Any, assigned: list[LayerAssignment]) -> Iterable[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self._layer_terms, p, assigned))


class TargetsInPredictionsDtype(Pieces):
    """Casts objectness targets to the dtype of the predictions, as upstream does."""

    def target(self, values: Tensor, rows: LayerAssignment, logits: Tensor) -> Tensor:
        return self._place(values.to(logits.dtype), rows, logits).to(values.dtype)


class HalfParts(TargetsInPredictionsDtype):
    """Computes sigmoids and BCE in the dtype of the predictions, boxes in float32, as upstream does."""

    def add(self, layers: Any) -> Tensor:
        return super().add(term.float() for term in layers)

    def numbers(self, logits: Tensor) -> Tensor:
        return logits

    def angle(self, logits: Tensor, anchors: Tensor) -> Tensor:
        return boxes.aspect_angle(super().numbers(logits), anchors)

    def target(self, values: Tensor, rows: LayerAssignment, logits: Tensor) -> Tensor:
        return self._place(values.to(logits.dtype), rows, logits)


class MeanBySum(Pieces):
    """Takes means as sums, of a dot product, over lengths."""

    def average(self, values: Tensor) -> Tensor:
        return torch.dot(values.flatten(), torch.ones_like(values).flatten()) / values.numel()


class RowByRow(Pieces):
    """Compares boxes row by row."""

    def overlap(self, *columns: Tensor) -> Tensor:
        return torch.cat([super(RowByRow, self).overlap(*(c[None] for c in row)) for row in zip(*columns, strict=True)])


class Vmapped(Pieces):
    """Compares boxes by vmap over rows, and adds up by einsum."""

    def overlap(self, *columns: Tensor) -> Tensor:
        return torch.vmap(lambda *row: super(Vmapped, self).overlap(*(c[None] for c in row))[0])(*columns)

    def average(self, values: Tensor) -> Tensor:
        return torch.einsum("n->", values.flatten()) / values.numel()


class Corners(Pieces):
    """Compares boxes by their corners."""

    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        pair = self.decode(logits, anchors), target
        corners = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), dim=1) for b in pair]
        return boxes.ciou(*corners, corners=True, angle1=self.angle(logits, anchors))


class ByDistances(Pieces):
    """Compares boxes by distances of centres in place of edges, in float32."""

    overlap = staticmethod(plain.overlap)


class OneSidedTies(Pieces):
    """At ties of edges takes the target's side, where the bundled loss takes half of each; alpha without floor."""

    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        box = self.decode(logits, anchors)
        (low, high), (start, end) = ((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2) for b in (box, target))
        inner = torch.where(high < end, high, end) - torch.where(low > start, low, start)
        outer = torch.where(high > end, high, end) - torch.where(low < start, low, start)
        inter = inner.relu().prod(1)
        iou = inter / (box[:, 2:].prod(1) + target[:, 2:].prod(1) - inter + EPS)
        v = 4 / math.pi**2 * (torch.atan(target[:, 2] / target[:, 3]) - self.angle(logits, anchors)) ** 2
        rho = (box[:, :2] - target[:, :2]).square().sum(1) / (outer.square().sum(1) + EPS)
        return iou - (rho + (v / (1 - iou + v + EPS)).detach() * v)


class OwnBackward(Pieces):
    """Has a backward pass of its own for BCE."""

    elements = staticmethod(BCE.apply)


class BCEByLogsigmoid(Pieces):
    """Composes BCE of two logarithms of sigmoids."""

    def elements(self, x: Tensor, t: Tensor, weight: float) -> Tensor:
        return -(weight * t * logsigmoid(x) + (1 - t) * logsigmoid(-x))


def _composed(x: Tensor, t: Tensor, weight: float) -> Tensor:
    return weight * t * softplus(-x) + (1 - t) * softplus(x)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch says that scripts are old
    _scripted = torch.jit.script(_composed)


class Scripted(Pieces):
    """Has its BCE in TorchScript, which makes other code of it once it has seen what it is called with."""

    def elements(self, x: Tensor, t: Tensor, weight: float) -> Tensor:
        return _scripted(x, t, float(weight))


class PowerByExp(Pieces):
    """Composes BCE of softplus, and takes the focal power by exp and log."""

    def elements(self, x: Tensor, t: Tensor, weight: float) -> Tensor:
        return t * (softplus(-x) * weight) + softplus(x) - t * softplus(x)

    def power(self, base: Tensor, gamma: float) -> Tensor:
        return torch.exp(gamma * base.clamp(min=torch.finfo(base.dtype).tiny).log())


class DecodeByTanh(Pieces):
    """Decodes by tanh, and takes the angle by another identity: atan(e^u) = pi/4 + atan(tanh(u/2))."""

    def decode(self, logits: Tensor, anchors: Tensor) -> Tensor:
        doubled = 1 + torch.tanh(logits / 2)
        return torch.cat((doubled[:, :2] - 0.5, doubled[:, 2:] ** 2 * anchors), dim=1)

    def angle(self, logits: Tensor, anchors: Tensor) -> Tensor:
        u = (anchors[:, 0] / anchors[:, 1]).log() + 2 * (logsigmoid(logits[:, 2]) - logsigmoid(logits[:, 3]))
        return math.pi / 4 + torch.atan(torch.tanh(u / 2))


class DecodeByExp(Pieces):
    """Decodes by exponentials, and takes the angle by atan2 of e^(u/2) and e^(-u/2)."""

    def decode(self, logits: Tensor, anchors: Tensor) -> Tensor:
        centre = 2 / (1 + torch.exp(-logits[:, :2].clamp(-80, 80))) - 0.5
        return torch.cat((centre, torch.exp((4 * anchors).log() + 2 * logsigmoid(logits[:, 2:]))), dim=1)

    def angle(self, logits: Tensor, anchors: Tensor) -> Tensor:
        size = anchors.log() + 2 * logsigmoid(logits[:, 2:])
        u = (size[:, 0] - size[:, 1]).clamp(-30, 30)
        return torch.atan2(torch.exp(u / 2), torch.exp(-u / 2))


class AngleByQuotient(Pieces):
    """Takes the angle as atan of a quotient where both sides are large enough for one."""

    def angle(self, logits: Tensor, anchors: Tensor) -> Tensor:
        w, h = self.decode(logits, anchors)[:, 2:].unbind(1)
        large = (w > 1e-6) & (h > 1e-6)
        quotient = torch.where(large, w, 1) / torch.where(large, h, 1)
        return torch.where(large, torch.atan(quotient), super().angle(logits, anchors))


class DenseDecode(Pieces):
    """Puts every cell's logits through log-sigmoid before it takes those of the rows."""

    def _layer_terms(self, logits: Tensor, rows: LayerAssignment) -> Any:
        x = self.numbers(logits)
        return super()._layer_terms(logsigmoid(x) - logsigmoid(-x), rows)


class NoFloor(plain.PlainLoss):
    """Autobalance divides by the loss as it is, which in float64 and without cancellation is never 0."""

    def rebalance(self, losses: list[float]) -> None:
        moved = [b * 0.9999 + 0.0001 / max(x, 1e-20) for b, x in zip(self.balance, losses, strict=False)]
        self.balance = [b / moved[self.strides.index(16)] for b in moved]
