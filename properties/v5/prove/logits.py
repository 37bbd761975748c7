"""Every 16-bit logit: decoded, compared with a target, classified, with its gradient.

These are ordinary cases, judged by the laws below on one execution: one image for each logit, a grid of one cell, one
target and one anchor. All other logits of the cell are moderate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from yololoss.harness.cases.case import DTYPES
from yololoss.harness.engine.guard import UNWATCHED, is_watched
from yololoss.harness.engine.judge import Told, judged
from yololoss.harness.laws.exam import Law, Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.prove.proof import Unprovable
from yololoss.harness.subjects.family import LossUnderTest

from ..case import Case, GivenLogits

Half = Literal["float16", "bfloat16"]
HALVES: tuple[Half, ...] = ("float16", "bfloat16")
CHANNELS = ("x", "y", "w", "h", "objectness", "class 0")
USUAL = (0.25, -0.5, 0.125, -0.25, -1.0, 0.5, -0.75)  # the other logits of the cell; exact in 16 bits
ANCHOR, SIDES, CENTRE = (0.75, 0.5), (0.5, 0.625), (0.4375, 0.5625)  # in cells: the grid is one cell
MOST = 4096  # images per case
LARGEST = 1e30  # the largest logit for which the total must be finite (SPEC 7)
LIMIT = 300.0  # seconds that a case may take: it is as large as hundreds of others
# Significands for the pairs of width and height: the ends of a binade, and some between.
SIGNIFICANDS = (0, 1, 128, 341, 512, 682, 896, 1023)

# Laws that judge one execution. Gradients show each row by itself: the gradients of the box logits show decoding and
# CIoU, that of objectness shows CIoU's value if it is above 0. Totals are means over a case's rows.
OF_GRADIENTS = ("gradients.finite", "gradients.value", "gradients.zero-unassigned-cells")
OF_VALUES = ("totals.shape-and-dtype", "totals.sum", "totals.finite", "totals.value", "boxes.item", "boxes.item-range")
ENDS = ("run.no-exception", "run.time-limit", "run.no-exit")
MUST = ("gradients.finite", "gradients.value")  # if these cannot judge, nothing is proven


@dataclass(frozen=True)
class Batch:
    """Some logits of one kind: their channels, and for each image their bits."""

    dtype: Half
    channels: tuple[int, ...]
    bits: tuple[tuple[int, ...], ...] = field(repr=False)  # (n, channels)

    @property
    def values(self) -> NDArray[np.float64]:
        """The logits, (n, channels)."""
        return value(np.array(self.bits, dtype=np.uint16), self.dtype)

    @property
    def case(self) -> Case:
        """The case, with one image for each logit or pair."""
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

    @property
    def halves(self) -> "tuple[Batch, ...]":
        """The batch in two halves; empty if it has only one image."""
        middle = len(self.bits) // 2
        parts = (self.bits[:middle], self.bits[middle:]) if middle else ()
        return tuple(Batch(self.dtype, self.channels, part) for part in parts)

    @property
    def laws(self) -> tuple[str, ...]:
        """The laws that judge it."""
        within = bool((abs(self.values) <= LARGEST).all())
        return (*ENDS, *OF_GRADIENTS, *(OF_VALUES if within else ()))


def value(bits: NDArray[np.uint16], dtype: Half) -> NDArray[np.float64]:
    """The numbers of these bits."""
    numbers = torch.from_numpy(bits.astype(np.int16, casting="unsafe")).view(DTYPES[dtype])
    return np.asarray(numbers.double().numpy())


@cache
def finite(dtype: Half) -> tuple[int, ...]:
    """The bits of every finite number of a dtype, both zeros included, small numbers first."""
    every = np.arange(2**16, dtype=np.uint16)
    numbers = value(every, dtype)
    ordered = every[np.argsort(abs(numbers), kind="stable")]
    return tuple(ordered[np.isfinite(value(ordered, dtype))].tolist())


@cache
def sizes() -> tuple[int, ...]:
    """Bits of float16 numbers: both signs, every finite exponent, and some significands of each."""
    return tuple(s << 15 | e << 10 | m for s, e, m in product(range(2), range(31), SIGNIFICANDS))


@cache
def batches() -> tuple[Batch, ...]:
    """All batches, each with logits of similar magnitude: in a mean, a large loss hides a small one."""
    kinds: list[tuple[Half, tuple[int, ...], list[tuple[int, ...]]]] = [
        (dtype, (channel,), [(bits,) for bits in finite(dtype)]) for dtype in HALVES for channel in range(len(CHANNELS))
    ]
    kinds.append(("float16", (2, 3), list(product(sizes(), repeat=2))))
    return tuple(batch for kind in kinds for batch in _batches(*kind))


def _batches(dtype: Half, channels: tuple[int, ...], bits: list[tuple[int, ...]]) -> Iterator[Batch]:
    large = np.any(abs(value(np.array(bits, dtype=np.uint16), dtype)) > LARGEST, axis=1)
    for chosen in (np.logical_not(large), large):  # apart: with one too large for a total, laws cannot judge the others
        some = [each for each, take in zip(bits, chosen, strict=True) if take]
        for i in range(0, len(some), MOST):
            yield Batch(dtype, channels, tuple(some[i : i + MOST]))


def broken_in(subject: LossUnderTest, batch: Batch) -> tuple[Batch, Told] | None:
    """The first law that breaks on these logits, with a smallest batch that shows it. Raises Unprovable."""
    laws, run = find_laws(subject.family), Run(replace(subject, limit=LIMIT), batch.case)
    for name in (each for each in laws if each in batch.laws):
        told = _judged(laws[name], run)
        if told is not None:
            return _smaller(laws[name], run.subject, batch, told)
    return None


def _judged(law: Law, run: Run) -> Told | None:
    is_watched(UNWATCHED * LIMIT)
    reason = law.assumes(run.subject)
    law.tally.clear()
    told = judged(law, run)[0] if reason is None else None
    if told is None and not law.tally.judged and law.id in MUST:
        raise Unprovable(f"{law.id} has nothing to judge: {reason or next(iter(law.tally.not_applicable), 'no value')}")
    return told


def _smaller(law: Law, subject: LossUnderTest, batch: Batch, told: Told) -> tuple[Batch, Told]:
    """Halve the batch as long as one half also breaks the law."""
    for half in batch.halves:
        found = _judged(law, Run(subject, half.case))
        if found is not None:
            return _smaller(law, subject, half, found)
    return batch, told
