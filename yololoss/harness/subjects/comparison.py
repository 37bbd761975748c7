"""A comparison: recorded numbers of a loss, and its numbers now."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Aspect = Literal["rows", "values", "gradients"]
EXACT = "none: this is exact"


@dataclass(frozen=True)
class Comparison:
    """Numbers of a record, and what they are now."""

    aspect: Aspect
    what: str
    expected: NDArray[Any]
    observed: NDArray[Any]
    tolerance: NDArray[np.float64] | float = 0.0
    because: str = EXACT

    @property
    def differs(self) -> NDArray[np.bool_]:
        """Which elements differ by more than the tolerance. NaN equals only NaN, infinity only the same infinity."""
        if self.expected.dtype.kind not in "fiub":
            return np.asarray(self.expected != self.observed)
        want, got = self.expected.astype(np.float64), self.observed.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            near = np.asarray(abs(got - want) <= self.tolerance, dtype=np.bool_)
        return np.asarray(~(near | (want == got) | (np.isnan(want) & np.isnan(got))))

    @property
    def worst(self) -> tuple[str, str, str, str]:
        """The element that differs most: its place, expected, observed, and the tolerance with its reason."""
        differs = self.differs
        size = np.zeros(differs.shape)
        if self.expected.dtype.kind == "f":
            off = abs(self.observed.astype(np.float64) - self.expected)
            size = np.nan_to_num(off / np.maximum(self.tolerance, 1e-300), nan=np.inf, posinf=np.inf)
        at = tuple(int(i) for i in np.unravel_index(np.argmax(np.where(differs, size, -1.0)), differs.shape))
        allowed = np.broadcast_to(self.tolerance, differs.shape)[at]
        because = self.because if self.because == EXACT else f"{allowed:.3g}: {self.because}"
        place = f"{self.what}{list(at) if at else ''}"
        return place, str(self.expected[at].item()), str(self.observed[at].item()), because
