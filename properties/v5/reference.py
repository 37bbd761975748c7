"""An independent model of the loss, written only from SPEC: NumPy, float64, gradients in closed form.

It shares no code with the loss it checks. Everything is float64 except the assignment, which SPEC defines by float32
comparisons (SPEC 1).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .formulas import Reals, box_logit_gradient, ciou, ciou_gradient, criterion, criterion_gradient, decode
from .rows import Rows

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_LOSS = 1e-6  # the project's bound on autobalance's .0001 / loss
SHIFTS = np.array([(0, 0), (-0.5, 0), (0, -0.5), (0.5, 0), (0, 0.5)], np.float32)  # own, left, above, right, below
THREE_LAYER_BALANCE: tuple[float, ...] = (4.0, 1.0, 0.4)
BALANCE: tuple[float, ...] = (4.0, 1.0, 0.25, 0.06, 0.02)


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


def assign(targets: Singles, anchors: Singles, grid: tuple[int, int], limit: np.float32) -> Assignment:
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
    high = (to_end - np.floor(to_end) < 0.5) & (to_end > 1)
    choice = np.stack((np.ones(len(centre), bool), low[:, 0], low[:, 1], high[:, 0], high[:, 1]))
    row_choice, row_pair = np.nonzero(choice)

    who, mine = pair_target[row_pair], centre[row_pair]
    cell = np.clip(np.trunc(mine + SHIFTS[row_choice]), 0, extent - 1)
    image, cls = targets[who, 0].astype(np.int64), targets[who, 1].astype(np.int64)
    anchor = pair_anchor[row_pair]
    built = Rows(
        image=image,
        anchor=anchor,
        row=cell[:, 1].astype(np.int64),
        column=cell[:, 0].astype(np.int64),
        cls=cls,
        box=np.concatenate((mine - cell, scaled[who, 2:]), axis=1, dtype=np.float32),
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


class Reference:
    """What SPEC requires for a case. Tuples have one entry per layer; each property is computed on first use."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def logits(self) -> tuple[Reals, ...]:
        """Predictions (B, A, H, W, 5 + C) as rounded to the case's dtype."""
        return tuple(x.double().numpy() for x in self.case.logits)

    @cached_property
    def assignments(self) -> tuple[Assignment, ...]:
        """Which target matches which anchor, and the cells that are assigned (SPEC 1)."""
        targets = self.case.target_rows.float().numpy()
        limit = np.float32(self.case.hyp.anchor_t)
        layers = zip(self.case.anchors, self.case.grids, strict=True)
        return tuple(assign(targets, np.array(wh, np.float32), grid, limit) for wh, grid in layers)

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """The rows in order (SPEC 1)."""
        return tuple(a.rows for a in self.assignments)

    @cached_property
    def cells(self) -> tuple[tuple[Ints, Ints, Ints, Ints], ...]:
        """Where each row reads its prediction: image, anchor, grid row, grid column, (n,) each."""
        return tuple((r.image, r.anchor, r.row, r.column) for r in self.rows)

    @cached_property
    def selected(self) -> tuple[Reals, ...]:
        """Each row's logits, (n, 5 + C)."""
        return tuple(x[at] for x, at in zip(self.logits, self.cells, strict=True))

    @cached_property
    def _boxes(self) -> tuple[tuple[Reals, Reals], ...]:
        pairs = zip(self.selected, self.rows, strict=True)
        return tuple(decode(x[:, :4], r.anchor_wh.astype(np.float64)) for x, r in pairs)

    @cached_property
    def decoded(self) -> tuple[Reals, ...]:
        """Each row's predicted box, (n, 4) (SPEC 2)."""
        return tuple(box for box, _ in self._boxes)

    @cached_property
    def angles(self) -> tuple[Reals, ...]:
        """Each row's predicted atan(w / h), (n,) (SPEC 2)."""
        return tuple(angle for _, angle in self._boxes)

    @cached_property
    def boxes(self) -> tuple[Reals, ...]:
        """Each row's target box, (n, 4)."""
        return tuple(r.box.astype(np.float64) for r in self.rows)

    @cached_property
    def overlaps(self) -> tuple[Reals, ...]:
        """Each row's CIoU, (n,) (SPEC 2)."""
        return tuple(ciou(b, a, t) for b, a, t in zip(self.decoded, self.angles, self.boxes, strict=True))

    @cached_property
    def winner(self) -> tuple[Ints, ...]:
        """(B, A, H, W): the row that gives a cell its objectness target, -1 without one (SPEC 3)."""
        found = []
        for i, at in enumerate(self.cells):
            grid = np.full(self.case.shape(i)[:4], -1)
            value = np.maximum(self.overlaps[i], 0)
            order = np.argsort(value, kind="stable") if self.case.options.sort_obj_iou else np.arange(len(value))
            grid[tuple(index[order] for index in at)] = order  # NumPy assigns in order, so the last one stays
            found.append(grid)
        return tuple(found)

    @cached_property
    def objectness(self) -> tuple[Reals, ...]:
        """(B, A, H, W): the objectness target of every cell (SPEC 3)."""
        gr = self.case.options.gr
        found = []
        for winner, overlap in zip(self.winner, self.overlaps, strict=True):
            value = np.append((1 - gr) + gr * np.maximum(overlap, 0), 0.0)  # index -1 selects the 0 at the end
            found.append(value[winner])
        return tuple(found)

    @cached_property
    def class_targets(self) -> tuple[Reals, ...]:
        """Each row's binary targets, (n, C), smoothed (SPEC 4)."""
        off = self.case.hyp.label_smoothing / 2
        own = [r.cls[:, None] == np.arange(self.case.classes) for r in self.rows]
        return tuple(np.where(mine, 1 - off, off) for mine in own)

    @cached_property
    def layer_terms(self) -> tuple[tuple[float, float, float], ...]:
        """Unweighted box, objectness (before balance) and class means of each layer, 0 where absent (SPEC 2 to 4)."""
        hyp = self.case.hyp
        out = []
        for i, overlap in enumerate(self.overlaps):
            x = self.logits[i][..., 4]
            objectness = float(criterion(x, self.objectness[i], hyp.obj_pw, hyp.fl_gamma).mean())
            box = cls = 0.0
            if len(overlap):
                box = float((1 - overlap).mean())
                if self.case.classes > 1:
                    x = self.selected[i][:, 5:]
                    cls = float(criterion(x, self.class_targets[i], hyp.cls_pw, hyp.fl_gamma).mean())
            out.append((box, objectness, cls))
        return tuple(out)

    @cached_property
    def calls(self) -> tuple[ReferenceCall, ...]:
        """All ``options.calls`` calls of one object (SPEC 3, 6)."""
        hyp, options, layers = self.case.hyp, self.case.options, self.case.layers
        balance = THREE_LAYER_BALANCE if layers == 3 else BALANCE
        box, objectness, cls = (np.array(term) for term in zip(*self.layer_terms, strict=True))
        out = []
        for _ in range(options.calls):
            used = balance
            items = (
                hyp.box * float(box.sum()),
                hyp.obj * float((objectness * used[:layers]).sum()),
                hyp.cls * float(cls.sum()),
            )
            if options.autobalance:
                balance = rebalanced(used, objectness, self.case.strides.index(16))
            out.append(ReferenceCall(self.case.batch * sum(items), items, used, balance))
        return tuple(out)

    @cached_property
    def weights(self) -> tuple[tuple[float, float, float], ...]:
        """Weights in the last total: of a row's 1 - CIoU, a cell's objectness loss, a row's loss per class (SPEC 6)."""
        hyp, batch, used = self.case.hyp, self.case.batch, self.calls[-1].balance
        out = []
        for i, rows in enumerate(self.rows):
            n = max(len(rows), 1)
            cells = math.prod(self.case.shape(i)[:4])
            cls = hyp.cls * batch / (n * self.case.classes) if self.case.classes > 1 else 0.0
            out.append((hyp.box * batch / n, hyp.obj * batch * used[i] / cells, cls))
        return tuple(out)

    @cached_property
    def row_gradients(self) -> tuple[Reals, ...]:
        """(n, 5 + C): gradient of each row's own loss for the logits that it reads; 0 for objectness (SPEC 6)."""
        hyp = self.case.hyp
        out = []
        for i, (box, _, cls) in enumerate(self.weights):
            anchors = self.rows[i].anchor_wh.astype(np.float64)
            by_box = ciou_gradient(self.decoded[i], self.angles[i], self.boxes[i])
            mine = np.zeros((len(anchors), 5 + self.case.classes))
            mine[:, :4] = -box * box_logit_gradient(self.selected[i][:, :4], anchors, *by_box)
            slope = criterion_gradient(self.selected[i][:, 5:], self.class_targets[i], hyp.cls_pw, hyp.fl_gamma)
            mine[:, 5:] = cls * slope
            out.append(mine)
        return tuple(out)

    @cached_property
    def gradients(self) -> tuple[Reals, ...]:
        """(B, A, H, W, 5 + C): gradient of the last call's total for the predictions (SPEC 6)."""
        hyp = self.case.hyp
        out = []
        for i, (_, objectness, _) in enumerate(self.weights):
            x = self.logits[i][..., 4]
            grid = np.zeros(self.case.shape(i))
            np.add.at(grid, self.cells[i], self.row_gradients[i])
            grid[..., 4] = objectness * criterion_gradient(x, self.objectness[i], hyp.obj_pw, hyp.fl_gamma)
            out.append(grid)
        return tuple(out)


def rebalanced(balance: tuple[float, ...], losses: Reals, kept: int) -> tuple[float, ...]:
    """The balance table after a call with these unweighted objectness losses, (L,) (SPEC 3, 7)."""
    moved = [0.9999 * b + 0.0001 / max(float(x), LEAST_LOSS) for b, x in zip(balance, losses, strict=False)]
    table = (*moved, *balance[len(moved) :])
    return tuple(b / table[kept] for b in table)
