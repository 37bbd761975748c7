"""Residual risk: how likely the next case shows a kind of finding that no case has shown.

After Good and Turing: of N cases, the share of those that alone showed something estimates how likely the next case
shows something new. Only cases drawn independently count, so no case that varies an earlier one. There is no lower
limit: for the few kinds of one fault the true risk is often 0 soon, whatever the estimate. How often the upper limit
holds, and what else was tried: ``docs/measured/residual.md``.
"""

import math

from yololoss.harness.cases.case import Data

MISSED = 0.05  # how often the risk may be above the upper limit
ENOUGH = 100  # cases; after fewer, how often the limit holds was not measured
STEPS = 60  # of a bisection: more digits than a float has


class Risk(Data):
    """How likely the next case shows something new."""

    estimate: float
    at_most: float  # with a confidence of 95 %

    def __str__(self) -> str:
        return f"about {self.estimate:.2g}, at most {self.at_most:.2g} (95 %)"


def residual(alone: int, cases: int) -> Risk | None:
    """The risk after so many cases, of which ``alone`` showed what no other showed. None after too few cases."""
    if cases < ENOUGH:
        return None
    return Risk(estimate=alone / cases, at_most=min(poisson_limit(alone, MISSED) / cases, 1.0))


def poisson_limit(count: int, tail: float) -> float:
    """The rate of a Poisson number at which ``count`` or less has the probability ``tail``."""
    low, high = 0.0, 10.0 + 4.0 * count
    for _ in range(STEPS):
        middle = (low + high) / 2
        likely = sum(math.exp(i * math.log(middle) - middle - math.lgamma(i + 1)) for i in range(count + 1))
        low, high = (middle, high) if likely > tail else (low, middle)
    return high
