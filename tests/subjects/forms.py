"""The plain loss in every call form of the field, and an adapter for one that returns a dict.

Each form has the loss it wraps in ``inner_class``, so that `faulty` can plant a fault in it.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from properties.v5.case import Case
from properties.v5.forms import StandInModel
from tests.subjects.plain import PlainLoss
from yololoss.harness.subjects.subject import Subject, Unsupported


def four(total: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Older forms append the total to the items."""
    return total, torch.cat((items, total.detach().reshape(1)))


class OlderLoss:
    """yolov5 5.0: reads model.gr, returns four items."""

    inner_class: type[PlainLoss] = PlainLoss

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        self.inner = self.inner_class(model, autobalance)
        self.gr = self.inner.gr = model.gr

    def build_targets(self, p: list[Tensor], targets: Tensor) -> Any:
        """Four lists."""
        return self.inner.build_targets(p, targets)

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        self.inner.gr = self.gr
        return four(*self.inner(p, targets))


def build_targets(p: list[Tensor], targets: Tensor, model: Any) -> Any:
    """yolov5 1.0 to 4.0: beside the loss function."""
    return PlainLoss(model).build_targets(p, targets)


def compute_loss(p: list[Tensor], targets: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """yolov5 1.0 to 4.0: a function; the box gain is called giou."""
    inner = PlainLoss(model)
    inner.gr = model.gr
    inner.hyp = {**model.hyp, "box": model.hyp["giou"]}
    return four(*inner(p, targets))


class ImageLoss:
    """yolov7 OTA: asks for the images, and its build_targets gives six lists."""

    inner_class: type[PlainLoss] = PlainLoss

    def __init__(self, model: Any) -> None:
        self.inner = self.inner_class(model)

    def build_targets(self, p: list[Tensor], targets: Tensor, imgs: Tensor) -> tuple[list[Any], ...]:
        """Images, anchors, grid rows, grid columns, target rows, anchor sides."""
        assert imgs.shape[1] == 3
        out: tuple[list[Any], ...] = ([], [], [], [], [], [])
        for layer, cls, box, at, wh in zip(p, *self.inner.build_targets(p, targets), strict=True):
            image, _, row, column = at
            size = torch.tensor((layer.shape[3], layer.shape[2]) * 2, device=layer.device)
            fractions = torch.cat((box[:, :2] + torch.stack((column, row), dim=1), box[:, 2:]), dim=1) / size
            rows = torch.cat((image[:, None], cls[:, None], fractions), dim=1)
            for kept, values in zip(out, (*at, rows, wh), strict=True):
                kept.append(values)
        return out

    def __call__(self, p: list[Tensor], targets: Tensor, imgs: Tensor) -> tuple[Tensor, Tensor]:
        return four(*self.inner(p, targets))


class ModuleLoss(nn.Module):
    """A module with another name, its head at model.detection; shows nothing but total and items."""

    inner_class: type[PlainLoss] = PlainLoss

    def __init__(self, model: Any) -> None:
        super().__init__()
        assert hasattr(getattr(model, "module", model), "detection")
        self.inner = self.inner_class(model)

    @override
    def forward(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, list[float]]:
        total, items = self.inner(p, targets)
        return total.reshape(1), items.tolist()


class DarknetLoss(PlainLoss):
    """yolor, ScaledYOLOv4: the model has a list of all its layers, and the indices of its heads."""

    def __init__(self, model: Any) -> None:
        inner = getattr(model, "module", model)
        heads = [inner.module_list[index] for index in inner.yolo_layers]
        head = SimpleNamespace(
            anchors=torch.stack([each.anchor_vec for each in heads]),
            stride=torch.tensor([each.stride for each in heads]),
            nl=len(heads),
            na=heads[0].na,
            nc=heads[0].nc,
        )
        super().__init__(SimpleNamespace(model=[head], hyp=model.hyp))


class BlackBox:
    """Only loss(p, targets), and only the total."""

    inner_class: type[PlainLoss] = PlainLoss

    def __init__(self, model: Any) -> None:
        self.inner = self.inner_class(model)

    def __call__(self, p: list[Tensor], targets: Tensor) -> Tensor:
        return self.inner(p, targets)[0]


class DictHead:
    """A detection head that computes its own loss and returns a dict of terms, each times the batch."""

    inner_class: type[PlainLoss] = PlainLoss

    def __init__(self, model: Any) -> None:
        self.inner = self.inner_class(model)

    def loss_by_feat(self, feats: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The three terms."""
        terms = self.inner.terms(feats, labels).float() * len(feats[0])
        return dict(zip(("loss_bbox", "loss_obj", "loss_cls"), terms.unbind(), strict=True))


class DictAdapter(Subject):
    """The worked example of an adapter: a head that returns a dict becomes a subject."""

    head_class: type[DictHead] = DictHead

    def __init__(self, case: Case, device: torch.device) -> None:
        super().__init__(case, device)
        for option, usual in (("autobalance", False), ("sort_obj_iou", False), ("gr", 1.0)):
            if getattr(case.options, option) != usual:
                raise Unsupported(option)
        self.head = self.head_class(StandInModel(case).to(device))

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        terms = self.head.loss_by_feat(p, targets)
        items = [float(terms[name].detach()) / self.case.batch for name in ("loss_bbox", "loss_obj", "loss_cls")]
        return torch.stack(tuple(terms.values())).sum(), items

    # It shows no rows, so there is no ``rows``: the gradient tells the assignment.
