"""The assignment along one axis in whole numbers: no float is computed here.

A float32 from 0 on is a whole number of 2^-149, so Python's integers hold it, its product with a width W and its
difference from W exactly; `rounded` takes the nearest float32, ties to even. That is all of SPEC 1.1, 1.3 and 1.4.

Why a table is enough for a thousand million centres: rounding is monotone (a larger number is never rounded to a
smaller one), and so are scaling by W, adding or subtracting a constant, floor and comparison. So each of the numbers
that decide (`_deciding`) only grows, or only falls, as the centre grows, and the bits of floats from 0 on are in the
order of the floats. **Where such a number is the same at both ends of a range, it is the same all through it**, and so
then are the cells. `intervals` halves ranges until that is so: no count of where they should lie is taken on trust.
"""

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ONE = 1 << 149  # 1.0, in the units of the smallest float32
HALF = ONE >> 1
DIGITS = 24  # binary digits that a float32 keeps
FRACTION = 1 << (DIGITS - 1)
ZERO_BITS, ONE_BITS = 0, 0x3F800000  # of the first and the last centre of an image
CENTRES = ONE_BITS - ZERO_BITS + 1


class Cells(NamedTuple):
    """The cells that one axis contributes: of the own row, and of the neighbours before and after, if taken."""

    own: int
    before: int | None
    after: int | None


class Interval(NamedTuple):
    """Centres that are treated alike: those of the bits from ``first`` up to the next interval's."""

    first: int
    cells: Cells


def number(bits: int) -> int:
    """The float32 of these bits (of 0 or above, and finite), in units of 2^-149."""
    exponent, fraction = divmod(bits, FRACTION)
    return (FRACTION + fraction) << (exponent - 1) if exponent else fraction


def bits(fraction: float) -> int:
    """The bits of the float32 nearest to a number of 0 or above."""
    return int(np.float32(abs(fraction)).view(np.int32))


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
    """All that decides on one axis, each monotone in the centre."""

    halves: int  # half cells from the start: frac < 1/2 where that is even
    past_first: bool
    halves_left: int  # half cells to the end
    before_last: bool
    before: int  # where the centre lies when it is moved half a cell back; and forth
    after: int


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
    """All centres in [0, 1], in intervals that are treated alike on an axis of ``width`` cells."""
    found: list[Interval] = []
    waiting = [(ZERO_BITS, _deciding(ZERO_BITS, width), ONE_BITS, _deciding(ONE_BITS, width))]
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
    """The centres of these bits times ``width``, (stop - first,) float32: products of integers, rounded as such."""
    out = np.empty(stop - first, dtype=np.int32)
    at = first
    while at < stop:
        exponent, fraction = divmod(at, FRACTION)
        whole = fraction + (FRACTION if exponent else 0)
        spare = max((whole * width).bit_length() - DIGITS, 0)
        # as far as exponent and digits to spare stay what they are
        enough = -(-(1 << (DIGITS + spare)) // width)
        count = min(stop - at, FRACTION - fraction, enough - whole)
        product = np.arange(whole, whole + count, dtype=np.int64) * width
        if spare:  # half a unit less one, and one for odd numbers: so that ties go to even ones
            product += (1 << (spare - 1)) - 1 + (product >> spare & 1)
            product >>= spare
        # a product that is rounded up to one digit more carries into the exponent, as it must
        out[at - first : at - first + count] = product + ((spare + max(exponent, 1) - 1) << (DIGITS - 1))
        at += count
    return out.view(np.float32)
