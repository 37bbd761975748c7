"""Small models and inputs of the task-aligned loss that several tests share."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from yololoss import TaskAlignedLoss

STRIDES = (8.0, 16.0)
GRIDS = ((6, 8), (3, 4))
ANCHORS = 60
CLASSES = 3
BATCH = 2


class Head(nn.Module):
    """What upstream's detection head shows a loss."""

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.stride = torch.tensor(STRIDES)
        self.nc, self.reg_max = CLASSES, reg_max


class Model(nn.Module):
    """What upstream's model shows a loss."""

    def __init__(self, reg_max: int = 16) -> None:
        super().__init__()
        self.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=10, lr0=0.01)
        self.model = nn.Sequential(nn.Conv2d(1, 1, 1), Head(reg_max))


def parts(reg_max: int = 16, **kwargs: Any) -> TaskAlignedLoss:
    """The loss of this module's structure, without a model."""
    return TaskAlignedLoss.from_parts(STRIDES, CLASSES, reg_max, **kwargs)


def levels(
    dtype: torch.dtype = torch.float32, reg_max: int = 16, value: float | None = None, images: int = BATCH
) -> list[Tensor]:
    """Random logits, or one value everywhere. Boxes are a few cells large, or of that distance if R = 1."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for rows, columns in GRIDS:
        logits = torch.randn(images, 4 * reg_max + CLASSES, rows, columns, generator=generator)
        if reg_max == 1:
            logits[:, :4] += 2
        else:
            logits[:, : 4 * reg_max] -= (torch.arange(reg_max).repeat(4)[:, None, None] - 2).abs()
        made.append(torch.full_like(logits, value) if value is not None else logits)
    return [logits.to(dtype).requires_grad_() for logits in made]


def mapping(layers: list[Tensor], reg_max: int = 16) -> dict[str, Any]:
    """The same predictions as a mapping of boxes, scores and feats."""
    joined = torch.cat([level.flatten(2) for level in layers], dim=2)
    return {"boxes": joined[:, : 4 * reg_max], "scores": joined[:, 4 * reg_max :], "feats": layers}


def batch(*rows: tuple[float, ...]) -> dict[str, Tensor]:
    """Given rows of image, class, x, y, w, h, or a few usual ones, as a batch."""
    usual = ((0, 2, 0.31, 0.64, 0.5, 0.6), (1, 0, 0.7, 0.3, 0.4, 0.5), (1, 1, 0.5, 0.5, 0.6, 0.6))
    return columns(torch.tensor(rows or usual))


def columns(table: Tensor) -> dict[str, Tensor]:
    """A table (T, 6) as a batch."""
    return {"batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": table[:, 2:]}


def step(loss: Any, layers: list[Tensor], given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The total, and the gradients of its sum."""
    total, _ = loss(layers, given)
    return total.detach(), *torch.autograd.grad(total.sum(), layers)
