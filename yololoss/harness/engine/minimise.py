"""Minimises the bytes that a case is made from."""

import time
from collections.abc import Callable, Iterator


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
