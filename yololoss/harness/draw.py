"""Pictures of a case: grids, targets, and the cells that answer for them. Needs the extra "draw"."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from yololoss.assign import CHOICES, LayerAssignment, assign_layer
from yololoss.harness.case import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the Okabe-Ito palette, which stays apart for colour-blind readers; and a hatch for print.
LOOKS = {
    "own": ("#0072B2", ""),
    "left": ("#E69F00", "//"),
    "above": ("#009E73", ".."),
    "right": ("#CC79A7", "\\\\"),
    "below": ("#56B4E9", "xx"),
}


def draw(case: Case, path: Path, title: str) -> None:
    """Draw each layer of a case into one picture; the format follows the path's suffix (.png, .svg, .pdf)."""
    import matplotlib as mpl  # noqa: PLC0415  # heavy, and in an extra
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    with mpl.rc_context(
        {"svg.hashsalt": "yololoss", "svg.fonttype": "none", "hatch.linewidth": 0.5}
    ):  # one file every time
        figure = Figure(figsize=(5 * case.layers, 5.6), layout="constrained")
        for i, axes in enumerate(figure.subplots(1, case.layers, squeeze=False)[0]):
            anchors = torch.tensor(case.anchors[i])
            _draw_layer(axes, assign_layer(case.target_rows, anchors, case.grids[i], case.hyp.anchor_t))
            axes.set_title(f"layer {i}: {case.grids[i][0]} x {case.grids[i][1]} cells, stride {case.strides[i]:g}")
        handles = [Patch(facecolor=c, hatch=h, alpha=0.6, label=name) for name, (c, h) in LOOKS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(LOOKS), frameon=False)
        figure.suptitle(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_layer(axes: "Axes", layer: LayerAssignment) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    height, width = layer.grid
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    step = max(1, max(layer.grid) // 10)
    axes.set_xticks(range(0, width + 1, step))
    axes.set_yticks(range(0, height + 1, step))
    axes.set_xticks(range(width + 1), minor=True)
    axes.set_yticks(range(height + 1), minor=True)
    axes.grid(visible=True, which="both", linewidth=0.3, color="0.8")
    # several anchors may take one cell for one reason: it is drawn once
    taken = set(zip(layer.row_choice.tolist(), map(tuple, layer.cell.tolist()), strict=True))
    for choice, cell in sorted(taken):
        colour, hatch = LOOKS[CHOICES[choice]]
        axes.add_patch(Rectangle(cell, 1, 1, facecolor=colour, hatch=hatch, edgecolor="white", alpha=0.6))
    met = layer.matched.any(dim=0).tolist()
    for (x, y, w, h), is_met in zip(layer.scaled.tolist(), met, strict=True):
        line = "-" if is_met else ":"
        axes.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, fill=False, linestyle=line, linewidth=1))
        axes.plot(x, y, "k.", markersize=4)
    axes.set_xlabel(f"{len(layer.pair_target)} matched pairs, {len(layer.cls)} rows")
