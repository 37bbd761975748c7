"""Losses that are of another kind than the family's, each reduced to what it asks for."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from properties.v5.case import Case
from properties.v5.forms import StandInModel
from tests.subjects.forms import ImageLoss
from tests.subjects.plain import PlainLoss
from yololoss.harness.subjects.subject import Subject, Unsupported


class _ByPredictions(PlainLoss):
    """Of the usual rows it keeps those whose predicted objectness is not below the mean: a stand-in for SimOTA."""

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        built = super().build_targets(p, targets)
        for i, layer in enumerate(p):
            score = layer.detach()[(*(index.long() for index in built[2][i]), 4)]
            kept = score >= score.mean()
            built[2][i] = tuple(index[kept] for index in built[2][i])
            for values in (built[0], built[1], built[3]):
                values[i] = values[i][kept]
        return built


class WithImages(ImageLoss):
    """OTA: its call takes the images, and its predictions choose the rows."""

    inner_class = _ByPredictions


class WithMasks(PlainLoss):
    """Segmentation: predictions come with prototypes, and the call takes masks."""

    def __call__(self, preds: Any, targets: Tensor, masks: Tensor) -> Any:
        p, prototypes = preds
        total, items = super().__call__([x[..., : 5 + self.nc] for x in p], targets)
        term = (prototypes.sigmoid() - masks).abs().mean()
        return total + term * len(p[0]), torch.cat((items, term.detach()[None]))


class WithAngles(PlainLoss):
    """Boxes with an angle: one more channel, and one more column of targets."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.weight = torch.tensor(model.hyp["theta_pw"])

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        total, items = super().__call__([x[..., :-1] for x in p], targets[:, :6])
        return total + self.weight * targets[:, 6].sum(), items


def with_landmarks(p: list[Tensor], targets: Tensor, model: Any) -> Any:
    """Faces: ten more channels, and ten more columns of targets."""
    gain = torch.ones(16)
    points = (targets * gain)[:, 6:16]
    total, items = PlainLoss(model)([torch.cat((x[..., :5], x[..., 15:]), dim=-1) for x in p], targets[:, :6])
    term = points.abs().mean() * model.hyp["landmark"]
    return total + term, torch.cat((items, term.detach()[None]))


class WithoutAnchors:
    """YOLOv8: the hyperparameters are at model.args, and the head has reg_max."""

    def __init__(self, model: Any) -> None:
        self.hyp = model.args
        self.bins = model.model[-1].reg_max

    def __call__(self, preds: Any, targets: dict[str, Tensor]) -> Any:
        return preds[0].sum() * self.hyp.box * targets["bboxes"].sum()


class DictOfTargets(PlainLoss):
    """Targets by name."""

    def __call__(self, p: list[Tensor], targets: Any) -> Any:
        rows = torch.cat((targets["batch_idx"][:, None], targets["cls"][:, None], targets["bboxes"]), dim=1)
        return super().__call__(p, rows)


class OtherConstructor(PlainLoss):
    """Built from its numbers, without a model."""

    def __init__(self, anchors: Tensor, strides: Tensor, num_classes: int, hyp: dict[str, float]) -> None:
        head = SimpleNamespace(anchors=anchors, stride=strides, nc=num_classes)
        super().__init__(SimpleNamespace(model=[head], hyp=hyp))


def other_function(preds: list[Tensor], targets: Tensor, cfg: Any, device: torch.device) -> Any:
    """Called with a configuration and a device."""
    return PlainLoss(cfg.model)([x.to(device) for x in preds], targets)


class OtherReturn(PlainLoss):
    """Returns its terms by name."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        return dict(zip(("box", "obj", "cls"), self.terms(p, targets), strict=True))


class RenamedHead(PlainLoss):
    """The head has a name of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__(SimpleNamespace(model=[model.detect_head], hyp=model.hyp))


class OtherHead(PlainLoss):
    """The head is where it was, and has other attributes."""

    def __init__(self, model: Any) -> None:
        super().__init__(SimpleNamespace(model=[SimpleNamespace(**model.model[-1].cells)], hyp=model.hyp))


class Namespace(PlainLoss):
    """Reads the hyperparameters as attributes."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.smoothing = model.hyp.label_smoothing


class RawMaps(PlainLoss):
    """Takes what the last convolutions return, (B, A (5 + C), H, W)."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        split = []
        for x, anchors in zip(p, self.anchors, strict=True):
            batch, _, height, width = x.shape
            split.append(x.view(batch, len(anchors), 5 + self.nc, height, width).permute(0, 1, 3, 4, 2))
        return super().__call__(split, targets)


class AuxiliaryHeads(PlainLoss):
    """Takes the predictions of auxiliary heads after those of the head."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        layers = len(self.anchors)
        halves = p[:layers], [*map(p.__getitem__, range(layers, 2 * layers))]
        (total, items), (auxiliary, _) = (super(AuxiliaryHeads, self).__call__(half, targets) for half in halves)
        return total + 0.25 * auxiliary, items


class OrdinaryFault(PlainLoss):
    """Of the usual kind, with names of a common overlap, and a fault that every case shows."""

    def angle_cost(self, sine: Tensor, theta: int = 4) -> Tensor:
        """A part of SIoU."""
        return (1 - torch.exp(-sine)) ** theta * self.angle_cost(sine)

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        gains = {"box": self.hyp["box"]}
        return super().__call__(p, targets)[0] * gains["cls"], None


class OrdinaryFaultWithImages(ImageLoss):
    """Takes images, as OTA does, but its rows come from the targets alone. Every call raises."""

    def __call__(self, p: list[Tensor], targets: Tensor, imgs: Tensor) -> Any:
        return super().__call__(p.detach(), targets, imgs)  # type: ignore[attr-defined]


class OrdinaryAttribute(PlainLoss):
    """Takes a dict of its own for something else."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        found: Any = {"items": super().__call__(p, targets)}
        return found.total


class Adapter(Subject):
    """What the adapters of such losses share: the options that these losses lack, and the model."""

    def __init__(self, case: Case, device: torch.device) -> None:
        super().__init__(case, device)
        for option, usual in (("autobalance", False), ("sort_obj_iou", False), ("gr", 1.0)):
            if getattr(case.options, option) != usual:
                raise Unsupported(option)
        self.model = StandInModel(case).to(device)
        self.model.hyp |= {"theta_pw": 1.0, "landmark": 1.0}

    def wider(self, p: list[Tensor], more: int, at: int) -> list[Tensor]:
        """Predictions with more channels there."""
        return [torch.cat((x[..., :at], x.new_zeros((*x.shape[:-1], more)), x[..., at:]), dim=-1) for x in p]


class MasksLeftOut(Adapter):
    """Masks and prototypes that are empty, and the total without their term."""

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        empty = p[0].new_zeros((1, 1))
        total, items = WithMasks(self.model)((self.wider(p, 32, 5 + self.case.classes), empty), targets, empty)
        return total - items[3] * len(p[0]), items[:3]


class AnglesLeftOut(Adapter):
    """Angles of 0."""

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return WithAngles(self.model)(self.wider(p, 1, 5 + self.case.classes), torch.nn.functional.pad(targets, (0, 1)))


class LandmarksLeftOut(Adapter):
    """Points that are not marked, between objectness and classes."""

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        wider = torch.nn.functional.pad(targets, (0, 10))
        total, items = with_landmarks(self.wider(p, 10, 5), wider, self.model)
        return total - items[3], items[:3]


class Named(Adapter):
    """Targets by name."""

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        named = {"batch_idx": targets[:, 0], "cls": targets[:, 1], "bboxes": targets[:, 2:]}
        return DictOfTargets(self.model)(p, named)


class Raw(Adapter):
    """The shape that convolutions return."""

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return RawMaps(self.model)([x.permute(0, 1, 4, 2, 3).flatten(1, 2) for x in p], targets)
