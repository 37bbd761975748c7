"""Assignment: which targets match which anchors, and which cells they are assigned to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

CHOICES = ("own", "left", "above", "right", "below")


@dataclass(frozen=True, eq=False)
class LayerAssignment:
    """The rows of one layer, and every step that led to them.

    N targets, A anchors, n rows: 1 to 5 for each matched pair of a target and an anchor, or 5 A N with
    ``every_row``. ``cell`` and ``box`` have x before y. Lengths are in cells of the layer, in float32 whatever the
    dtypes of the inputs.
    """

    grid: tuple[int, int]  # rows H, columns W
    scaled: Float32[Tensor, "N 4"]  # targets' x, y, w, h in cells
    ratio: Float32[Tensor, "A N"]  # the larger of the two side ratios, each taken as 1 or more
    matched: Bool[Tensor, "A N"]  # ratio < anchor_t
    choice: Bool[Tensor, "5 N"]  # in the order of CHOICES: is the target assigned to this cell
    present: Bool[Tensor, " n"] | None  # with every_row: which rows exist; None: all
    row_choice: Int64[Tensor, " n"]  # index into CHOICES
    target: Int64[Tensor, " n"]
    offset: Float32[Tensor, "n 2"]  # what was subtracted from the centre to find the cell
    shifted: Float32[Tensor, "n 2"]  # the centre minus the offset
    cls: Int64[Tensor, " n"]
    image: Int64[Tensor, " n"]
    anchor: Int64[Tensor, " n"]
    cell: Int64[Tensor, "n 2"]  # column, row; clamped into the grid
    box: Float32[Tensor, "n 4"]  # centre relative to the clamped cell, width, height
    anchor_wh: Float32[Tensor, "n 2"]

    @property
    def indices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The index of each row's prediction: image, anchor, grid row, grid column; each (n,) int64."""
        return self.image, self.anchor, self.cell[:, 1], self.cell[:, 0]

    def explain(self) -> list[str]:
        """One line for each target and anchor (whether they match, and why), and for each row (its cell, and why)."""
        lines = []
        for a, t in torch.cartesian_prod(*map(torch.arange, self.ratio.shape)).tolist():
            verb = "matches" if self.matched[a, t] else "does not match"
            lines.append(f"target {t} {verb} anchor {a}: side ratio {self.ratio[a, t]:.4g}")
        centre = self.scaled[self.target, :2].tolist()
        target = self.target.tolist()
        for i, (choice, cell, shifted) in enumerate(
            zip(self.row_choice.tolist(), self.cell.tolist(), self.shifted.tolist(), strict=True)
        ):
            clamped = "" if [int(v) for v in shifted] == cell else f", clamped from {tuple(map(int, shifted))}"
            lines.append(
                f"row {i}: target {target[i]}, anchor {int(self.anchor[i])}, centre "
                f"({centre[i][0]:.4g}, {centre[i][1]:.4g}), {CHOICES[choice]} cell {tuple(cell)}{clamped}"
            )
        return lines


def assign_layer(
    targets: Float[Tensor, "N 6"],
    anchors: Float[Tensor, "A 2"],
    grid: tuple[int, int],
    anchor_t: float,
    *,
    every_row: bool = False,
) -> LayerAssignment:
    """Assign targets to the anchors and cells of one layer: `assign_layers` with ``anchors`` and ``grid`` of one."""
    return assign_layers(targets, anchors[None], [grid], anchor_t, every_row=every_row)[0]


def assign_layers(
    targets: Float[Tensor, "N 6"],
    anchors: Float[Tensor, "L A 2"],
    grids: Sequence[tuple[int, int]],
    anchor_t: float,
    *,
    every_row: bool,
) -> list[LayerAssignment]:
    """Assign targets to the anchors and cells of all layers, in the same operations.

    ``targets``: image index, class, then x, y, w, h as fractions of the image, x and y the box centre.
    ``anchors``: width and height in cells of their layer. ``grids``: rows H, columns W. A target matches an
    anchor if no side of one is ``anchor_t`` times that of the other or more. Rows are ordered by choice (own,
    left, above, right, below), then by anchor, then by target. Everything is computed in float32, because rounding
    decides at grid lines and limits. Values are not checked here. Source: SPEC section 1.

    ``every_row``: return a row for every choice, anchor and target; ``present`` says which of them exist. Shapes then
    depend only on the shapes of the inputs, so nothing waits for the device.
    """
    targets, anchors = targets.float(), anchors.float()
    extent = _extents(targets, grids)
    scaled = targets[:, 2:] * torch.cat((extent, extent), dim=1)[:, None]
    side_ratio = scaled[:, None, :, 2:] / anchors[:, :, None]
    ratio = torch.maximum(side_ratio, 1 / side_ratio).amax(-1)
    matched = ratio < anchor_t
    choice = _choose_cells(scaled[..., :2], extent[:, None])
    made = choice[:, :, None] & matched[:, None]
    layer, row_choice, anchor, target = _every_index(made) if every_row else made.nonzero(as_tuple=True)
    present = made.flatten() if every_row else None

    centre, size = scaled[layer, target].split_with_sizes((2, 2), dim=1)
    # A neighbour is the cell that contains the centre shifted by half a cell, which is the centre minus the offset.
    half = torch.eye(2, device=targets.device) / 2
    offset = torch.cat((0 * half[:1], half, -half))[row_choice]
    shifted = centre - offset
    # The box is relative to the clamped cell: a centre on the image's far edge lies at 1.0 in the last cell.
    last = (extent.long() - 1)[layer]
    cell = shifted.long().clamp(min=0).minimum(last)
    image_class = targets[target, :2].long()
    if present is not None:  # absent rows may hold any values, but are read too: as class 0 of image 0
        image_class = image_class * present[:, None]
    image, cls = image_class.unbind(1)
    rows = {
        "row_choice": row_choice,
        "target": target,
        "offset": offset,
        "shifted": shifted,
        "cls": cls,
        "image": image,
        "anchor": anchor,
        "cell": cell,
        "box": torch.cat((centre - cell, size), dim=1),
        "anchor_wh": anchors[layer, anchor],
    }
    counts = [made[0].numel()] * len(grids) if every_row else made.sum((1, 2, 3)).tolist()
    of_targets = {"scaled": scaled, "ratio": ratio, "matched": matched, "choice": choice}
    by_layer: dict[str, Sequence[Any]] = {name: values.unbind() for name, values in of_targets.items()}
    by_layer |= {name: values.split_with_sizes(counts) for name, values in rows.items()}
    by_layer["present"] = [None] * len(grids) if present is None else present.split_with_sizes(counts)
    fields = ({name: values[i] for name, values in by_layer.items()} for i in range(len(grids)))
    return [LayerAssignment(grid=grid, **each) for grid, each in zip(grids, fields, strict=True)]


def _extents(targets: Float32[Tensor, "N 6"], grids: Sequence[tuple[int, int]]) -> Float32[Tensor, "L 2"]:
    """Columns and rows of each grid. Made on the targets' device: a copy from the host would wait for the device."""
    sizes = [targets.new_full((), n) for rows, columns in grids for n in (columns, rows)]
    return torch.stack(sizes).view(len(grids), 2)


def _choose_cells(centre: Float32[Tensor, "L N 2"], extent: Float32[Tensor, "L 1 2"]) -> Bool[Tensor, "L 5 N"]:
    """For each centre (x, y in cells): which of its own cell and the four neighbours are assigned."""
    from_end = extent - centre
    near_start = (centre - centre.floor() < 0.5) & (centre > 1)
    near_end = (from_end - from_end.floor() < 0.5) & (from_end > 1)
    own = torch.ones_like(near_start[..., :1])
    return torch.cat((own, near_start, near_end), dim=-1).mT


def _every_index(values: Bool[Tensor, "L 5 A N"]) -> tuple[Tensor, ...]:
    """The indices of all elements, in order: the result of ``nonzero`` if all are true."""
    ranges = [torch.arange(n, device=values.device) for n in values.shape]
    return tuple(i.flatten() for i in torch.meshgrid(*ranges, indexing="ij"))
