"""Every float32 centre of a target, as bits: floats of 0 or above have the order of their bits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.errors import UsageError

ONE_BITS = 0x3F800000  # of 1.0, the last centre of an image; those of 0.0 are 0
SHARD = 2**21  # centres between two saves of the certificate: a second or some
AROUND = 4  # centres on each side of a change, which are tried first
Bits = tuple[int, int]  # of the first centre, and of the one after the last


@dataclass(frozen=True)
class Shard:
    """Ranges of centres. If it ``looks`` ahead, it is tried again later and not counted."""

    ranges: tuple[Bits, ...]
    looks: bool = False

    @property
    def size(self) -> int:
        """How many centres it has."""
        return 0 if self.looks else sum(stop - first for first, stop in self.ranges)


def bits(fraction: float) -> int:
    """The bits of the float32 nearest to a number of 0 or above."""
    return int(np.float32(abs(fraction)).view(np.int32))


def centre(bits: int) -> float:
    """The float32 of these bits."""
    return float(np.array(bits, dtype=np.int32).view(np.float32))


def centres(first: int, stop: int) -> NDArray[np.float32]:
    """The float32 of these bits, in order."""
    return np.arange(first, stop, dtype=np.int32).view(np.float32)


def span(low: float, high: float) -> Bits:
    """The bits of these centres, both included. Raises UsageError if the higher one comes first."""
    if bits(low) > bits(high):
        raise UsageError(f"--centres {low:g} {high:g}: expected the lower one first")
    return bits(low), bits(high) + 1


def shards(first: int, stop: int, changes: Iterable[int]) -> list[Shard]:
    """The centres in parts. First those nearest to a change, again: there a fault is most likely."""
    parts = [Shard(((at, min(at + SHARD, stop)),)) for at in range(first, stop, SHARD)]
    return [Shard(tuple(turns(changes, first, stop)), looks=True), *parts]


def turns(changes: Iterable[int], first: int, stop: int) -> list[Bits]:
    """The centres nearest to a change, and those at both ends."""
    found: list[Bits] = []
    for at in sorted({0, ONE_BITS, *changes}):
        low, high = max(at - AROUND, first), min(at + AROUND + 1, stop)
        if low >= high:
            continue
        if found and low <= found[-1][1]:
            low = found.pop()[0]
        found.append((low, high))
    return found


def first_raising(run: Callable[[int, int], object], first: int, stop: int) -> int | None:
    """A centre on which the loss raises by itself, of those on which it raises together; None if there is none."""
    if stop - first == 1:
        return first
    middle = (first + stop) // 2
    for some in ((first, middle), (middle, stop)):
        try:
            run(*some)
        except Exception:
            return first_raising(run, *some)
    return None
