"""Numbers that look random and are the same in every language: the top 24 bits of splitmix64."""

import numpy as np
from numpy.typing import NDArray


def noise(seed: int, layer: int, size: int) -> NDArray[np.float64]:
    """``size`` numbers from -1 to 1 of one layer; the k-th is that of seed 2^32 + layer 2^28 + k.

    splitmix64(n), in unsigned 64-bit arithmetic: z = (n + 1) 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) 0x94D049BB133111EB; z ^ z >> 31.
    """
    first = (seed << 32) + (layer << 28) + 1
    z = np.arange(first, first + size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(40)) / 2**23 - 1, dtype=np.float64)
