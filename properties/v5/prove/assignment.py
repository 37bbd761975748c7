"""Every float32 centre on grids of some widths: a loss's rows compared with integer arithmetic.

Each image has one target, so that each row names its target, and there is one anchor, which every target matches. The
centre has the same coordinate on both axes, so that a grid of H rows and W columns proves both widths for it at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from yololoss.harness.prove.centres import Grid, batches, centre, centres, first_raising, raised_at_once
from yololoss.harness.prove.proof import Unprovable
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.subject import Unsupported

from ..case import Case, FormulaLogits
from ..prove.exact import Cells, intervals, scaled, within
from ..rows import Rows

WIDTHS = (1, 2, 3, 5, 10, 13, 20, 40, 80, 160)
LAYERS = 3  # most grids per call: they share the cost of a call
BATCH = 2**16  # targets per call: more do not fit the processor's cache, and with fewer the cost of a call dominates
SIDE = 0.5  # sides of every target, as a fraction of the image: exact in cells of any grid


@dataclass(frozen=True)
class Odd:
    """A centre whose rows are wrong, or on which the loss raised."""

    bits: int
    grid: Grid


@dataclass(frozen=True)
class Block:
    """Consecutive targets, each of which must have a row in the same cell."""

    first: int  # target
    stop: int
    row: int
    column: int


def passes(widths: Sequence[int]) -> list[tuple[Grid, ...]]:
    """Groups of grids for these widths, each width once as columns and once as rows. A group is tried in one call."""
    ring = sorted(set(widths), reverse=True)
    grids = [(rows, columns) for columns, rows in zip(ring, [*ring[1:], ring[0]], strict=True)]
    calls = -(-len(grids) // LAYERS)
    return [tuple(grids[i::calls]) for i in range(calls)]


def changes(grids: Sequence[Grid]) -> set[int]:
    """The bits of the centres at which the cells change."""
    return {each.first for grid in grids for width in grid for each in intervals(width)}


def frame(grids: Sequence[Grid], targets: tuple[tuple[float, float, float, float, float, float], ...] = ()) -> Case:
    """A case on these grids with one anchor, which has the size of each target. Its predictions are never read."""
    return Case(
        batch=1,
        classes=1,
        grids=tuple(grids),
        strides=tuple(8.0 * 2**i for i in range(len(grids))),
        anchors=tuple(((columns * SIDE, rows * SIDE),) for rows, columns in grids),
        targets=targets,
        predictions=FormulaLogits(multiplier=1, increment=1),
    )


def at_centre(grid: Grid, bits: int) -> Case:
    """One target, with the centre of these bits on both axes."""
    return frame([grid], ((0.0, 0.0, centre(bits), centre(bits), SIDE, SIDE),))


def rows_of(subject: LossUnderTest, grids: Sequence[Grid], first: int, stop: int) -> list[Rows]:
    """The loss's rows for each grid, for the centres of these bits, one target per image. Raises Unprovable."""
    count = stop - first
    targets = torch.zeros(count, 6)
    targets[:, 0] = torch.arange(count)
    targets[:, 2] = targets[:, 3] = torch.from_numpy(centres(first, stop))
    targets[:, 4:] = SIDE
    case = frame(grids)
    # an assignment reads only shapes, so all predictions can share one number in memory
    nothing = torch.zeros(1, device=subject.device)
    p = [nothing.expand(count, 1, *grid, 5 + case.classes) for grid in grids]
    made = subject.make(case, subject.device)
    if not made.any_size:
        raise Unprovable("it takes inputs of one size only")
    built = made.rows(p, targets.to(subject.device))
    if built is None:
        raise Unprovable("it shows no rows")
    if len(built) != len(grids):
        raise Unprovable(f"it shows rows of {len(built)} layers, expected {len(grids)}")
    return list(built)


def blocks(grid: Grid, first: int, stop: int) -> list[Block]:
    """The rows that the centres of these bits must have, in SPEC's order: own, left, above, right, below."""
    rows, columns = grid
    parts = list(_parts(within(columns, first, stop), within(rows, first, stop), stop))
    found = []
    for choice in range(5):
        for begin, end, across, down in parts:
            row, column = _cell(choice, across, down)
            if row is not None and column is not None:
                found.append(Block(begin - first, end - first, row, column))
    return found


def _parts(
    across: Sequence[tuple[int, Cells]], down: Sequence[tuple[int, Cells]], stop: int
) -> Iterator[tuple[int, int, Cells, Cells]]:
    """Ranges of bits in which neither axis changes its cells, with the cells of both."""
    by_axis = [dict(across), dict(down)]
    x, y = across[0][1], down[0][1]
    for begin, end in pairwise((*sorted({*by_axis[0], *by_axis[1]}), stop)):
        x, y = by_axis[0].get(begin, x), by_axis[1].get(begin, y)
        yield begin, end, x, y


def _cell(choice: int, across: Cells, down: Cells) -> tuple[int | None, int | None]:
    """Grid row and column of a choice (own, left, above, right, below); None for one that is not assigned."""
    row = (down.own, down.own, down.before, down.own, down.after)[choice]
    column = (across.own, across.before, across.own, across.after, across.own)[choice]
    return row, column


class Wanted:
    """The rows that one grid must have, for the centres of some bits."""

    def __init__(self, grid: Grid, first: int, stop: int) -> None:
        self.grid = grid
        self.count = stop - first
        self.blocks = blocks(grid, first, stop)
        self.down, self.across = (scaled(first, stop, width) for width in grid)

    def odd(self, rows: Rows) -> int | None:
        """The first target whose rows are wrong; None if all are right."""
        return None if self._in_order(rows) else self._first_odd(rows)

    def _in_order(self, rows: Rows) -> bool:
        """Whether the rows are right and in SPEC's order. Most losses pass this quick test."""
        if len(rows) != sum(b.stop - b.first for b in self.blocks) or not self._alike(rows).all():
            return False
        at, numbers = 0, np.arange(self.count)
        for b in self.blocks:
            here = slice(at, at + b.stop - b.first)
            at = here.stop
            x, y = self._offsets(b)
            if not (
                np.array_equal(rows.image[here], numbers[b.first : b.stop])
                and (rows.column[here] == b.column).all()
                and (rows.row[here] == b.row).all()
                and np.array_equal(rows.box[here, 0], x)
                and np.array_equal(rows.box[here, 1], y)
            ):
                return False
        return True

    def _offsets(self, b: Block) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The centres relative to the cell of a block: a difference that is exact in float32.

        A centre in a cell, or half a cell beside it, is a multiple of 2^-24 cells, unless the cell is the first, which
        begins at 0.
        """
        own = slice(b.first, b.stop)
        return self.across[own] - np.float32(b.column), self.down[own] - np.float32(b.row)

    def _alike(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether anchor and class, size, anchor sides, and the range of centres are right; (4,)."""
        sides = np.array(self.grid[::-1], dtype=np.float32) * np.float32(SIDE)
        xy = rows.box[:, :2]
        return np.array(
            (
                not rows.anchor.any() and not rows.cls.any(),
                (rows.box[:, 2:] == sides).all(),
                (rows.anchor_wh == sides).all(),
                xy.min(initial=0) >= -0.5 and xy.max(initial=0) <= 1.5,
            )
        )

    def _first_odd(self, rows: Rows) -> int | None:
        """The same for rows in any order."""
        lengths = [b.stop - b.first for b in self.blocks]
        want = np.zeros((sum(lengths), 9), dtype=np.float64)  # indices and float32 are both exact in float64
        want[:, 0] = np.concatenate([np.arange(b.first, b.stop) for b in self.blocks])
        want[:, 2], want[:, 3] = (np.repeat([getattr(b, n) for b in self.blocks], lengths) for n in ("row", "column"))
        want[:, 5], want[:, 6] = (np.concatenate(each) for each in zip(*map(self._offsets, self.blocks), strict=True))
        want[:, 7:] = np.array(self.grid[::-1]) * SIDE
        indices = (rows.image, rows.anchor, rows.row, rows.column, rows.cls)
        got = np.column_stack((*indices, rows.box)).astype(np.float64)
        want, got = _sorted(want), _sorted(got)
        both = min(len(want), len(got))
        differ = (want[:both] != got[:both]).any(axis=1)
        if len(got) == len(want) and not differ.any():
            return None if self._alike(rows).all() else int(got[0, 0])  # the sides of an anchor are wrong, in every row
        at = int(np.argmax(differ)) if differ.any() else both
        images = [each[at, 0] for each in (want, got) if at < len(each)]
        return int(np.clip(min(images), 0, self.count - 1))  # a row may have an image that does not exist


def _sorted(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort rows by image, then by cell."""
    order = np.lexsort((table[:, 3], table[:, 2], table[:, 0]))
    return np.asarray(table[order])


def odd_in(subject: LossUnderTest, grids: Sequence[Grid], first: int, stop: int) -> Odd | None:
    """The first centre of these bits with wrong rows, tried batch by batch. Raises Unprovable."""
    each = (_odd(subject, grids, *bits) for bits in batches(first, stop, BATCH))
    return next((odd for odd in each if odd is not None), None)


def _odd(subject: LossUnderTest, grids: Sequence[Grid], first: int, stop: int) -> Odd | None:
    try:
        built = rows_of(subject, grids, first, stop)
    except (Unprovable, Unsupported):
        raise
    except Exception as error:
        found = _raising(subject, grids, first, stop)
        if found is None:
            raise raised_at_once(stop - first, error) from error
        return found
    odd = [(wanted.odd(rows), wanted.grid) for wanted, rows in zip(_wanted(grids, first, stop), built, strict=True)]
    there = [(target, grid) for target, grid in odd if target is not None]
    if not there:
        return None
    target, grid = min(there, key=lambda each: each[0])
    return Odd(first + target, grid)


def _raising(subject: LossUnderTest, grids: Sequence[Grid], first: int, stop: int) -> Odd | None:
    """A centre on which the loss raises by itself, and its grid; None if there is none."""
    for grid in grids:
        bits = first_raising(partial(rows_of, subject, [grid]), first, stop)
        if bits is not None:
            return Odd(bits, grid)
    return None


def shown(subject: LossUnderTest, odd: Odd) -> tuple[str, str]:
    """The cells that a centre must have, and those that it has if it is the only target."""
    (wanted,) = _wanted([odd.grid], odd.bits, odd.bits + 1)
    try:
        (rows,) = rows_of(subject, [odd.grid], odd.bits, odd.bits + 1)
        pairs = sorted(zip(rows.column.tolist(), rows.row.tolist(), strict=True))
        observed = f"{pairs}{'' if wanted.odd(rows) is None or pairs != _pairs(wanted) else ' with other boxes'}"
    except Exception as error:
        observed = f"{type(error).__name__}: {error}"
    return f"cells (column, row) {_pairs(wanted)}", observed


def _pairs(wanted: Wanted) -> list[tuple[int, int]]:
    return sorted((block.column, block.row) for block in wanted.blocks)


def _wanted(grids: Sequence[Grid], first: int, stop: int) -> list[Wanted]:
    return [Wanted(grid, first, stop) for grid in grids]
