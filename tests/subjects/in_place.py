"""A loss in the style of many published ones: masks choose the rows, and targets are written in place.

Which row wins a shared cell is left to the order of writing, so on an accelerator it is left to chance, as it is in
upstream's; `devices.shared-cells` says so. On the CPU it conforms.
"""

from typing import Any

import torch
from torch import Tensor, nn

from yololoss.v5.boxes import aspect_angle, ciou, decode
from yololoss.v5.criteria import FocalLoss

NEIGHBOURS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


class InPlace:
    """Upstream's class form, without autobalance."""

    def __init__(self, model: Any) -> None:
        head = model.model[-1]
        self.hyp, self.anchors, self.nc = model.hyp, head.anchors, head.nc
        self.gr = 1.0
        self.balance = [4.0, 1.0, 0.4] if len(head.anchors) == 3 else [4.0, 1.0, 0.25, 0.06, 0.02]
        weights = (torch.tensor([model.hyp[name]], device=head.anchors.device) for name in ("cls_pw", "obj_pw"))
        gamma = model.hyp["fl_gamma"]
        each = (nn.BCEWithLogitsLoss(pos_weight=weight) for weight in weights)
        self.of_classes, self.of_objects = (FocalLoss(bce, gamma) if gamma > 0 else bce for bce in each)

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        """Classes, boxes, indices and anchors."""
        built: tuple[list[Any], ...] = ([], [], [], [])
        for layer, anchors in zip(p, self.anchors, strict=True):
            size = torch.tensor((layer.shape[3], layer.shape[2]), device=targets.device)
            boxes = targets[:, 2:].float() * size.repeat(2)
            ratio = boxes[None, :, 2:] / anchors[:, None]
            fits = torch.max(ratio, 1 / ratio).max(2)[0] < self.hyp["anchor_t"]
            which = torch.arange(len(anchors), device=targets.device)[:, None].expand(fits.shape)[fits]
            label = targets[:, :2].long().expand(len(anchors), -1, -1)[fits]
            boxes = boxes.expand(len(anchors), -1, -1)[fits]
            near = torch.cat((boxes[:, :2], size - boxes[:, :2]), dim=1)
            chosen = torch.cat(
                (torch.ones_like(which[:, None], dtype=torch.bool), (near % 1 < 0.5) & (near > 1)), dim=1
            )
            shift = torch.tensor(NEIGHBOURS, device=targets.device)[:, None].expand(-1, len(boxes), -1)[chosen.T]
            label, boxes, which = (x.expand(5, *x.shape)[chosen.T] for x in (label, boxes, which))
            cell = (boxes[:, :2] - shift).long()
            cell[:, 0].clamp_(0, layer.shape[3] - 1)
            cell[:, 1].clamp_(0, layer.shape[2] - 1)
            built[0].append(label[:, 1])
            built[1].append(torch.cat((boxes[:, :2] - cell, boxes[:, 2:]), dim=1))
            built[2].append((label[:, 0], which, cell[:, 1], cell[:, 0]))
            built[3].append(anchors[which])
        return built

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Total (1,) and items (3,)."""
        device = p[0].device
        of_boxes, of_objects, of_classes = (torch.zeros(1, device=device) for _ in range(3))
        rows = zip(p, *self.build_targets(p, targets), self.balance, strict=False)
        for logits, classes, boxes, at, anchors, weight in rows:
            layer = logits.float() if logits.dtype != torch.float64 else logits
            wanted = torch.zeros_like(layer[..., 0])
            if len(classes):
                mine = layer[at]
                angle = aspect_angle(mine[:, :4], anchors)
                overlap = ciou(decode(mine[:, :4], anchors), boxes.to(mine.dtype), angle1=angle)
                of_boxes += (1 - overlap).mean()
                wanted[at] = (1 - self.gr) + self.gr * overlap.detach().clamp(0)
                if self.nc > 1:
                    half = self.hyp.get("label_smoothing", 0.0) / 2
                    truth = torch.full_like(mine[:, 5:], half)
                    truth[range(len(classes)), classes] = 1 - half
                    of_classes += self.of_classes(mine[:, 5:], truth)
            of_objects += self.of_objects(layer[..., 4], wanted) * weight
        items = torch.cat((of_boxes * self.hyp["box"], of_objects * self.hyp["obj"], of_classes * self.hyp["cls"]))
        return items.sum().reshape(1) * len(p[0]), items.detach()
