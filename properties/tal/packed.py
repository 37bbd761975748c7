"""Logits as a training step had them: all class logits, and side logits of the anchors that a target may have.

A loss reads the class logits of every anchor, but the sides only inside a target, small ones enlarged: elsewhere the
overlap is 0, whatever is predicted.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.case import Data

from ..shared.packing import packed, unpacked, unpacked_cells


class PackedLevel(Data):
    """One level: arrays of numbers as text (`properties/shared/packing.py`).

    ``scores``: (B, C, H, W). ``cells``: (n,) int32, in ascending order: flat indices, of (B, H, W), of the anchors
    whose sides are kept. ``sides``: (n, 4 R). All other side logits are 0.
    """

    scores: str
    cells: str
    sides: str


class PackedLogits(Data):
    """Logits of a training step, as floats of so many bits; then cast to the case's dtype."""

    kind: Literal["packed"] = "packed"
    bits: Literal[32, 64] = 32
    levels: tuple[PackedLevel, ...]

    def level(self, level: int, case: Any) -> NDArray[np.float64]:
        """The logits of a level of a case, (B, 4 R + C, H, W). Raises ValueError if what is kept does not fit."""
        (batch, channels, rows, columns), kept = case.shape(level), self.levels[level]
        dtype, sides = f"<f{self.bits // 8}", channels - case.classes
        values = np.zeros((batch, rows, columns, channels))
        scores = unpacked(kept.scores, dtype, math.prod(case.shape(level)) // channels * case.classes, exactly=True)
        values[..., sides:] = np.moveaxis(scores.reshape(batch, case.classes, rows, columns), 1, 3)
        cells = unpacked_cells(kept.cells, level, batch * rows * columns)
        near = unpacked(kept.sides, dtype, len(cells) * sides, exactly=True)
        values.reshape(-1, channels)[cells, :sides] = near.reshape(-1, sides)
        return np.moveaxis(values, 3, 1)


def pack(levels: Sequence[NDArray[np.floating]], cells: Sequence[NDArray[np.int64]], classes: int) -> PackedLogits:
    """Pack logits, for each level one array (B, 4 R + C, H, W), with the sides of the anchors at these flat indices."""
    bits: Literal[32, 64] = 64 if levels[0].dtype == np.float64 else 32
    dtype, made = f"<f{bits // 8}", []
    for values, found in zip(levels, cells, strict=True):
        kept, flat = np.unique(found), np.moveaxis(values, 1, 3).reshape(-1, values.shape[1])
        sides = values.shape[1] - classes
        made.append(
            PackedLevel(
                scores=packed(values[:, sides:], dtype),
                cells=packed(kept, "<i4"),
                sides=packed(flat[kept, :sides], dtype),
            )
        )
    return PackedLogits(bits=bits, levels=tuple(made))


def filled(values: NDArray[np.floating], classes: int) -> NDArray[np.int64]:
    """Flat indices of the anchors of a level with a side logit other than 0."""
    flat = np.moveaxis(values, 1, 3).reshape(-1, values.shape[1])
    return np.flatnonzero(flat[:, : values.shape[1] - classes].any(axis=1))
