"""What is measured: the settings, the losses, and the steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tests.models import Model
from tests.subjects.in_place import InPlace
from yololoss import ComputeLoss

# The anchors that upstream's models come with, in pixels, and their strides.
STRIDES = 8.0, 16.0, 32.0
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


@dataclass(frozen=True)
class Setting:
    """One size of everything: square images of ``side`` pixels, ``targets`` in the whole batch."""

    batch: int = 16
    side: int = 640
    classes: int = 80
    targets: int = 112

    def __str__(self) -> str:
        """The name in the tables."""
        return f"batch {self.batch}, {self.side} px, {self.classes} classes, {self.targets} targets"


USUAL = Setting()  # what continuous integration measures
SWEEPS: dict[str, tuple[Setting, ...]] = {
    "batch": tuple(replace(USUAL, batch=n, targets=7 * n) for n in (1, 2, 4, 8, 16, 32, 64)),
    "side": tuple(replace(USUAL, side=n) for n in (320, 480, 640, 960, 1280)),
    "targets": tuple(replace(USUAL, targets=n) for n in (0, 1, 10, 100, 1000, 10_000)),
    # a batch of 4, for 16 images with 1,000 classes are 1.6 GB of predictions
    "classes": tuple(replace(USUAL, batch=4, targets=28, classes=n) for n in (1, 10, 80, 300, 1000)),
}
SETTINGS = tuple(dict.fromkeys((USUAL, *(s for each in SWEEPS.values() for s in each))))

# `plain` is written as losses in the wild are, with autograd's own gradients.
LOSSES: dict[str, Callable[[Any], Any]] = {
    "loss": ComputeLoss,
    "loss, checks off": partial(ComputeLoss, checks=False),
    "plain": InPlace,
}
FLOOR = "floor"


@cache
def inputs(setting: Setting) -> tuple[list[Tensor], Tensor]:
    """Predictions, which require a gradient, and targets, for a loss of `make`."""
    generator = torch.Generator().manual_seed(0)
    shape = setting.batch, len(ANCHORS[0])
    p = [
        torch.randn(*shape, setting.side // int(s), setting.side // int(s), 5 + setting.classes, generator=generator)
        for s in STRIDES
    ]
    targets = torch.rand(setting.targets, 6, generator=generator)
    targets[:, 0] = torch.arange(setting.targets) % setting.batch
    targets[:, 1] = (targets[:, 1] * setting.classes).long()
    targets[:, 4:] = targets[:, 4:] * 0.4 + 0.02
    return [x.requires_grad_() for x in p], targets


def made(loss: Callable[[Any], Any], setting: Setting) -> Any:
    """The loss of a model of that setting."""
    strides = torch.tensor(STRIDES)
    anchors = torch.tensor(ANCHORS) / strides[:, None, None]
    return loss(Model(anchors=anchors.tolist(), strides=STRIDES, classes=setting.classes))


def stepping(loss: Callable[..., Any], setting: Setting) -> Callable[[], object]:
    """A function that runs forward and backward."""
    p, targets = inputs(setting)
    return lambda: torch.autograd.grad(loss(p, targets)[0].sum(), p)


def work(what: str, name: str, setting: Setting) -> Callable[[], object]:
    """A function that runs ``forward``, ``step`` (forward and backward) or ``assignment`` of a loss, or the floor."""
    p, targets = inputs(setting)
    if name == FLOOR:
        return lambda: [torch.zeros_like(x) for x in p]
    loss = made(LOSSES[name], setting)
    if what == "assignment":
        return lambda: loss.build_targets(p, targets)
    if what == "forward":
        return lambda: loss(p, targets)
    return stepping(loss, setting)
