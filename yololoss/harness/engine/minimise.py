"""Minimises the bytes that a case is made from, or a case that was made of none."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

C = TypeVar("C")


def smallest(data: bytes, breaks: Callable[[bytes], bool], until: float) -> bytes:
    """The simplest bytes that still break: as many 0 as possible, the others as low as possible.

    Stops if nothing simpler breaks, or at the time ``until`` (`time.monotonic`).
    """
    found, better = data, True
    while better:
        better = False
        for size in (64, 32, 13, 8, 4, 2, 1):
            for start in range(0, len(found), size):
                for candidate in _plainer(found, start, size):
                    if time.monotonic() > until:
                        return found
                    if breaks(candidate):
                        found, better = candidate, True
                        break
    return found


def _plainer(data: bytes, start: int, size: int) -> Iterator[bytes]:
    """Simpler candidates: ``size`` bytes from ``start`` set to 0; for one byte also lower values, in halving steps."""
    part = data[start : start + size]
    if not any(part):
        return
    yield data[:start] + bytes(len(part)) + data[start + size :]
    value, step = data[start], data[start] // 2
    while size == 1 and step:
        yield data[:start] + bytes([value - step]) + data[start + 1 :]
        step //= 2


def smallest_case(case: C, smaller: Callable[[C], Iterable[C]], breaks: Callable[[C], bool], until: float) -> C:
    """The case with as little in it as possible that still breaks. Stops at the time ``until`` (`time.monotonic`).

    ``smaller``: of a case those with less in them, the most promising first.
    """
    while time.monotonic() < until:
        candidates = (each for each in smaller(case) if time.monotonic() < until)
        found = next((each for each in candidates if breaks(each)), None)
        if found is None:
            break
        case = found
    return case
