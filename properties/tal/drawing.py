"""Pictures of a case: anchor points, targets, which anchors are candidates, and which target won each."""

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from yololoss.harness.subjects.outcome import Outcome

from .budget import Budget
from .case import SIDES, Case
from .dialects import UPSTREAM, Dialect
from .reference import Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES, LEVELS, MOST = 3, 4, 60  # images, levels and targets of one picture
# Colours of the Okabe-Ito palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
WRONG = "#D55E00"


def draw(case: Case, title: str, outcome: Outcome | None = None, dialect: Dialect = UPSTREAM) -> "Figure":
    """Draw each level of a case: the first images, at most `IMAGES`, and the first levels, at most `LEVELS`.

    A small dot is an anchor point, a ring a candidate, a disc an anchor that a target has, in the target's colour and
    as large as its score. A square marks an anchor whose gradient differs from the reference's.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # heavy

    images, levels = range(min(case.batch, IMAGES)), range(min(case.levels, LEVELS))
    figure = Figure(figsize=(max(4.4 * len(levels), 6), 4.4 * len(images) + 1.2), layout="constrained")
    grid = figure.subplots(len(images), len(levels), squeeze=False)
    reference = Reference(case, dialect) if case.invalid is None else None
    wrong = _wrong(case, outcome, dialect) if reference is not None else None
    for image, line in zip(images, grid, strict=True):
        for level, axes in zip(levels, line, strict=True):
            _draw_level(axes, case, level, image)
            if reference is not None:
                _draw_anchors(axes, reference, level, image)
            if wrong is not None:
                _mark(axes, wrong[level][image])
            rows, columns = case.grids[level]
            where = f"image {image}, " if case.batch > 1 else ""
            axes.set_title(f"{where}level {level}: {rows} x {columns}, stride {case.strides[level]:g}", fontsize=9)
    _legend(figure)
    figure.suptitle("\n".join(wrap(title, 40 + 30 * len(levels))), fontsize=10, parse_math=False)
    return figure


def _wrong(case: Case, outcome: Outcome | None, dialect: Dialect) -> list[Any] | None:
    """Where the gradient differs from the reference by more than rounding, (B, H, W) for each level."""
    if outcome is None or not outcome.gradients:
        return None
    budget = Budget(case, dialect)
    pairs = zip(budget.reference.gradients, outcome.gradients, budget.gradients, strict=True)
    return [~(abs(want - got) <= 2 * off).all(axis=1) for want, got, off in pairs]


def _draw_level(axes: "Axes", case: Case, level: int, image: int) -> None:
    """The grid in cells, and the targets of the image."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    rows, columns = case.grids[level]
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
    axes.set_xticks(range(0, columns + 1, max(1, columns // 8)))
    axes.set_yticks(range(0, rows + 1, max(1, rows // 8)))
    axes.grid(visible=True, linewidth=0.3, color="0.85")
    height, width = (side / case.strides[level] for side in case.image_size)
    for row, (where, _, x, y, w, h) in list(enumerate(case.targets))[:MOST]:
        if where == image and np.isfinite((x, y, w, h)).all():
            corner, sides = ((x - w / 2) * width, (y - h / 2) * height), (w * width, h * height)
            colour = COLOURS[row % len(COLOURS)]
            axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=1.4))
            axes.text(*corner, f"{row}", fontsize=7, color=colour, clip_on=True)


def _draw_anchors(axes: "Axes", reference: Reference, level: int, image: int) -> None:
    cells = [rows * columns for rows, columns in reference.case.grids]
    first = sum(cells[:level])
    part = slice(first, first + cells[level])
    points, owner = reference.points[part], reference.owner[image, part]
    axes.plot(*points.T, ".", color="0.6", markersize=2)
    near = reference.candidate[reference.mine[image]][:, part].any(axis=0)
    axes.plot(*points[near].T, "o", markerfacecolor="none", color="0.4", markersize=6, markeredgewidth=0.6)
    score = reference.score[image, :, part].max(axis=0)
    for anchor in np.flatnonzero(owner >= 0):
        colour = COLOURS[owner[anchor] % len(COLOURS)]
        axes.plot(*points[anchor], "o", color=colour, markersize=3 + 6 * score[anchor])
    _draw_boxes(axes, reference, level, image)


def _draw_boxes(axes: "Axes", reference: Reference, level: int, image: int) -> None:
    """The predicted boxes of the anchors that have a target on the level, dashed."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    rows, cells = reference.rows, np.cumsum([0, *(h * w for h, w in reference.case.grids)])
    here = (rows.image == image) & (rows.anchor >= cells[level]) & (rows.anchor < cells[level + 1])
    for n in np.flatnonzero(here)[: 2 * SIDES]:
        left, top, right, bottom = reference.predicted[image, rows.anchor[n]].tolist()
        colour = COLOURS[rows.target[n] % len(COLOURS)]
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=":")
        axes.add_patch(box)


def _mark(axes: "Axes", wrong: Any) -> None:
    for row, column in np.argwhere(wrong)[:MOST]:
        axes.plot(column + 0.5, row + 0.5, "s", markerfacecolor="none", color=WRONG, markersize=11)


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    looks = (
        (".", "0.6", "0.6", "anchor point"),
        ("o", "none", "0.4", "candidate of a target"),
        ("o", COLOURS[0], COLOURS[0], "anchor of the target of that colour; its size: the score"),
        ("s", "none", WRONG, "another gradient than expected"),
    )
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markerfacecolor=face, color=edge, label=label)
        for marker, face, edge, label in looks
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
