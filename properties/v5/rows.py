"""The rows of a layer, and how they are read of what a build_targets returned."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yololoss.harness.subjects.outcome import Floats, Ints

from .case import Case


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows one layer was given: each a cell and an anchor that answer for a target.

    n rows; lengths in cells of the layer; ``box`` is centre x, y relative to the row's cell, width, height.
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


def read_built(built: Any, case: Case) -> list[Rows] | None:
    """Rows from what a build_targets returned; None where it is of no known form.

    Four lists over layers or more: classes, boxes, indices (image, anchor, grid row, grid column), anchors.
    Six lists in yolov7's form: images, anchors, grid rows, grid columns, target rows, anchor sides.
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
