"""The rows of a layer, and how they are read from the result of build_targets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from yololoss.harness.subjects.outcome import Floats, Ints

from .case import Case


@dataclass(frozen=True, eq=False)
class Rows:
    """The n rows of one layer. Each row assigns a target to an anchor and a cell.

    Lengths are in cells of the layer. ``box`` is the centre x, y relative to the row's cell, then width, height.
    """

    image: Ints  # (n,)
    anchor: Ints  # (n,)
    row: Ints  # (n,) grid row, gj
    column: Ints  # (n,) grid column, gi
    cls: Ints  # (n,)
    box: Floats  # (n, 4)
    anchor_wh: Floats  # (n, 2)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def table(self) -> NDArray[np.float64]:
        """Every row in full: image, anchor, grid row and column, class, x, y, w, h, the anchor's w and h; (n, 11)."""
        integers = (self.image, self.anchor, self.row, self.column, self.cls)
        return np.column_stack((*integers, self.box, self.anchor_wh)).astype(np.float64)

    @property
    def whole(self) -> list[tuple[float, ...]]:
        """The rows of the table."""
        return [tuple(row) for row in self.table.tolist()]

    def ranges(self, case: Case, layer: int) -> Iterator[tuple[str, Ints, int]]:
        """The indices by name, each with its end: all must lie in [0, end)."""
        height, width = case.grids[layer]
        yield "image", self.image, case.batch
        yield "anchor", self.anchor, len(case.anchors[layer])
        yield "grid row", self.row, height
        yield "grid column", self.column, width
        yield "class", self.cls, case.classes


def read_built(built: Any, case: Case) -> list[Rows] | None:
    """The rows from the result of build_targets; None if its form is unknown.

    Upstream's form, four or more lists over layers: classes, boxes, indices (image, anchor, grid row, grid column),
    anchors. yolov7's form, six lists: images, anchors, grid rows, grid columns, target rows, anchor sides.
    """
    if not _lists(built) or not all(map(_lists, built[:4])):
        return None
    if len(built) >= 4 and _lists(built[2][0]) and isinstance(built[0][0], Tensor):
        layers = zip(*built[:4], strict=True)
        return [_rows(*indices, cls=cls, box=box, anchor_wh=wh) for cls, box, indices, wh in layers]
    if len(built) != 6 or not all(map(_lists, built)):
        return None
    found = []
    for grid, *indices, targets, wh in zip(case.grids, *built, strict=True):
        cell = torch.stack((indices[3], indices[2]), dim=1)
        scaled = targets[:, 2:6] * targets.new_tensor((grid[1], grid[0]) * 2)
        box = torch.cat((scaled[:, :2] - cell, scaled[:, 2:]), dim=1)
        found.append(_rows(*indices, cls=targets[:, 1], box=box, anchor_wh=wh))
    return found


def _lists(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0


def _rows(*indices: Tensor, cls: Tensor, box: Tensor, anchor_wh: Tensor) -> Rows:
    image, anchor, row, column, classes = (i.detach().cpu().long().reshape(-1).numpy() for i in (*indices, cls))
    return Rows(
        image=image,
        anchor=anchor,
        row=row,
        column=column,
        cls=classes,
        box=box.detach().cpu().float().reshape(-1, 4).numpy(),
        anchor_wh=anchor_wh.detach().cpu().float().reshape(-1, 2).numpy(),
    )
