"""Every float32 centre of a target, as bits: floats of 0 or above have the order of their bits."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from yololoss.harness.engine.guard import is_watched
from yololoss.harness.engine.judge import Task
from yololoss.harness.errors import UsageError
from yololoss.harness.prove.certificate import Enumerated, claimed
from yololoss.harness.prove.proof import HUNG, Proof, Unprovable

ONE_BITS = 0x3F800000  # of 1.0, the last centre of an image; those of 0.0 are 0
SHARD = 2**21  # centres between two saves of the certificate: a second or some
AROUND = 4  # centres on each side of a change, which are tried first
Bits = tuple[int, int]  # of the first centre, and of the one after the last
Grid = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Shard:
    """Ranges of centres, on some grids. If it ``looks`` ahead, it is tried again later and not counted."""

    grids: tuple[Grid, ...]
    ranges: tuple[Bits, ...]
    looks: bool = False

    @property
    def size(self) -> int:
        """How many centres it has."""
        return 0 if self.looks else sum(stop - first for first, stop in self.ranges)


class OfCentres(Proof[Shard]):
    """A proof about all centres on some grids. ``changes``: the bits of the centres at which something changes."""

    hint = "; --part logits proves the rest"

    def __init__(
        self, task: Task, statement: str, grids: tuple[Grid, ...], first: int, stop: int, changes: Iterable[int]
    ) -> None:
        enumerated = (Enumerated(what="float32 centres", count=stop - first),)
        claim = claimed(task, "assignment", statement, grids=grids, bits=(first, stop), enumerated=enumerated)
        super().__init__(task, claim, shards(grids, first, stop, changes))

    @override
    def size(self, part: Shard) -> int:
        return part.size


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


def shards(grids: tuple[Grid, ...], first: int, stop: int, changes: Iterable[int]) -> list[Shard]:
    """The centres in parts. First those nearest to a change, again: there a fault is most likely."""
    parts = [Shard(grids, ((at, min(at + SHARD, stop)),)) for at in range(first, stop, SHARD)]
    return [Shard(grids, tuple(turns(changes, first, stop)), looks=True), *parts]


def batches(first: int, stop: int, size: int) -> Iterator[Bits]:
    """The centres in batches, each for one call of the loss. A call that hangs is ended."""
    for at in range(first, stop, size):
        is_watched(HUNG)
        yield at, min(at + size, stop)


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


def raised_at_once(count: int, error: Exception) -> Unprovable:
    """The error of a loss that raises on so many targets together, and on none of them by itself."""
    return Unprovable(f"it raised on {count} targets at once: {type(error).__name__}: {error}")
