"""Logits as a training step had them: the objectness of every cell, and all logits of the cells that a loss may read.

A loss reads the objectness of every cell, but boxes and classes only of cells with rows. So a batch whose logits are
gigabytes takes a few megabytes.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.case import Data

from ..shared.packing import packed, unpacked, unpacked_cells

OBJECTNESS = 4  # the channel


class PackedLayer(Data):
    """One layer: arrays of numbers as text (`properties/shared/packing.py`).

    ``objectness``: (B, A, H, W). ``cells``: (n,) int32, in ascending order: flat indices of the cells whose logits are
    kept. ``logits``: (n, 5 + C). All other logits are 0.
    """

    objectness: str
    cells: str
    logits: str


class PackedLogits(Data):
    """Logits of a training step, as floats of so many bits; then cast to the case's dtype."""

    kind: Literal["packed"] = "packed"
    bits: Literal[32, 64] = 32
    layers: tuple[PackedLayer, ...]

    def layer(self, layer: int, shape: Sequence[int]) -> NDArray[np.float64]:
        """The values of a layer of this shape."""
        objectness, cells, logits = self.unpacked(layer, shape)
        values = np.zeros((len(objectness), shape[4]))
        values[:, OBJECTNESS] = objectness
        values[cells] = logits
        return values.reshape(shape)

    def unpacked(self, layer: int, shape: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What is kept of a layer of this shape. Raises ValueError if it does not fit.

        Of every cell the objectness, (B A H W,); the cells whose logits are kept, (n,); these, (n, 5 + C).
        """
        kept, dtype, count = self.layers[layer], f"<f{self.bits // 8}", math.prod(shape[:4])
        objectness = unpacked(kept.objectness, dtype, count, exactly=True)
        cells = unpacked_cells(kept.cells, layer, count)
        logits = unpacked(kept.logits, dtype, len(cells) * shape[4], exactly=True)
        return objectness, cells, logits.reshape(-1, shape[4])


def pack(logits: Sequence[NDArray[np.floating]], cells: Sequence[NDArray[np.int64]]) -> PackedLogits:
    """Pack logits, for each layer one array (B, A, H, W, 5 + C), and all of the cells at these flat indices."""
    bits: Literal[32, 64] = 64 if logits[0].dtype == np.float64 else 32
    dtype, layers = f"<f{bits // 8}", []
    for values, found in zip(logits, cells, strict=True):
        kept, flat = np.unique(found), values.reshape(-1, values.shape[-1])
        objectness, near = packed(flat[:, OBJECTNESS], dtype), packed(flat[kept], dtype)
        layers.append(PackedLayer(objectness=objectness, cells=packed(kept, "<i4"), logits=near))
    return PackedLogits(bits=bits, layers=tuple(layers))
