"""A loss for every dialect: ``tests.subjects.chosen:NAME``, where NAME is `name_of` a dialect's text.

Vectorised, in float64 from the box logits on, in other formulas than the reference. Conforms to its dialect. `single`
is the name of the same with the overlap in float32, and where its form says so from edges, as in losses of that time.
It has their faults: in some forms 0 / 0 where boxes are equal.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from properties.v5.dialects import DIALECTS, Dialect
from yololoss.harness.subjects.dialect import read_dialect

from .plain import angle, criterion

SHIFTS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


def name_of(text: str) -> str:
    """The name in this module of the loss of a dialect."""
    return f"Of{text.encode().hex()}"


def single(text: str) -> str:
    """The name in this module of the loss of a dialect whose overlap is computed in float32."""
    return f"Single{name_of(text)}"


def __getattr__(name: str) -> type:
    kind, of, code = name.partition("Of")
    if not of or kind not in ("", "Single"):
        raise AttributeError(name)
    dialect = read_dialect(bytes.fromhex(code).decode(), DIALECTS, "upstream")
    return type(name, (Single if kind else Chosen,), {"dialect": dialect, "__module__": __name__})


class Chosen:
    """The loss in upstream's class form."""

    dialect: Dialect
    sort_obj_iou = False

    def __init__(self, model: nn.Module, autobalance: bool = False) -> None:
        head: Any = getattr(model, "module", model).model[-1]
        self.hyp, self.autobalance, self.gr = model.hyp, autobalance, 1.0
        self.anchors, self.nl, self.na, self.nc = head.anchors, head.nl, head.na, head.nc
        if self.dialect.only_classes not in (0, self.nc) or self.dialect.layers not in (0, self.nl):
            raise ValueError("other numbers of classes or layers")
        strides = [float(s) for s in head.stride]
        self.ssi = strides.index(16) if autobalance else 0
        self.balance = list(self.dialect.balance_of(self.nl))

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Tensor], list[Any], list[Any], list[Any]]:
        """Upstream's four lists."""
        found: tuple[list[Any], ...] = ([], [], [], [])
        for layer, anchors in zip(p, self.anchors, strict=True):
            for values, each in zip(found, self._layer(layer, targets, anchors), strict=True):
                values.append(each)
        return found  # type: ignore[return-value]

    def _layer(self, p: Tensor, targets: Tensor, anchors: Tensor) -> tuple[Any, ...]:
        targets = targets if self.dialect.target_dtype == "own" and targets.dtype == torch.float64 else targets.float()
        end = targets.new_tensor((p.shape[3], p.shape[2]))
        scaled = targets[:, 2:] * torch.cat((end, end))
        ratio = scaled[None, :, 2:] / anchors[:, None]
        pair_anchor, who = (torch.max(ratio, 1 / ratio).amax(2) < self.hyp["anchor_t"]).nonzero(as_tuple=True)
        xy = scaled[who, :2]
        near = (xy % 1 < 0.5) & (xy > 1)
        far = (xy % 1 > 0.5) & (xy < end - 1)
        if self.dialect.neighbours == "mirror":
            far = ((end - xy) % 1 < 0.5) & (end - xy > 1)
        choice, pair = torch.cat((torch.ones_like(near[:, :1]), near, far), dim=1).T.nonzero(as_tuple=True)
        if self.dialect.row_order == "anchor-choice-target":
            order = pair_anchor[pair].argsort(stable=True)
            choice, pair = choice[order], pair[order]
        anchor, who, xy = pair_anchor[pair], who[pair], xy[pair]
        cell = (xy - xy.new_tensor(SHIFTS)[choice]).trunc()
        inside = cell if self.dialect.cell == "none" else torch.minimum(cell.clamp(min=0), end - 1)
        moved = xy - (inside if self.dialect.cell == "clamp" else cell)
        column, row = inside.long().T
        image, cls = targets[who, :2].long().T
        return cls, torch.cat((moved, scaled[who, 2:]), 1), (image, anchor, row, column), anchors[anchor]

    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        """The overlap that the dialect takes, from logits (n, 4), float64, by corners."""
        d, eps = self.dialect, self.dialect.overlap_eps
        half = torch.cat((2 * logits[:, :2].sigmoid() - 0.5, 4 * logits[:, 2:].sigmoid() ** 2 * anchors), 1)
        taller = d.taller_in_area
        # corners relative to the target's centre: a side far smaller than its place keeps its digits
        apart = half[:, :2] - target[:, :2]
        w1, h1, w2, h2 = half[:, 2], half[:, 3], target[:, 2], target[:, 3]
        low = torch.maximum(apart - half[:, 2:] / 2, -target[:, 2:] / 2)
        high = torch.minimum(apart + half[:, 2:] / 2, target[:, 2:] / 2)
        # what two boxes share is at most the smaller side, also where a corner's rounding says more
        shared = torch.minimum((high - low).clamp(min=0), torch.minimum(half[:, 2:], target[:, 2:]))
        hull = torch.maximum(apart + half[:, 2:] / 2, target[:, 2:] / 2)
        hull = hull - torch.minimum(apart - half[:, 2:] / 2, -target[:, 2:] / 2)
        inter = shared.prod(1)
        union = w1 * (h1 + taller) + w2 * (h2 + taller) - inter + eps
        found = inter / union
        if d.overlap == "giou":
            area = hull.prod(1) + eps
            found = found - (area - union) / area
        if d.overlap in ("diou", "ciou"):
            found = found - apart.square().sum(1) / (hull.square().sum(1) + eps)
        if d.overlap == "ciou":
            more = d.taller_in_angle
            mine = torch.atan2(w1, h1 + more) if more else angle(logits, anchors)
            v = 4 / math.pi**2 * (torch.atan2(w2, h2 + more) - mine) ** 2
            alpha = (v / (1 - inter / union + v + eps).clamp(min=max(eps, 1e-30))).detach()
            found = found - alpha * v
        return found.clamp(-1, 1) if d.overlap_range == "clamped" else found

    def row_loss(self, overlap: Tensor) -> Tensor:
        """The box loss of each row."""
        return 1 - overlap

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        d, hyp, layers = self.dialect, self.hyp, len(p)
        heeded = d.positive_weights == "heeded"
        cls_pw, obj_pw = (hyp["cls_pw"], hyp["obj_pw"]) if heeded else (1.0, 1.0)
        gamma = hyp["fl_gamma"] if d.focal == "heeded" else 0.0
        s = hyp.get("label_smoothing", 0.0) if d.smoothing != "ignored" else 0.0
        on, off = (1 - s / 2, s / 2) if d.smoothing == "half" else (1 - s + s / self.nc, s / self.nc)
        box = cls = obj = torch.zeros((), dtype=torch.float64, device=p[0].device)
        losses = []
        for i, (layer, c, b, at, a) in enumerate(zip(p, *self.build_targets(p, targets), strict=True)):
            x = layer.double()
            goal = torch.zeros_like(x[..., 4])
            if len(c):
                mine = x[at]
                overlap = self.overlap(mine[:, :4], a.double(), b.double())
                box = box + self.row_loss(overlap).mean()
                value = (1 - self.gr) + self.gr * overlap.detach().clamp(min=0)
                flat = ((at[0] * self.na + at[1]) * x.shape[2] + at[2]) * x.shape[3] + at[3]
                largest = d.shared_cells == "largest" or self.sort_obj_iou
                order = value.argsort(stable=True) if largest else torch.arange(len(value), device=x.device)
                last = torch.full((goal.numel(),), -1, device=x.device)
                last.scatter_reduce_(0, flat[order], torch.arange(len(order), device=x.device), "amax")
                won = last[last >= 0]
                goal = goal.reshape(-1).masked_scatter(last >= 0, value[order][won]).reshape(goal.shape)
                if self.nc > 1:
                    wanted = torch.where(torch.arange(self.nc, device=x.device) == c[:, None], on, off).double()
                    weights = x.new_tensor(d.class_weights or [1.0] * self.nc)
                    each = torch.stack([criterion(mine[:, 5 + k], wanted[:, k], cls_pw, gamma) for k in range(self.nc)])
                    cls = cls + (each * weights).mean()
            losses.append(criterion(x[..., 4], goal, obj_pw, gamma))
            obj = obj + losses[-1] * self.balance[i]
        if self.autobalance:
            moved = [0.9999 * w + 0.0001 / max(float(o), 1e-6) for w, o in zip(self.balance, losses, strict=False)]
            self.balance[:layers] = moved
            self.balance = [w / self.balance[self.ssi] for w in self.balance]
        every = 3 / layers if d.layer_scale != "none" else 1.0
        objectness = every if d.layer_scale == "all" else 1.0
        if d.objectness_gain != "none" and (layers == 4 or (layers > 4 and d.objectness_gain == "1.4 from 4")):
            objectness *= 1.4
        terms = (hyp[self.dialect.box_gain] * every * box, hyp["obj"] * objectness * obj, hyp["cls"] * every * cls)
        items = torch.stack(terms if d.item_order == "box first" else terms[::-1]).float()
        batch = p[0].shape[0] if d.batch == "times" else 1
        return (items.sum() * batch).reshape(1), items.detach()


class Single(Chosen):
    """The overlap in float32, by edges."""

    def overlap(self, logits: Tensor, anchors: Tensor, target: Tensor) -> Tensor:
        """By the formulas of DIALECTS, places of epsilon."""
        d, eps, form = self.dialect, self.dialect.overlap_eps, self.dialect.overlap_form
        x, t = logits.float(), target.float()
        centre, size = x[:, :2].sigmoid() * 2 - 0.5, (x[:, 2:].sigmoid() * 2) ** 2 * anchors.float()
        low1, high1 = centre - size / 2, centre + size / 2
        low2, high2 = t[:, :2] - t[:, 2:] / 2, t[:, :2] + t[:, 2:] / 2
        (w1, h1), (w2, h2) = size.T, t[:, 2:].T
        if d.edges:
            (w1, h1), (w2, h2) = (high1 - low1).T, (high2 - low2).T
            h1, h2 = h1 + d.taller_in_area, h2 + d.taller_in_area
        inter = (torch.min(high1, high2) - torch.max(low1, low2)).clamp(min=0).prod(1)
        union = (w1 * h1 + eps) + w2 * h2 - inter if form == "yolov5-3.0" else w1 * h1 + w2 * h2 - inter + eps
        iou, hull = inter / union, torch.max(high1, high2) - torch.min(low1, low2)
        more = {"yolov5-6.2": eps, "yolov7": eps}.get(form, 0.0)
        v = 4 / math.pi**2 * (torch.atan(w2 / (h2 + more)) - torch.atan(w1 / (h1 + more))) ** 2
        with torch.no_grad():
            old = {
                "yolov5-3.1": (1 + eps) - iou + v,
                "yolov5-3.0": 1 - iou + v + eps,
                "yolov5-master": 1 - iou + v + eps,
            }
            alpha = v / old.get(form, v - iou + (1 + eps))
        far = (low2 + high2 - low1 - high1).square().sum(1) / 4 / (hull.square().sum(1) + eps)
        area = hull.prod(1) + eps
        found = {
            "iou": iou,
            "giou": iou - (area - union) / area,
            "diou": iou - far,
            "ciou": iou - (far + v * alpha),
        }[d.overlap].double()
        return found.clamp(-1, 1) if d.overlap_range == "clamped" else found
