"""Pictures of a case: grids, targets, the cells assigned to them, and where a loss differs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.subjects.outcome import Outcome

from .budget import Budget
from .case import Case
from .dialects import UPSTREAM, Dialect
from .reference import Reference
from .rows import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = tuple[int, int, int, int]  # image, anchor, grid row, grid column
# More are too small to see in one picture, and take minutes to draw.
IMAGES, LAYERS, PANELS = 4, 6, 12
FAR = 1e9  # cells; matplotlib cannot draw what is much further away
MOST = 200  # targets, pairs and cells of one panel
# Colours of the Okabe-Ito palette, which colour-blind readers can tell apart; and a hatch for print.
LOOKS = {
    "own": ("#0072B2", ""),
    "left": ("#E69F00", "//"),
    "above": ("#009E73", ".."),
    "right": ("#CC79A7", "\\\\"),
    "below": ("#56B4E9", "xx"),
}
WRONG: dict[str, tuple[str, Any]] = {
    "expected here, not built": ("#D55E00", "--"),
    "built here, not expected": ("#D55E00", "-"),
    "another gradient than expected": ("#000000", ":"),
}


BUILT, PREDICTED = "#D55E00", "#009E73"
CHANNELS = ("x", "y", "w", "h", "objectness")
MOST_NAMED = 12  # cells whose wrong logits are named
FEW = 6  # rows of an image on a layer: of more, predicted boxes would hide one another


@dataclass(frozen=True)
class Marks:
    """What of one layer of a loss is not as expected."""

    places: dict[str, set[tuple[int, int, int]]]  # image, grid row, grid column, by key of WRONG
    channels: dict[tuple[int, int, int], str]  # where a gradient is another one: of which logits
    built: Rows | None = None  # the rows that the loss built, if these are others


def draw(case: Case, title: str, outcome: Outcome | None = None, dialect: Dialect = UPSTREAM) -> "Figure":
    """Draw each layer of a case, and mark where an outcome differs from the reference in a dialect.

    Draws the first images that have a target, at most `IMAGES`, and the first layers, at most `LAYERS`. Where the loss
    built other rows, they are drawn beside the expected ones.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  # heavy

    with np.errstate(invalid="ignore"):  # targets may have any values, and NaN is in no cell
        reference = Reference(case, dialect)
        layers = reference.assignments
    known = not dialect.taken  # else nothing tells, without the loss, what is expected
    marks = list(_marks(reference, outcome if known else None))
    present = sorted({int(t[0]) for t in case.targets if np.isfinite(t[0])}) or [0]
    predicted = outcome is not None and known and valid(reference)
    panels = [(i, built) for i in range(min(case.layers, LAYERS)) for built in dict.fromkeys((None, marks[i].built))]
    shown = present[: min(IMAGES, PANELS // len(panels))]
    figure = Figure(figsize=(max(5 * len(panels), 7), 4.2 * len(shown) + 1.8), layout="constrained")
    grid = figure.subplots(len(shown), len(panels), squeeze=False)
    for image, line in zip(shown, grid, strict=True):
        for axes, (i, built) in zip(line, panels, strict=True):
            what = "" if marks[i].built is None else ", expected" if built is None else ", built by the loss"
            if built is None:
                _draw_layer(axes, case, i, layers[i], image)
                _draw_marks(axes, marks[i], image)
            else:
                _draw_built(axes, case, i, built, image)
            if predicted and marks[i].built is None:
                _draw_predicted(axes, reference, i, image)
            where = f", image {image}" if case.batch > 1 else ""
            rows, columns = case.grids[i]
            axes.set_title(f"layer {i}{where}{what}: {rows} x {columns} cells, stride {case.strides[i]:g}", fontsize=10)
    _legend(figure, marks, predicted=predicted and any(each.built is None for each in marks))
    text = "\n".join((*wrap(title, 40 + 40 * len(panels)), *_left_out(case, layers, len(present) - len(shown))))
    figure.suptitle(text, fontsize=11, parse_math=False)
    return figure


def _left_out(case: Case, layers: Sequence[Any], images: int) -> Iterator[str]:
    """What is not in the picture, in lines."""
    if images > 0:
        yield f"{images} more images with targets are not shown"
    if case.layers > LAYERS:
        yield f"{case.layers - LAYERS} more layers are not shown"
    if max(len(case.targets), *(len(layer.rows) for layer in layers)) > MOST:
        yield f"of each image and layer, the first {MOST} targets, anchors and cells are shown"


def _marks(reference: Reference, outcome: Outcome | None) -> Iterator[Marks]:
    case, off = reference.case, _gradients_off(reference, outcome)
    for i, layer in enumerate(reference.assignments):
        places: dict[str, set[tuple[int, int, int]]] = {name: set() for name in WRONG}
        other = None
        if outcome is not None and outcome.rows is not None and len(outcome.rows) == case.layers:
            wanted, built = Counter(_cells(layer.rows)), Counter(_cells(outcome.rows[i]))
            for name, cells in zip(WRONG, (wanted - built, built - wanted), strict=False):
                places[name] = {(image, row, column) for image, _, row, column in cells}
            other = outcome.rows[i] if Counter(layer.rows.whole) != Counter(outcome.rows[i].whole) else None
        channels: dict[tuple[int, int, int], str] = {}
        # of other rows, the gradients are others too
        for b, h, w in np.argwhere(off[i].any(axis=-1)).tolist() if other is None else ():
            names = [CHANNELS[c] if c < len(CHANNELS) else f"class {c - 5}" for c in np.flatnonzero(off[i][b, h, w])]
            channels[b, h, w] = "\n".join(", ".join(part) for part in (names[:5], names[5:]) if part)
        places["another gradient than expected"] = {*channels}
        yield Marks(places, channels, other)


def _gradients_off(reference: Reference, outcome: Outcome | None) -> list[NDArray[np.bool_]]:
    """(B, H, W, 5 + C) for each layer: where the gradient differs from the reference by more than the error budget."""
    case = reference.case
    none = [np.zeros((case.batch, *grid, 5 + case.classes), dtype=bool) for grid in case.grids]
    if outcome is None or not outcome.gradients or not valid(reference):
        return none
    budget = Budget(case, reference.dialect)
    pairs = zip(budget.reference.gradients, outcome.gradients, budget.gradients, strict=True)
    return [np.asarray(~(abs(want - got) <= 2 * off).all(axis=1)) for want, got, off in pairs]


def valid(reference: Reference) -> bool:
    """Whether the reference has a gradient: the case may be invalid input, or one that the dialect has no cell for."""
    case = reference.case
    if case.invalid is not None:
        return False
    return all((r.row < h).all() and (r.column < w).all() for r, (h, w) in zip(reference.rows, case.grids, strict=True))


def _cells(rows: Rows, image: int | None = None) -> list[Cell]:
    """The cells of the rows, or of those in an image."""
    here = slice(None) if image is None else rows.image == image
    return list(zip(*(v[here].tolist() for v in (rows.image, rows.anchor, rows.row, rows.column)), strict=True))


def _draw_grid(axes: "Axes", grid: tuple[int, int]) -> None:
    height, width = grid
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    step = max(1, max(grid) // 10)
    axes.set_xticks(range(0, width + 1, step))
    axes.set_yticks(range(0, height + 1, step))
    if max(grid) <= 100:  # more lines would fill the picture
        axes.set_xticks(range(width + 1), minor=True)
        axes.set_yticks(range(height + 1), minor=True)
    axes.grid(visible=True, which="both", linewidth=0.3, color="0.8")


def _draw_built(axes: "Axes", case: Case, i: int, built: Rows, image: int) -> None:
    """Draw the rows that a loss built: their cells, and their boxes."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    _draw_grid(axes, case.grids[i])
    here = np.flatnonzero(built.image == image)
    cells = [(row, column) for _, _, row, column in _cells(built, image)]
    for row, column in islice(dict.fromkeys(cells), MOST):
        patch = Rectangle((column, row), 1, 1, facecolor=BUILT, edgecolor="white", alpha=0.35, clip_on=False)
        axes.add_patch(patch)
    _say_how_many(axes, cells)
    for n in here[:MOST]:
        x, y, w, h = np.add(built.box[n], (built.column[n], built.row[n], 0, 0)).tolist()
        _outline(axes, (x - w / 2, y - h / 2), (w, h), "black", "-", 1.2)
        _centre(axes, case.grids[i], (x, y))
    axes.set_xlabel(f"rows: {len(here)}", fontsize=9)


def _draw_predicted(axes: "Axes", reference: Reference, i: int, image: int) -> None:
    """Draw the boxes that the rows of an image predict, if they are few."""
    part, rows = reference.row_parts[i], reference.rows[i]
    here = np.flatnonzero(rows.image == image)
    for n in here if len(here) <= FEW else ():
        x, y, w, h = np.add(reference.all_predicted.box[part][n], (rows.column[n], rows.row[n], 0, 0)).tolist()
        _outline(axes, (x - w / 2, y - h / 2), (w, h), PREDICTED, "-", 1.0)
        _centre(axes, reference.case.grids[i], (x, y), "+", PREDICTED, 6)


def _draw_layer(axes: "Axes", case: Case, i: int, layer: Any, image: int) -> None:
    """Draw the grid, the assigned cells by choice, and the targets with the anchors that they match."""
    _draw_grid(axes, case.grids[i])
    _draw_cells(axes, layer, image)
    mine = case.target_rows[:, 0].numpy() == image
    met = layer.matched.any(axis=0)
    for (x, y, w, h), is_met in islice(zip(layer.scaled[mine], met[mine], strict=True), MOST):
        _outline(axes, (x - w / 2, y - h / 2), (w, h), "black", "-" if is_met else ":", 1.2)
        _centre(axes, case.grids[i], (x, y))
    for n in np.flatnonzero(mine[layer.pair_target])[:MOST]:
        (x, y), (w, h) = layer.scaled[layer.pair_target[n], :2], case.anchors[i][layer.pair_anchor[n]]
        _outline(axes, (x - w / 2, y - h / 2), (w, h), "0.35", "-.", 0.6)
    pairs, rows = int(mine[layer.pair_target].sum()), int((layer.rows.image == image).sum())
    axes.set_xlabel(f"matched pairs: {pairs}, rows: {rows}", fontsize=9)


def _draw_cells(axes: "Axes", layer: Any, image: int) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    rows = layer.rows
    here = rows.image == image
    # several anchors may take one cell by the same choice: draw it once
    taken = {*zip(*(v[here].tolist() for v in (layer.row_choice, rows.column, rows.row)), strict=True)}
    for choice, column, row in sorted(taken)[:MOST]:
        colour, hatch = LOOKS[list(LOOKS)[choice]]
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, hatch=hatch, edgecolor="white", alpha=0.6))
    _say_how_many(axes, _cells(rows, image))


def _say_how_many(axes: "Axes", cells: Iterable[tuple[int, ...]]) -> None:
    """Write into a cell how many rows it has, if several. A cell ends with its row and its column."""
    several = ((cell, times) for cell, times in Counter(cells).items() if times > 1)
    for (*_, row, column), times in islice(several, MOST):
        axes.text(column + 0.08, row + 0.3, f"{times} rows", fontsize=8, weight="bold", va="center", clip_on=True)


def _outline(
    axes: "Axes", corner: tuple[float, float], sides: tuple[float, float], colour: str, line: Any, width: float
) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    if all(abs(v) < FAR for v in (*corner, *sides)):  # false for NaN
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linestyle=line, linewidth=width))


def _centre(
    axes: "Axes", grid: tuple[int, int], place: tuple[float, float], marker: str = ".", colour: str = "k", size: int = 5
) -> None:
    """Draw the centre of a box: also at the edge of the grid, but not beyond."""
    if 0 <= place[0] <= grid[1] and 0 <= place[1] <= grid[0]:
        axes.plot(*place, marker, color=colour, markersize=size, clip_on=False)


def _draw_marks(axes: "Axes", marks: Marks, image: int) -> None:
    for (name, (colour, line)), inset in zip(WRONG.items(), (0.04, 0.04, 0.14), strict=True):
        for row, column in sorted((r, c) for i, r, c in marks.places[name] if i == image)[:MOST]:
            side = 1 - 2 * inset
            _outline(axes, (column + inset, row + inset), (side, side), colour, line, 2.2)
    for (b, row, column), names in marks.channels.items():
        if b == image and len(marks.channels) <= MOST_NAMED:
            axes.text(column + 0.5, row + 0.8, names, fontsize=7, ha="center", va="center", clip_on=True)


def _legend(figure: "Figure", marks: list[Marks], *, predicted: bool) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles: list[Any] = [
        Patch(facecolor=c, hatch=h, alpha=0.6, label=f"{name} cell") for name, (c, h) in LOOKS.items()
    ]
    handles += [
        Line2D([], [], color="black", linewidth=1.2, marker=".", label="target"),
        Line2D([], [], color="black", linewidth=1.2, linestyle=":", label="target without a matching anchor"),
        Line2D([], [], color="0.35", linewidth=0.6, linestyle="-.", label="anchor that it matches"),
    ]
    if predicted:
        handles.append(Line2D([], [], color=PREDICTED, linewidth=1.0, marker="+", label="predicted box"))
    handles += [
        Line2D([], [], color=colour, linewidth=2.2, linestyle=line, label=name)
        for name, (colour, line) in WRONG.items()
        if any(m.places[name] for m in marks)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
