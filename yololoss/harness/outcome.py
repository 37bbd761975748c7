"""An outcome: what a subject did with a case."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Grid = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows one layer was given: each a cell and an anchor that answer for a target.

    n rows; lengths in cells of the layer; ``box`` is centre x, y relative to the row's cell, width, height.
    """

    image: Ints  # (n,)
    anchor: Ints  # (n,)
    row: Ints  # (n,) grid row, gj
    column: Ints  # (n,) grid column, gi
    cls: Ints  # (n,)
    box: Floats  # (n, 4)
    anchor_wh: Floats  # (n, 2)

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Call:
    """What one call returned. Items are (box, obj, cls) times their gain, not times batch."""

    total: float
    items: tuple[float, ...]
    balance: tuple[float, ...] | None = None  # after the call, where the subject shows it
    total_shape: tuple[int, ...] = (1,)
    items_shape: tuple[int, ...] = (3,)
    total_dtype: str = "float32"
    items_dtype: str = "float32"
    total_requires_grad: bool = True
    items_require_grad: bool = False
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Trouble:
    """Something a subject did beside its work: raised, wrote to its inputs, printed, exited, ..."""

    kind: str
    detail: str


@dataclass(frozen=True, order=True)
class Wait:
    """The host waited for the device."""

    place: str  # file:line, or backward
    what: str  # item, nonzero, boolean index, copy to the host, ...
    times: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a subject did with a case."""

    calls: tuple[Call, ...]
    rows: tuple[Rows, ...] | None = None  # a layer each; None where the subject does not show them
    gradients: tuple[Grid, ...] = ()  # of the last call's total, (B, A, H, W, 5 + C) a layer
    troubles: tuple[Trouble, ...] = ()
    waits: tuple[Wait, ...] = ()  # of the last call and its backward, on the mirror
    elsewhere: tuple[str, ...] = ()  # tensors made on another device, if that was watched
    peak: int | None = None  # bytes that the last call and its backward took beyond their inputs, on CUDA

    def same(self, other: "Outcome") -> bool:
        """Whether both did the same, bit for bit: calls, gradients, troubles. NaN equals NaN here."""
        return (
            repr((self.calls, self.troubles)) == repr((other.calls, other.troubles))
            and len(self.gradients) == len(other.gradients)
            and all(map(partial(np.array_equal, equal_nan=True), self.gradients, other.gradients))
        )
