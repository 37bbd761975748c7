"""Every 16-bit logit of a class and of a bin, with its gradient.

One image for each logit, with one target and 10 anchors. All other logits are moderate.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
from typing_extensions import override

from yololoss.harness.prove import logits as any_family

from ...shared.noise import noise
from ..case import SIDES, Case, GivenLogits

# A top-k of 10 takes all anchors: no tie decides.
GRID, BINS, CLASSES = (2, 5), 4, 2
TARGET = (0.0, 0.5, 0.5, 0.5, 0.625)  # class, and the box: the anchors in columns 1, 2 and 3 are inside
INSIDE, OUTSIDE = (0, 1), (0, 4)  # anchors: row, column
SIDE_NAMES = ("left", "top", "right", "bottom")


class Place(NamedTuple):
    """Where a logit is."""

    name: str
    anchor: tuple[int, int]
    channel: int


PLACES = (
    Place("the target's class", INSIDE, SIDES * BINS),
    Place("another class", INSIDE, SIDES * BINS + 1),
    Place("a class in the background", OUTSIDE, SIDES * BINS),
    *(Place(f"{side} bin {n}", INSIDE, BINS * i + n) for i, side in enumerate(SIDE_NAMES) for n in range(BINS)),
)


@dataclass(frozen=True)
class Batch(any_family.Batch):
    """Gradients show each image by itself, divided by the sum of all scores; totals are sums over a case's images."""

    NAMES = tuple(place.name for place in PLACES)
    OF_GRADIENTS = (
        *("gradients.finite", "gradients.value", "assign.anchors", "scores.value", "scores.range"),
        *("boxes.background", "third.zero-sum"),
    )
    OF_VALUES = (
        *("totals.shape", "totals.sum", "totals.finite", "totals.value"),
        *("classes.item", "boxes.item", "third.item"),
    )
    LARGEST: ClassVar[float] = 1e30

    @property
    @override
    def case(self) -> Case:
        (place,) = (PLACES[channel] for channel in self.channels)
        shape = (SIDES * BINS + CLASSES, *GRID)
        usual = np.round(8 * noise(1, 0, math.prod(shape))).reshape(shape) / 8  # exact in 16 bits
        logits = np.tile(usual, (len(self.bits), 1, 1, 1))
        logits[:, place.channel, place.anchor[0], place.anchor[1]] = self.values[:, 0]
        return Case(
            batch=len(logits),
            classes=CLASSES,
            reg_max=BINS,
            grids=(GRID,),
            strides=(8.0,),
            targets=tuple((float(i), *TARGET) for i in range(len(logits))),
            dtype=self.dtype,
            predictions=GivenLogits(layers=(tuple(logits.flatten().tolist()),)),
        )


@cache
def batches() -> tuple[Batch, ...]:
    """Every logit of each place."""
    return tuple(Batch.singles())


class OfLogits(any_family.OfLogits):
    """The proof about all of them."""

    statement = "For each logit, in an image of its own, the laws hold: finite, and as the reference."

    @classmethod
    @override
    def batches(cls) -> tuple[Batch, ...]:
        return batches()
