"""An independent model of the loss, written only from SPEC: NumPy, float64, gradients in closed form.

It shares no code with the loss it checks. Everything is float64 except the assignment, which SPEC defines by float32
comparisons (SPEC 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .dialects import UPSTREAM, Dialect
from .formulas import BoxLogits, Logits, Overlap, Reals, criterion, criterion_gradient
from .rows import Rows

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_LOSS = 1e-6  # the project's bound on autobalance's .0001 / loss
SHIFTS = np.array([(0, 0), (-0.5, 0), (0, -0.5), (0.5, 0), (0, 0.5)], np.float32)  # own, left, above, right, below


@dataclass(frozen=True, eq=False)
class Assignment:
    """The assignment of one layer: N targets, A anchors, m pairs, n rows; lengths are float32, in cells (SPEC 1)."""

    scaled: Singles  # (N, 4) x, y, w, h
    matched: Bools  # (A, N)
    pair_anchor: Ints  # (m,)
    pair_target: Ints  # (m,)
    choice: Bools  # (5, m) own, left, above, right, below
    row_choice: Ints  # (n,)
    row_pair: Ints  # (n,)
    rows: Rows


def assign(
    targets: Singles, anchors: Singles, grid: tuple[int, int], limit: np.float32, dialect: Dialect = UPSTREAM
) -> Assignment:
    """Assign targets (N, 6) to anchors (A, 2) and cells on one layer, every step in float32 (SPEC 1)."""
    rows, columns = grid
    extent = np.array((columns, rows), np.float32)
    scaled = targets[:, 2:] * np.concatenate((extent, extent))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # bad sizes match nothing
        ratio = scaled[None, :, 2:] / anchors[:, None]
        matched = (np.maximum(ratio, np.float32(1) / ratio) < limit).all(axis=2)
    pair_anchor, pair_target = np.nonzero(matched)

    centre = scaled[pair_target, :2]
    to_end = extent - centre
    low = (centre - np.floor(centre) < 0.5) & (centre > 1)
    if dialect.neighbours == "mirror":
        high = (to_end - np.floor(to_end) < 0.5) & (to_end > 1)
    else:
        high = (centre - np.floor(centre) > 0.5) & (centre < extent - 1)
    choice = np.stack((np.ones(len(centre), bool), low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
    row_choice, row_pair = np.nonzero(choice)
    if dialect.row_order == "anchor-choice-target":
        order = np.argsort(pair_anchor[row_pair], kind="stable")
        row_choice, row_pair = row_choice[order], row_pair[order]

    who, mine = pair_target[row_pair], centre[row_pair]
    own = np.trunc(mine + SHIFTS[row_choice])
    cell = own if dialect.cell == "none" else np.clip(own, 0, extent - 1)
    image, cls = targets[who, 0].astype(np.int64), targets[who, 1].astype(np.int64)
    anchor = pair_anchor[row_pair]
    built = Rows(
        image=image,
        anchor=anchor,
        row=cell[:, 1].astype(np.int64),
        column=cell[:, 0].astype(np.int64),
        cls=cls,
        box=np.concatenate(
            (mine - (own if dialect.cell == "clamp-after" else cell), scaled[who, 2:]), axis=1, dtype=np.float32
        ),
        anchor_wh=anchors[anchor],
    )
    return Assignment(scaled, matched, pair_anchor, pair_target, choice, row_choice, row_pair, built)


@dataclass(frozen=True)
class ReferenceCall:
    """One call: items with gains, total with batch size, the balance before and after it (SPEC 3, 6)."""

    total: float
    items: tuple[float, float, float]
    balance: tuple[float, ...]
    balance_after: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class OwnOverlap:
    """What a loss's own overlap is for each row (n,), its derivative by the row's logits (n, 4), and the box term.

    Negative overlaps are 0. The term is the sum over layers of the mean box loss, without gain.
    """

    overlaps: Reals
    gradients: Reals
    term: float


@dataclass(frozen=True, eq=False)
class Measured:
    """What is taken from the loss itself.

    An overlap that nobody named; the value of an added term in each call; the rows that it built, if later steps are
    judged by these.
    """

    own: OwnOverlap | None = None
    added: tuple[float, ...] = ()
    rows: tuple[Rows, ...] | None = None


class Reference:
    """What SPEC requires for a case. Each property is computed on first use.

    Tuples have one entry per layer. Layers are small, and a NumPy call costs more than its numbers: so what is computed
    in the same way for all layers is computed at once. Names with ``all_`` hold the rows, or the cells, of all layers,
    one layer after the other; `row_parts` and `cell_parts` are the parts of the layers.
    """

    def __init__(self, case: Case, dialect: Dialect = UPSTREAM, measured: Measured | None = None) -> None:
        self.case, self.dialect = case, dialect
        self.own = measured.own if measured else None
        self.added = (measured.added if measured else ()) or (0.0,) * case.options.calls
        self._built = measured.rows if measured else None
        self.cell_parts = parts([math.prod(case.shape(i)[:4]) for i in range(case.layers)])

    @cached_property
    def logits(self) -> tuple[Reals, ...]:
        """Predictions (B, A, H, W, 5 + C) as rounded to the case's dtype."""
        return tuple(x.double().numpy() for x in self.case.logits)

    @cached_property
    def assignments(self) -> tuple[Assignment, ...]:
        """Which target matches which anchor, and the cells that are assigned (SPEC 1)."""
        own = self.dialect.target_dtype == "own" and self.case.targets_dtype == "float64"
        rows = self.case.target_rows
        targets: NDArray[Any] = (rows if own else rows.float()).numpy()
        limit = np.float32(self.case.hyp.anchor_t)
        layers = zip(self.case.anchors, self.case.grids, strict=True)
        return tuple(assign(targets, np.array(wh, np.float32), grid, limit, self.dialect) for wh, grid in layers)

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """The rows in order (SPEC 1), or those that the loss built."""
        return self._built or tuple(a.rows for a in self.assignments)

    @cached_property
    def row_parts(self) -> tuple[slice, ...]:
        """The part of each layer in the rows of all layers."""
        return parts([len(r) for r in self.rows])

    @cached_property
    def all_cells(self) -> Ints:
        """The cell from which each row reads its prediction: its index among the cells of all layers, (n,)."""
        found = []
        for i, (r, part) in enumerate(zip(self.rows, self.cell_parts, strict=True)):
            _, anchors, rows, columns, _ = self.case.shape(i)
            found.append(part.start + ((r.image * anchors + r.anchor) * rows + r.row) * columns + r.column)
        return np.concatenate(found)

    @cached_property
    def _all_logits(self) -> Reals:
        """The predictions of every cell of all layers, (cells, 5 + C)."""
        return np.concatenate([x.reshape(-1, x.shape[-1]) for x in self.logits])

    @cached_property
    def all_objectness_logits(self) -> Logits:
        """The objectness logits of all cells, (cells,)."""
        return Logits(self._all_logits[:, 4].copy())

    @cached_property
    def all_class_logits(self) -> Logits:
        """The class logits that each row reads, (n, C)."""
        return Logits(self._all_logits[self.all_cells, 5:])

    @cached_property
    def all_anchors(self) -> Reals:
        """The sides of each row's anchor, (n, 2)."""
        return np.concatenate([r.anchor_wh for r in self.rows], dtype=np.float64)

    @cached_property
    def all_predicted(self) -> BoxLogits:
        """The box that each row predicts (SPEC 2)."""
        return BoxLogits(self._all_logits[self.all_cells, :4], self.all_anchors, self.dialect)

    @cached_property
    def all_boxes(self) -> Reals:
        """Each row's target box, (n, 4)."""
        return np.concatenate([r.box for r in self.rows], dtype=np.float64)

    @cached_property
    def _all_laid(self) -> Overlap:
        return Overlap(self.all_predicted.box, self.all_boxes, self.dialect)

    @cached_property
    def all_overlaps(self) -> Reals:
        """Each row's CIoU, (n,) (SPEC 2)."""
        return self.own.overlaps if self.own else self._all_laid.value(self.all_predicted.angle)

    @cached_property
    def overlaps(self) -> tuple[Reals, ...]:
        """Each row's CIoU, (n,) (SPEC 2)."""
        return tuple(self.all_overlaps[part] for part in self.row_parts)

    @cached_property
    def all_winners(self) -> Ints:
        """(cells,): the row of all layers that gives a cell its objectness target, -1 without one (SPEC 3)."""
        winner = np.full(self.cell_parts[-1].stop, -1)
        value = np.maximum(self.all_overlaps, 0)
        largest = self.case.options.sort_obj_iou or self.dialect.shared_cells == "largest"
        order = np.argsort(value, kind="stable") if largest else np.arange(len(value))
        winner[self.all_cells[order]] = order  # NumPy assigns in order, so the last one stays
        return winner

    @cached_property
    def winner(self) -> tuple[Ints, ...]:
        """(B, A, H, W): the row of all layers that gives a cell its objectness target, -1 without one (SPEC 3)."""
        return self.grids(self.all_winners)

    @cached_property
    def all_objectness(self) -> Reals:
        """(cells,): the objectness target of every cell (SPEC 3)."""
        gr = self.case.options.gr
        value = np.append((1 - gr) + gr * np.maximum(self.all_overlaps, 0), 0.0)  # index -1 selects the 0 at the end
        return value[self.all_winners]

    @cached_property
    def objectness(self) -> tuple[Reals, ...]:
        """(B, A, H, W): the objectness target of every cell (SPEC 3)."""
        return self.grids(self.all_objectness)

    def grids(self, values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Values of all cells, (cells, ...), as one grid (B, A, H, W, ...) for each layer."""
        return tuple(
            values[part].reshape(*self.case.shape(i)[:4], *values.shape[1:]) for i, part in enumerate(self.cell_parts)
        )

    @cached_property
    def all_class_targets(self) -> Reals:
        """Each row's binary targets, (n, C), smoothed (SPEC 4)."""
        smoothing, classes = self.case.hyp.label_smoothing, self.case.classes
        on, off = {
            "half": (1 - smoothing / 2, smoothing / 2),
            "ignored": (1.0, 0.0),
            "over classes": (1 - smoothing + smoothing / classes, smoothing / classes),
        }[self.dialect.smoothing]
        cls = np.concatenate([r.cls for r in self.rows])
        return np.where(cls[:, None] == np.arange(classes), on, off)

    @cached_property
    def hyp(self) -> Any:
        """The hyperparameters that the dialect heeds."""
        ignored = {"cls_pw": 1.0, "obj_pw": 1.0} if self.dialect.positive_weights == "ignored" else {}
        return self.case.hyp.model_copy(update=ignored | ({"fl_gamma": 0.0} if self.dialect.focal == "ignored" else {}))

    @property
    def class_weights(self) -> Reals:
        """What the dialect multiplies the loss of each class with, (C,)."""
        return np.array(self.dialect.class_weights or (1.0,) * self.case.classes)

    @cached_property
    def scales(self) -> tuple[float, float, float]:
        """What the dialect multiplies the box, objectness and class terms with."""
        layers = self.case.layers
        every = 3 / layers if self.dialect.layer_scale != "none" else 1.0
        larger = layers == 4 or (layers > 4 and self.dialect.objectness_gain == "1.4 from 4")
        objectness = every if self.dialect.layer_scale == "all" else 1.0
        return every, objectness * (1.4 if larger and self.dialect.objectness_gain != "none" else 1.0), every

    @cached_property
    def layer_terms(self) -> tuple[tuple[float, float, float], ...]:
        """Unweighted box, objectness (before balance) and class means of each layer, 0 where absent (SPEC 2 to 4)."""
        hyp = self.hyp
        objectness = criterion(self.all_objectness_logits, self.all_objectness, hyp.obj_pw, hyp.fl_gamma)
        classes = criterion(self.all_class_logits, self.all_class_targets, hyp.cls_pw, hyp.fl_gamma)
        out: list[tuple[float, float, float]] = []
        for rows, cells in zip(self.row_parts, self.cell_parts, strict=True):
            box = cls = 0.0
            if rows.stop > rows.start:
                box = float((1 - self.all_overlaps[rows]).mean())
                if self.case.classes > 1:
                    cls = float((classes[rows] * self.class_weights).mean())
            if self.own:  # it is known of all layers together
                box = self.own.term if not out else 0.0
            out.append((box, float(objectness[cells].mean()), cls))
        return tuple(out)

    @cached_property
    def calls(self) -> tuple[ReferenceCall, ...]:
        """All ``options.calls`` calls of one object (SPEC 3, 6)."""
        hyp, options, layers = self.case.hyp, self.case.options, self.case.layers
        balance = options.balance or self.dialect.balance_of(layers)
        of_box, of_objectness, of_cls = self.scales
        box, objectness, cls = (np.array(term) for term in zip(*self.layer_terms, strict=True))
        out = []
        for added in self.added:
            used = balance
            in_box, beside = (added, 0.0) if self.dialect.added_term == "in the box item" else (0.0, added)
            items = (
                hyp.box * of_box * float(box.sum()) + in_box,
                hyp.obj * of_objectness * float((objectness * used[:layers]).sum()),
                hyp.cls * of_cls * float(cls.sum()),
            )
            if options.autobalance:
                balance = rebalanced(used, objectness, self.case.strides.index(16))
            out.append(ReferenceCall(self.batch * (sum(items) + beside), items, used, balance))
        return tuple(out)

    @property
    def batch(self) -> int:
        """What the sum of the items is multiplied with."""
        return self.case.batch if self.dialect.batch == "times" else 1

    @cached_property
    def weights(self) -> tuple[tuple[float, float, float], ...]:
        """Weights in the last total: of a row's 1 - CIoU, a cell's objectness loss, a row's loss per class (SPEC 6)."""
        hyp, batch, used = self.case.hyp, self.batch, self.calls[-1].balance
        of_box, of_objectness, of_cls = self.scales
        out = []
        for i, rows in enumerate(self.rows):
            n = max(len(rows), 1)
            cells = math.prod(self.case.shape(i)[:4])
            cls = hyp.cls * of_cls * batch / (n * self.case.classes) if self.case.classes > 1 else 0.0
            out.append((hyp.box * of_box * batch / n, hyp.obj * of_objectness * batch * used[i] / cells, cls))
        return tuple(out)

    @cached_property
    def all_row_weights(self) -> Reals:
        """The `weights` of each row, (n, 3)."""
        return np.repeat(np.array(self.weights), [part.stop - part.start for part in self.row_parts], axis=0)

    @cached_property
    def all_cell_weights(self) -> Reals:
        """The weight of each cell's objectness loss, (cells,)."""
        return np.repeat([w for _, w, _ in self.weights], [part.stop - part.start for part in self.cell_parts])

    @cached_property
    def all_overlap_gradients(self) -> tuple[Reals, Reals, Reals]:
        """Derivative of each row's overlap by its predicted box, in two parts (n, 4), and angle (n,) (SPEC 2)."""
        return self._all_laid.gradient_parts(self.all_predicted.angle)

    @cached_property
    def all_row_gradients(self) -> Reals:
        """(n, 5 + C): gradient of each row's own loss for the logits that it reads; 0 for objectness (SPEC 6)."""
        hyp, weights = self.hyp, self.all_row_weights
        mine = np.zeros((len(weights), 5 + self.case.classes))
        if self.own:
            by_logits = self.own.gradients
        else:
            inner, outer, by_angle = self.all_overlap_gradients
            by_logits = self.all_predicted.gradient(inner + outer, by_angle)
        mine[:, :4] = -weights[:, :1] * by_logits
        slope = criterion_gradient(self.all_class_logits, self.all_class_targets, hyp.cls_pw, hyp.fl_gamma)
        mine[:, 5:] = weights[:, 2:] * slope * self.class_weights
        return mine

    @cached_property
    def all_gradients(self) -> Reals:
        """(cells, 5 + C): gradient of the last call's total for the predictions (SPEC 6)."""
        hyp, x = self.hyp, self.all_objectness_logits
        grid = np.zeros((len(x.x), 5 + self.case.classes))
        np.add.at(grid, self.all_cells, self.all_row_gradients)
        grid[:, 4] = self.all_cell_weights * criterion_gradient(x, self.all_objectness, hyp.obj_pw, hyp.fl_gamma)
        return grid

    @cached_property
    def gradients(self) -> tuple[Reals, ...]:
        """(B, A, H, W, 5 + C): gradient of the last call's total for the predictions (SPEC 6)."""
        return self.grids(self.all_gradients)


def parts(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Slices of these sizes, one after the other."""
    ends = list(accumulate(sizes))
    return tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))


def rebalanced(balance: tuple[float, ...], losses: Reals, kept: int) -> tuple[float, ...]:
    """The balance table after a call with these unweighted objectness losses, (L,) (SPEC 3, 7)."""
    moved = [0.9999 * b + 0.0001 / max(float(x), LEAST_LOSS) for b, x in zip(balance, losses, strict=False)]
    table = (*moved, *balance[len(moved) :])
    return tuple(b / table[kept] for b in table)
