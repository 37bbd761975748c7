"""Holds the reference to recorded values: ``pytest golden --vectors FILE [--dialect NAME]``.

Each file (README.md) says what some loss did. The reference, in the loss's dialect, must give every anchor the recorded
target, and its values and gradients must agree within the error budget. Where rounding decides the assignment, the
recorded one must be one of those that rounding allows. What was NaN or infinite is a fault of the loss, so nothing is
compared there. Without ``--vectors``, the file of this folder is used.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from yololoss.harness.cases.files import read_file
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.dialect import read_dialect

from ..given import files_of
from .vectors import FILE, SIDES, TAL, TWO_HEADS, HeadResult, Vector, VectorFile, numbers

Allowed = TAL.module("allowed").Allowed
ROUNDED = 2.0**-24  # of a recorded number to float32
Count = Callable[[int], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each vector of each file."""
    named, found = metafunc.config.getoption("dialect"), []
    given = metafunc.config.getoption("vectors")
    for path in files_of("tal", given) if given else [FILE]:
        try:
            file = read_file(path, VectorFile)
            text = str((named if given else None) or file.source.get("dialect", TAL.usual_dialect))
            dialect = read_dialect(text, TAL.dialects, TAL.usual_dialect)
        except UsageError as error:
            raise pytest.UsageError(f"--vectors {path}: {error}") from error
        found += [pytest.param(each, dialect, id=f"{path.stem}-{each.id}") for each in file.vectors]
    metafunc.parametrize(("vector", "dialect"), found)


class Held:
    """One head of a vector: the reference, and what was recorded."""

    def __init__(self, case: Any, recorded: HeadResult, dialect: Any) -> None:
        self.recorded, self.plain = recorded, TAL.budget(case, dialect)
        self.case, self.dialect = case, dialect

    @cached_property
    def owner(self) -> np.ndarray:
        """The recorded target of each anchor, (B, A); -1 without one. Rows with score 0 have one as well."""
        r, there = self.plain.reference, self.recorded.foreground
        found = np.full_like(r.owner, -1)
        for image, anchor, target in zip(there.image, there.anchor, there.target, strict=True):
            found[image, anchor] = np.flatnonzero(r.image == image)[target]
        return found

    @cached_property
    def score(self) -> np.ndarray:
        """The recorded score of each anchor, (B, A)."""
        there, found = self.recorded.foreground, np.zeros(self.owner.shape)
        found[there.image, there.anchor] = numbers(there.score)
        return found

    @cached_property
    def other(self) -> np.ndarray:
        """Anchors with another target than the reference's, (B, A). What has score 0 within rounding has none."""
        mine = self.plain.reference.score.max(axis=1)
        there = (self.score > 0) | (mine > self.plain.score.max(axis=1))
        return (self.owner != self.plain.reference.owner) & there

    @cached_property
    def budget(self) -> Any:
        """The reference's, by the recorded assignment where rounding allows another one than the reference's."""
        if not self.other.any():
            return self.plain
        return TAL.budget(self.case, self.dialect, self.owner, self.plain.edges_in_doubt)

    def is_allowed(self) -> bool:
        """Whether the recorded assignment is the reference's, or differs from it by decisions of rounding alone."""
        if not self.other.any():
            return True
        image, anchor = np.nonzero(self.other & (self.score > 0))
        may = Allowed(self.plain).may_own[self.owner[image, anchor], anchor]
        return self.plain.doubt is not None and bool(may.all())


def held(vector: Vector, dialect: Any) -> list[Held]:
    """The heads of a vector, the one-to-many head first."""
    if vector.case.e2e is not None:
        dialect = dialect.but(heads=TWO_HEADS[vector.case.e2e.name])
    pairs = zip(vector.case.heads, vector.expected.heads, strict=True)
    return [Held(case, recorded, dialect) for case, recorded in pairs]


def close(want: Any, got: Any, off: Any, what: str) -> int:
    """The recorded numbers that are finite are the reference's within rounding; return how many those are."""
    want, got = numbers(want), np.asarray(got)
    assert want.shape == got.shape, what
    known = np.isfinite(want)
    assert (abs(want - got) <= off + ROUNDED * abs(want))[known].all(), f"{what}: recorded {want}, reference {got}"
    return int(known.sum())


def test_the_reference_gives_the_recorded_assignment(vector: Vector, dialect: Any, count: Count) -> None:
    """The target and label of every anchor, and the corners of targets to the last bit; scores within the budget."""
    for each in held(vector, dialect):
        assert each.is_allowed(), f"other targets at image, anchor {np.argwhere(each.other).tolist()}"
        r, there = each.budget.reference, each.recorded.foreground
        rows = np.array(there.image, dtype=int), np.array(there.anchor, dtype=int)
        shown = numbers(there.score) > 0
        assert np.array_equal(r.label[each.owner[rows]][shown], np.array(there.label)[shown])
        count(4 * int(shown.sum()))
        mine, off = (np.moveaxis(part, 1, 2)[rows].max(axis=-1) for part in (r.score, each.budget.score))
        count(close(there.score, mine, off, "score"))
        total = each.budget.row_scores.sum() + ROUNDED * r.case.anchors * r.row_scores.sum()
        count(close(each.recorded.score_sum, r.row_scores.sum(), total, "sum of scores"))
        corners = [box for mine in r.mine for box in r.corners[mine].tolist()]
        # recorded as the shortest decimals that read back as the same float32
        assert np.array_equal(np.float32(corners), np.float32(each.recorded.boxes))
        count(4 * len(corners))


def test_the_reference_gives_the_recorded_values(vector: Vector, dialect: Any, count: Count) -> None:
    """Total and items, within the error budget."""
    heads = held(vector, dialect)
    budgets = [each.budget for each in heads]
    items = [np.array(b.reference.calls[0].items) for b in budgets]
    off = [b.items[0] + ROUNDED * abs(own) for b, own in zip(budgets, items, strict=True)]
    times = [b.reference.batch for b in budgets]
    total, total_off = (sum(n * one for n, one in zip(times, part, strict=True)) for part in (items, off))
    count(close(vector.expected.total, total, total_off, "total"))
    # of two heads: of the one-to-one head alone, but for YOLOv10
    counted = slice(None) if heads[0].dialect.heads == "YOLOv10" else slice(-1, None)
    count(close(vector.expected.items, sum(items[counted]), sum(off[counted]), "items"))


def test_the_reference_gives_the_recorded_gradients(vector: Vector, dialect: Any, count: Count) -> None:
    """In the recorded anchors, and summed over the scores of each level, within the budget; no other box has one."""
    for each in held(vector, dialect):
        b, want, there = each.budget, each.recorded.gradients, each.recorded.foreground
        r = b.reference
        sides = r.placed(r.box_gradient + r.third_gradient)
        off = r.placed(b.box_gradient + b.third_gradient) + b.least
        image, anchor = np.array(want.box_cells, dtype=int).reshape(-1, 2).T
        at, channels = (image, slice(None), anchor), SIDES * r.case.reg_max
        count(close(numbers(want.box).reshape(-1, channels), sides[at], off[at], "gradient of boxes"))
        rest = sides.copy()
        rest[at] = 0
        assert (abs(rest) <= off).all(), "a box has a gradient where none is recorded"
        rows = np.array(there.image, dtype=int), slice(None), np.array(there.anchor, dtype=int)
        recorded = numbers(want.score).reshape(-1, r.case.classes)
        count(close(recorded, r.class_gradient[rows], b.class_gradient[rows], "gradient of scores"))
        levels = zip(r.by_level(r.class_gradient), r.by_level(b.class_gradient), want.score_sums, strict=True)
        for mine, errors, sums in levels:
            count(close(sums, [mine.sum(), abs(mine).sum()], errors.sum(), "sums of the gradient of scores"))
