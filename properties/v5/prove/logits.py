"""Every 16-bit logit: decoded, compared with a target, classified, with its gradient.

One image for each logit, a grid of one cell, one target and one anchor. All other logits of the cell are moderate.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np
from typing_extensions import override

from yololoss.harness.prove import logits as any_family

from ..case import Case, GivenLogits

USUAL = (0.25, -0.5, 0.125, -0.25, -1.0, 0.5, -0.75)  # the other logits of the cell; exact in 16 bits
ANCHOR, SIDES, CENTRE = (0.75, 0.5), (0.5, 0.625), (0.4375, 0.5625)  # in cells: the grid is one cell
# Significands for the pairs of width and height: the ends of a binade, and some between.
SIGNIFICANDS = (0, 1, 128, 341, 512, 682, 896, 1023)


@dataclass(frozen=True)
class Batch(any_family.Batch):
    """Gradients show each row by itself; totals are means over a case's rows.

    The gradients of the box logits show decoding and CIoU, that of objectness shows CIoU's value if it is above 0.
    """

    NAMES = ("x", "y", "w", "h", "objectness", "class 0")
    OF_GRADIENTS = ("gradients.finite", "gradients.value", "gradients.zero-unassigned-cells")
    OF_VALUES = (
        *("totals.shape-and-dtype", "totals.sum", "totals.finite", "totals.value"),
        *("boxes.item", "boxes.item-range"),
    )
    LARGEST: ClassVar[float] = 1e30  # SPEC 7

    @property
    @override
    def case(self) -> Case:
        logits = np.tile(np.array(USUAL), (len(self.bits), 1))
        logits[:, self.channels] = self.values
        target = (*CENTRE, *SIDES)
        return Case(
            batch=len(logits),
            classes=len(USUAL) - 5,
            grids=((1, 1),),
            strides=(8.0,),
            anchors=((ANCHOR,),),
            targets=tuple((float(i), float(i % 2), *target) for i in range(len(logits))),
            dtype=self.dtype,
            predictions=GivenLogits(layers=(tuple(logits.flatten().tolist()),)),
        )


def sizes() -> tuple[int, ...]:
    """Bits of float16 numbers: both signs, every finite exponent, and some significands of each."""
    return tuple(s << 15 | e << 10 | m for s, e, m in product(range(2), range(31), SIGNIFICANDS))


@cache
def batches() -> tuple[Batch, ...]:
    """Every logit of each channel, and pairs of width and height."""
    return (*Batch.singles(), *Batch.of("float16", (2, 3), list(product(sizes(), repeat=2))))


class OfLogits(any_family.OfLogits):
    """The proof about all of them."""

    statement = (
        "For each logit, and pair of width and height, in a row of its own the laws hold: finite, and as the reference."
    )

    @classmethod
    @override
    def batches(cls) -> tuple[Batch, ...]:
        return batches()
