"""What a finding says in numbers: the assignment worked out, target by target."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from .budget import Budget
from .case import Case
from .dialects import Dialect
from .reference import Reference

TARGETS, ANCHORS = 6, 8  # of each case, and of each target: more are left out


def worked_out(case: Case, dialect: Dialect) -> Iterator[str]:
    """Each target with its best candidates: overlap, class score, metric, and what became of them."""
    if case.invalid is not None:
        return
    budget = Budget(case, dialect)
    r = budget.reference
    for row in islice(range(len(r.image)), TARGETS):
        yield from _target(r, row)
    if len(r.image) > TARGETS:
        yield f"and {len(r.image) - TARGETS} more targets"
    yield f"sum of scores {r.row_scores.sum():.6g}, so the terms are divided by {r.divisor:.6g}"
    if budget.doubt is not None:
        yield f"rounding decides {budget.doubt}"


def _target(r: Reference, row: int) -> Iterator[str]:
    corners = ", ".join(f"{value:.6g}" for value in r.corners[row])
    found = np.flatnonzero(r.candidate[row])
    taken, owned = int(r.chosen[row].sum()), int((r.owner[r.image[row]] == row).sum())
    what = (
        f"{len(found)} candidate{'s' * (len(found) != 1)}, {taken} taken, {owned} in the end"
        if r.valid[row]
        else "does not count"
    )
    yield f"target {row}: corners ({corners}): {what}"
    below, as_long = r.small_side
    if r.valid[row] and (r.corners[row, 2:] - r.corners[row, :2] < below).any():
        yield f"  a side below {below:g} counts as {as_long:g}, around the same centre, for which anchors are inside"
    for anchor in sorted(found, key=lambda a: -r.metric[row, a])[:ANCHORS]:
        yield f"  anchor {anchor} ({_place(r.case, int(anchor))}): {_numbers(r, row, int(anchor))}"


def _numbers(r: Reference, row: int, anchor: int) -> str:
    owner = r.owner[r.image[row], anchor]
    numbers = f"overlap (CIoU) {r.overlap[row, anchor]:.6g}, metric {r.metric[row, anchor]:.6g}"
    if owner == row:
        return f"{numbers}, score {r.score[r.image[row], r.label[row], anchor]:.6g}"
    lost = f"lost to target {owner}" if owner >= 0 else "not kept"
    return f"{numbers}, {lost if r.chosen[row, anchor] else 'not among the best'}"


def _place(case: Case, anchor: int) -> str:
    """Level, row and column of an anchor."""
    for level, (rows, columns) in enumerate(case.grids):
        if anchor < rows * columns:
            return f"level {level}, row {anchor // columns}, column {anchor % columns}"
        anchor -= rows * columns
    raise ValueError("no such anchor")
