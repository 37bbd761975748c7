"""Train a small detector on synthetic images, with a loss that is watched: ``python examples/training/train.py``.

At step 50 a target has no height, as an empty box of a label file. The run goes on, and the step is saved.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import yololoss

SIZE = 64  # pixels of an image's sides
STRIDES = (8, 16)
ANCHORS = (((1.25, 1.625), (2.0, 3.75)), ((1.875, 3.8125), (3.875, 2.8125)))  # in cells
CLASSES = 3
HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}


class Head(nn.Module):
    """Logits of every cell, from the features of each stride."""

    anchors: Tensor

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.nl, self.na, self.nc, self.no = len(STRIDES), len(ANCHORS[0]), CLASSES, 5 + CLASSES
        self.register_buffer("anchors", torch.tensor(ANCHORS))
        self.stride = torch.tensor([float(stride) for stride in STRIDES])
        self.layers = nn.ModuleList(nn.Conv2d(width, self.na * self.no, 1) for width in widths)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """For each stride (B, A, H, W, 5 + C)."""
        made = (layer(x) for layer, x in zip(self.layers, features, strict=True))
        return [x.view(len(x), self.na, self.no, *x.shape[2:]).permute(0, 1, 3, 4, 2).contiguous() for x in made]


class Detector(nn.Module):
    """Convolutions to strides 8 and 16, and a head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.hyp: dict[str, Any] = dict(HYP)
        self.gr, self.nc = 1.0, CLASSES
        first = nn.Sequential(nn.Conv2d(3, width, 8, stride=8), nn.SiLU())
        second = nn.Sequential(nn.Conv2d(width, 2 * width, 2, stride=2), nn.SiLU())
        self.model = nn.Sequential(first, second, Head((width, 2 * width)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Predictions of images (B, 3, H, W)."""
        fine = self.model[0](images)
        found: list[Tensor] = self.model[2]([fine, self.model[1](fine)])
        return found


def batch(step: int, images: int = 4, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Images with bright rectangles, (B, 3, H, W), and their targets, (N, 6); the same for the same step."""
    chance = torch.Generator().manual_seed(step)
    pictures = torch.rand(images, 3, size, size, generator=chance) / 4
    targets = torch.cat((torch.zeros(2 * images, 2), torch.rand(2 * images, 4, generator=chance) / 2 + 0.25), dim=1)
    targets[:, 0] = torch.arange(2 * images) % images
    targets[:, 1] = torch.arange(2 * images) % CLASSES
    for image, cls, *box in targets.tolist():
        x, y, w, h = (int(size * share) for share in box)
        pictures[int(image), int(cls), max(y - h // 2, 0) : y + h // 2, max(x - w // 2, 0) : x + w // 2] += 0.5
    return pictures, targets


def train(
    make: Callable[[Detector], Any],
    steps: int,
    spoil: Callable[[int, list[Tensor], Tensor], None] = lambda step, p, targets: None,
    rate: Callable[[int], float] = lambda step: 0.01,
) -> Detector:
    """Train a detector with the loss that ``make`` builds of it; the same weights each time.

    ``spoil(step, predictions, targets)`` may write to what the loss is given.
    """
    torch.manual_seed(0)
    model = Detector()
    loss, optimiser = make(model), torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        images, targets = batch(step)
        optimiser.param_groups[0]["lr"] = rate(step)
        predictions = model(images)
        spoil(step, predictions, targets)
        total, _ = loss(predictions, targets)
        optimiser.zero_grad()
        total.sum().backward()
        optimiser.step()
    return model


def main() -> None:
    """Train for 60 steps, of which one has a target that is no box."""

    def spoil(step: int, predictions: list[Tensor], targets: Tensor) -> None:
        if step == 50:
            targets[5, 5] = 0

    train(lambda model: yololoss.watch(yololoss.ComputeLoss(model, checks=False), model), 60, spoil)


if __name__ == "__main__":
    main()
