"""Gathering: each row's logits are those of its own cell.

The cells that a loss reads are seen in the gradient of its box and class logits.
"""

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .rows import Rows
from .strategies import WITH_TARGETS

Mask = NDArray[np.bool_]


def used(exam: Exam, i: int, rows: Rows) -> Mask:
    """(B, A, H, W): whether a row uses a cell, without rows outside the grid, which break assign.clamped-indices."""
    mask = np.zeros(exam.case.shape(i)[:4], dtype=bool)
    at = np.stack((rows.image, rows.anchor, rows.row, rows.column))
    inside = ((at >= 0) & (at < np.array(mask.shape)[:, None])).all(axis=0)
    mask[tuple(at[:, inside])] = True
    return mask


def trained(exam: Exam, i: int) -> Mask:
    """(B, A, H, W): whether a cell has a gradient in its box or class logits."""
    return np.asarray(np.delete(exam.gradients[i], 4, axis=-1).any(axis=-1))


def _first(cells: Mask) -> str:
    """The first of these cells; "" if there is none."""
    found = np.argwhere(cells)[:1].tolist()
    return "".join("image {}, anchor {}, row {}, column {}".format(*each) for each in found)


@law(
    "gather.own-cell",
    title="The logits of a row are read from another cell",
    source="SPEC 2, 4",
    cases=WITH_TARGETS,
    everywhere=True,
)
def test_the_logits_of_a_row_are_those_of_its_cell(exam: Exam) -> None:
    """No cell without a row has a box or class gradient where the cell of a row has none."""
    for i, rows in enumerate(exam.budget.reference.rows):
        own, seen = used(exam, i, rows), trained(exam, i)
        lacking, instead = _first(own & ~seen), _first(seen & ~own)
        where = f"layer {i}, a cell whose box and class logits are read"
        exam.expect(not (lacking and instead), where, lacking, instead)
