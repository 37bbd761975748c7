"""Which assignments are right where rounding decides: any that differs from the reference by such decisions alone.

A target surely takes an anchor if fewer than k others may be as good, and may take one if fewer than k others surely
are better. Of several targets that take an anchor any may win it that may have the largest overlap. So each anchor has
some targets that may own it, and one that is surely taken must have one.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice, product

import numpy as np

from .budget import VANISHING, Budget
from .reading import Reading
from .reference import Bools, Ints

MOST = 32  # assignments that are tried, where several targets have the class that an anchor shows


class Allowed:
    """The right assignments of a case, T targets and A anchors."""

    def __init__(self, budget: Budget) -> None:
        self._doubtful = budget.edges_in_doubt
        self.budget = Budget(budget.case, budget.dialect, also=self._doubtful)
        self.r = self.budget.reference
        low, high = self.budget.metric_range
        self._low, self._high = np.where(self._doubtful, 0, low), high

    @cached_property
    def may_take(self) -> Bools:
        """Which anchors each target may take, (T, A)."""
        better = (self._low[:, None] > self._high[:, :, None]).sum(axis=2)
        return np.asarray(self.r.candidate & (better < self.r.topk))

    @cached_property
    def takes(self) -> Bools:
        """Which anchors each target surely takes, (T, A)."""
        as_good = (self._high[:, None] >= self._low[:, :, None]).sum(axis=2) - 1
        return np.asarray(self.r.candidate & ~self._doubtful & (as_good < self.r.topk) & (self._low >= VANISHING))

    @cached_property
    def may_win(self) -> Bools:
        """Which targets may have the largest overlap of those of their image that may win the anchor, (T, A)."""
        low, high = self.budget.overlap_range
        takers = self.budget.dialect.contested == "takers"
        running, surely = (self.may_take, self.takes) if takers else (self.r.candidate,) * 2
        low = np.where(surely & ~self._doubtful, low, -1.0)
        found = np.zeros_like(running)
        for mine in self.r.mine:
            rows = np.flatnonzero(mine)
            for row in rows:
                others = low[rows[rows != row]].max(axis=0, initial=-1)
                found[row] = running[row] & (high[row] >= others)
        return found

    @cached_property
    def may_own(self) -> Bools:
        """Which targets may own each anchor, (T, A)."""
        found = np.zeros_like(self.may_take)
        for mine in self.r.mine:
            sure, maybe = self.takes[mine].sum(axis=0), self.may_take[mine].sum(axis=0)
            alone = self.takes[mine] & (sure == 1) | self.may_take[mine] & (sure == 0)
            found[mine] = alone | (self.may_win[mine] & (maybe > 1))
        return found

    @cached_property
    def must_be_owned(self) -> Bools:
        """Anchors that a target surely takes, (B, A)."""
        return np.stack([self.takes[mine].any(axis=0) for mine in self.r.mine])

    def owners(self, reading: Reading) -> Iterator[Ints]:
        """The assignments that a reading may show, (B, A) each: where a class is shown, of a target of that class.

        Where none is shown, the anchor has no target, or that of the reference with a score too small to be seen.
        """
        shown = np.argwhere(reading.found)
        r = self.r
        options = [
            np.flatnonzero((r.image == image) & (r.label == cls) & self.may_own[:, anchor])
            for image, cls, anchor in shown
        ]
        # What is too small to be seen may still be the largest overlap of its target, or have none.
        seen = reading.found.any(axis=1) | (r.score - self.budget.score > 2 * reading.error).any(axis=1)
        hidden = np.where(seen, -1, r.owner)
        some = list(islice(product(*options), MOST // 2))
        for kept, chosen in product((True, False), some):
            owner = hidden.copy() if kept else np.full_like(hidden, -1)
            for (image, _, anchor), row in zip(shown, chosen, strict=True):
                owner[image, anchor] = row
            yield owner

    def too_many(self, owner: Ints) -> Ints:
        """For each target how many anchors more than its k it must have taken by itself, (T,)."""
        own = owner[self.r.image] == np.arange(len(self.r.image))[:, None]
        rivals = np.stack([self.may_take[mine].sum(axis=0) for mine in self.r.mine])[self.r.image]
        alone = own & (rivals <= 1) & (self._high >= VANISHING)
        return np.asarray(alone.sum(axis=1) - self.r.topk)
