"""An outcome: what a subject did with a case."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.devices.devices import Wait

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Call:
    """What one call returned."""

    total: float
    items: tuple[float, ...]
    state: tuple[float, ...] | None = None  # after the call; None if the subject does not show it
    total_shape: tuple[int, ...] = (1,)
    items_shape: tuple[int, ...] = (3,)
    total_dtype: str = "float32"
    items_dtype: str = "float32"
    total_requires_grad: bool = True
    items_require_grad: bool = False
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True)
class Trouble:
    """Something that a subject did besides its work: it raised, wrote to its inputs, printed, exited, ..."""

    kind: str
    detail: str
    place: str = ""  # in the loss's own files, where it raised: file, line, function

    @property
    def said(self) -> str:
        """The detail, and where it raised."""
        return f"{self.detail}, at {self.place}" if self.place else self.detail


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a subject did with a case."""

    calls: tuple[Call, ...]
    rows: tuple[Any, ...] | None = None  # the assignment, one for each layer; None if the subject does not show it
    gradients: tuple[Grid, ...] = ()  # of the last call's total, in the shapes of the predictions
    troubles: tuple[Trouble, ...] = ()
    waits: tuple[Wait, ...] = ()  # of the last call and its backward, on the mirror
    elsewhere: tuple[str, ...] = ()  # tensors made on another device, if this was watched
    peak: int | None = None  # bytes that the last call and its backward used beyond their inputs, on CUDA
    # Not compared by `same`, since torch gives some warnings once in a process.
    warnings: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()  # what was done to what is outside the process: files written, processes, ...

    def same(self, other: "Outcome") -> bool:
        """Whether both did the same, bit for bit: calls, gradients, troubles. NaN equals NaN here."""
        return (
            repr((self.calls, self.troubles)) == repr((other.calls, other.troubles))
            and len(self.gradients) == len(other.gradients)
            and all(map(partial(np.array_equal, equal_nan=True), self.gradients, other.gradients))
        )
