"""The assignment along one axis in integer arithmetic: nothing here is computed in floating point.

A float32 of 0 or above is a whole number of units of 2^-149. So Python's integers hold it, its product with a width W,
and its difference from W exactly. `rounded` gives the nearest float32, ties to even. This covers SPEC 1.1, 1.3 and 1.4.

Why a table is enough for a thousand million centres: rounding is monotone (a larger number is never rounded to a
smaller one), and so are scaling by W, adding or subtracting a constant, floor and comparison. So each of the numbers
that decide (`_deciding`) only grows, or only falls, as the centre grows. The bits of floats of 0 or above have the same
order as the floats. **If such a number is the same at both ends of a range, it is the same in the whole range**, and so
are the cells. `intervals` halves ranges until this holds, so no boundary between intervals is assumed.
"""

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.prove.centres import ONE_BITS

ONE = 1 << 149  # 1.0, in the units of the smallest float32
HALF = ONE >> 1
DIGITS = 24  # binary digits that a float32 keeps
FRACTION = 1 << (DIGITS - 1)
CENTRES = ONE_BITS + 1


class Cells(NamedTuple):
    """The cells along one axis: the own cell, and the neighbours before and after, if they are assigned."""

    own: int
    before: int | None
    after: int | None


class Interval(NamedTuple):
    """Centres with the same cells: their bits go from ``first`` up to the next interval's ``first``."""

    first: int
    cells: Cells


def number(bits: int) -> int:
    """The float32 of these bits (of 0 or above, and finite), in units of 2^-149."""
    exponent, fraction = divmod(bits, FRACTION)
    return (FRACTION + fraction) << (exponent - 1) if exponent else fraction


def rounded(exact: int) -> int:
    """The float32 nearest to a number of 0 or above, ties to even; both in units of 2^-149."""
    spare = exact.bit_length() - DIGITS
    if spare <= 0:
        return exact
    kept, rest = divmod(exact, 1 << spare)
    half = 1 << (spare - 1)
    if rest > half or (rest == half and kept % 2):
        kept += 1
    return kept << spare


class _Deciding(NamedTuple):
    """All numbers that decide on one axis. Each is monotone in the centre."""

    halves: int  # half cells from the start: frac < 1/2 if this is even
    past_first: bool
    halves_left: int  # half cells to the end
    before_last: bool
    before: int  # the cell of the centre moved back by half a cell
    after: int  # the cell of the centre moved forward by half a cell


def _deciding(bits: int, width: int) -> _Deciding:
    centre = rounded(number(bits) * width)
    to_end = rounded(width * ONE - centre)
    return _Deciding(
        halves=centre // HALF,
        past_first=centre > ONE,
        halves_left=to_end // HALF,
        before_last=to_end > ONE,
        before=rounded(max(centre - HALF, 0)) // ONE,
        after=rounded(centre + HALF) // ONE,
    )


def _cells(d: _Deciding, width: int) -> Cells:
    last = width - 1
    return Cells(
        own=min(d.halves // 2, last),
        before=min(d.before, last) if d.past_first and d.halves % 2 == 0 else None,
        after=min(d.after, last) if d.before_last and d.halves_left % 2 == 0 else None,
    )


def cells(bits: int, width: int) -> Cells:
    """The cells for a centre, on an axis of ``width`` cells."""
    return _cells(_deciding(bits, width), width)


@lru_cache(maxsize=64)
def intervals(width: int) -> tuple[Interval, ...]:
    """All centres in [0, 1], in intervals with the same cells on an axis of ``width`` cells."""
    found: list[Interval] = []
    waiting = [(0, _deciding(0, width), ONE_BITS, _deciding(ONE_BITS, width))]
    while waiting:
        first, at_first, last, at_last = waiting.pop()
        if at_first == at_last:
            mine = _cells(at_first, width)
            if not found or found[-1].cells != mine:
                found.append(Interval(first, mine))
            continue
        middle = (first + last) // 2
        waiting.append((middle + 1, _deciding(middle + 1, width), last, at_last))
        waiting.append((first, at_first, middle, _deciding(middle, width)))  # the lower half is taken first
    return tuple(found)


def within(width: int, first: int, stop: int) -> list[Interval]:
    """The intervals of the centres whose bits are from ``first`` up to ``stop``; the first begins there."""
    table = intervals(width)
    begins = [each.first for each in table]
    found = table[bisect_right(begins, first) - 1 : bisect_right(begins, stop - 1)]
    return [found[0]._replace(first=first), *found[1:]]


def scaled(first: int, stop: int, width: int) -> NDArray[np.float32]:
    """The centres of these bits times ``width``, (stop - first,) float32: integer products, rounded as integers."""
    out = np.empty(stop - first, dtype=np.int32)
    at = first
    while at < stop:
        exponent, fraction = divmod(at, FRACTION)
        whole = fraction + (FRACTION if exponent else 0)
        spare = max((whole * width).bit_length() - DIGITS, 0)
        # as many as have the same exponent and the same number of spare digits
        enough = -(-(1 << (DIGITS + spare)) // width)
        count = min(stop - at, FRACTION - fraction, enough - whole)
        product = np.arange(whole, whole + count, dtype=np.int64) * width
        if spare:  # add half a unit minus one, plus one if the kept part is odd: ties go to even
            product += (1 << (spare - 1)) - 1 + (product >> spare & 1)
            product >>= spare
        # a product that is rounded up to one more digit carries into the exponent, as it must
        out[at - first : at - first + count] = product + ((spare + max(exponent, 1) - 1) << (DIGITS - 1))
        at += count
    return out.view(np.float32)
