"""Small models and inputs that several tests share."""

from typing import Any

import torch
from torch import Tensor, nn

from yololoss import ComputeLoss, Hyperparameters

ANCHORS = (((1.25, 1.625), (2.0, 3.75)), ((1.875, 3.8125), (3.875, 2.8125)))
STRIDES = (8.0, 16.0)
CLASSES = 3
GRIDS = ((6, 8), (3, 4))
BATCH = 2


class Head(nn.Module):
    """What upstream's detection head shows a loss."""

    anchors: Tensor

    def __init__(self, anchors: Any = ANCHORS, strides: Any = STRIDES, classes: int = CLASSES) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors))
        self.stride = torch.tensor(strides)
        self.nl, self.na, self.nc = len(anchors), len(anchors[0]), classes


class Model(nn.Module):
    """What upstream's model shows a loss."""

    def __init__(self, **head: Any) -> None:
        super().__init__()
        self.hyp: Any = {**Hyperparameters().model_dump(), "lr0": 0.01, "mosaic": 1.0}
        self.model = nn.Sequential(nn.Conv2d(1, 1, 1), Head(**head))


def parts(hyp: Hyperparameters | None = None, **kwargs: Any) -> ComputeLoss:
    """The loss of this module's structure, without a model."""
    return ComputeLoss.from_parts(ANCHORS, STRIDES, CLASSES, hyp, **kwargs)


def predictions(dtype: torch.dtype = torch.float32, value: float | None = None) -> list[Tensor]:
    """Random logits, or one value everywhere, for this module's structure."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(BATCH, len(ANCHORS[0]), h, w, 5 + CLASSES) for h, w in GRIDS]
    if value is not None:
        return [torch.full(s, value, dtype=dtype, requires_grad=True) for s in shapes]
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def targets(*rows: tuple[float, ...]) -> Tensor:
    """Given target rows, or a few usual ones."""
    usual = ((0, 2, 0.31, 0.64, 0.2, 0.3), (1, 0, 0.8, 0.2, 0.3, 0.5), (1, 1, 0.5, 0.5, 0.4, 0.4))
    return torch.tensor(rows or usual, dtype=torch.float32)
