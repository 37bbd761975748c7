"""Residual risk: how likely the next case shows what no case of a session has shown.

After Good and Turing: of N cases, the share of those that were the only one to show something estimates how likely the
next case shows something new. The interval is that of a Poisson count; ``docs/measured/risk.md`` says how often it is
right.
"""

import math
from collections.abc import Callable, Collection

from yololoss.harness.cases.case import Data

TAIL = 0.025  # on each side of the interval
ENOUGH = 100  # cases; after fewer, the measured coverage is not known
STEPS = 60  # of a bisection: more digits than a float has


class Risk(Data):
    """How likely the next case shows something new, with an interval of 95 %."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.2g} ({self.low:.2g} to {self.high:.2g})"


def residual(counts: Collection[int], cases: int) -> Risk | None:
    """The risk after so many cases; ``counts`` has, for each thing that was seen, how many cases showed it.

    None after too few cases.
    """
    if cases < ENOUGH:
        return None
    once = sum(count == 1 for count in counts)
    low = _rate(lambda rate: 1 - _at_most(once - 1, rate) < TAIL, once) if once else 0.0
    high = _rate(lambda rate: _at_most(once, rate) > TAIL, once)
    return Risk(estimate=once / cases, low=low / cases, high=min(high / cases, 1.0))


def _rate(holds: Callable[[float], bool], once: int) -> float:
    """The largest rate for which ``holds`` is true; it is true for small ones only."""
    low, high = 0.0, 10.0 + 4.0 * once
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _at_most(count: int, rate: float) -> float:
    """How likely a Poisson number of this rate is ``count`` or less."""
    return sum(math.exp(i * math.log(rate) - rate - math.lgamma(i + 1)) for i in range(count + 1))
