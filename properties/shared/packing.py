"""Arrays of numbers as text: little-endian, in C order, compressed by zlib, in base64."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(values: NDArray[Any], dtype: str) -> str:
    """The values, of that dtype, as text."""
    return base64.b64encode(zlib.compress(values.astype(dtype).tobytes())).decode()


def unpacked(text: str, dtype: str, most: int, *, exactly: bool = False) -> NDArray[Any]:
    """At most so many numbers. A small file may unpack to a very large one, so no more than that is unpacked."""
    size = most * np.dtype(dtype).itemsize
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"predictions: expected numbers compressed by zlib, in base64: {error}") from error
    if len(data) > size or len(data) % np.dtype(dtype).itemsize or (exactly and len(data) != size):
        expected = f"{'' if exactly else 'at most '}{most} numbers"
        raise ValueError(f"predictions: expected {expected} of {np.dtype(dtype).itemsize} bytes, got {len(data)} bytes")
    return np.frombuffer(data, dtype)


def unpacked_cells(text: str, layer: int, count: int) -> NDArray[Any]:
    """Indices of cells, in ascending order, each below ``count``. Raises ValueError if they are others."""
    cells = unpacked(text, "<i4", most=count)
    if len(cells) and (cells[0] < 0 or cells[-1] >= count or (np.diff(cells) <= 0).any()):
        raise ValueError(f"predictions: cells of layer {layer}: expected ascending indices below {count}")
    return cells
