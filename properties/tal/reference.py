"""An independent model of the task-aligned loss, written only from SPEC: NumPy, float64, gradients in closed form.

It shares no code with the loss it checks. Targets and the inside-test are float32, as SPEC 2 and 3.1 say, since they
decide at edges; all else is float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .case import SIDES, Case, Head
from .dialects import UPSTREAM, Dialect
from .overlap import Overlap, Reals

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

INSIDE = 1e-9  # pixels
MARGIN = 0.01  # of DFL target distances
# SPEC 8: top-k and second top-k of the heads of a loss with two of them.
TOPKS: dict[str, dict[str, tuple[int, int | None]]] = {
    "YOLO26": {"one2many": (10, None), "one2one": (7, 1)},
    "YOLOv10": {"one2many": (10, None), "one2one": (1, None)},
}
MANY_FIRST, MANY_LAST = 0.8, 0.1  # the weight of the one-to-many head
SMALL = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class ReferenceCall:
    """One call: items with gains, and the total."""

    total: float
    items: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Rows:
    """The n anchors that have a target, and the target's corners in cells (n, 4)."""

    image: Ints
    anchor: Ints
    target: Ints
    wanted: Reals

    def __len__(self) -> int:
        return len(self.image)


class Reference:
    """What SPEC requires for a case. Each property is computed on first use. T targets, A anchors of all levels.

    ``owner``: the target of each anchor, (B, A), if that is taken from a loss. ``also``: candidates beside those that
    the reference finds, (T, A).
    """

    def __init__(
        self, case: Case, dialect: Dialect = UPSTREAM, owner: Ints | None = None, also: Bools | None = None
    ) -> None:
        self.case, self.dialect = case, dialect
        self._given, self._also = owner, also
        k, k2 = topks(case, dialect)
        self.topk = min(k, case.anchors)
        self.topk2 = None if k2 in (None, k) else min(k2 or 0, case.anchors)

    @cached_property
    def _joined(self) -> Reals:
        """Predictions of all levels, (B, 4 R + C, A), as rounded to the case's dtype."""
        case = self.case
        return np.concatenate([x.double().numpy().reshape(case.batch, case.channels, -1) for x in case.logits], axis=2)

    @cached_property
    def sides(self) -> Reals:
        """The logits of the bins, (B, 4, R, A)."""
        case = self.case
        return self._joined[:, : SIDES * case.reg_max].reshape(case.batch, SIDES, case.reg_max, -1)

    @cached_property
    def scores(self) -> Reals:
        """The class logits, (B, C, A)."""
        return self._joined[:, SIDES * self.case.reg_max :]

    @cached_property
    def sigmoid(self) -> Reals:
        """The probability of each class logit, (B, C, A)."""
        return sigmoid(self.scores)

    @cached_property
    def points(self) -> Reals:
        """The anchor points in cells, (A, 2): x, y (SPEC 2)."""
        made = (np.mgrid[:rows, :columns][::-1].reshape(2, -1).T for rows, columns in self.case.grids)
        return np.concatenate(list(made)).astype(np.float64) + 0.5

    @cached_property
    def strides(self) -> Reals:
        """Pixels per cell of each anchor, (A,)."""
        cells = [rows * columns for rows, columns in self.case.grids]
        return np.repeat(np.array(self.case.strides, dtype=np.float64), cells)

    @cached_property
    def image(self) -> Ints:
        """The image of each target, (T,)."""
        return self.case.target_rows[:, 0].numpy().astype(np.int64)

    @cached_property
    def label(self) -> Ints:
        """The class of each target, (T,)."""
        return self.case.target_rows[:, 1].numpy().astype(np.int64)

    @cached_property
    def corners(self) -> Singles:
        """The targets' corners in pixels, (T, 4): scaled, then halved, then added, in float32 (SPEC 2)."""
        height, width = (np.float32(side) for side in self.case.image_size)
        x, y, w, h = self.case.target_rows[:, 2:].float().numpy().T * np.array([[width], [height]] * 2)
        return np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), axis=1, dtype=np.float32)

    @cached_property
    def valid(self) -> Bools:
        """Which targets count, (T,)."""
        return np.asarray((self.corners.sum(axis=1) > 0) | (self.dialect.corner == "kept"))

    @property
    def small_side(self) -> tuple[float, float]:
        """Sides below the first number are enlarged to the second (SPEC 3.1)."""
        first, second = self.case.strides[0], self.case.strides[min(1, self.case.levels - 1)]
        return {
            "below s2 to s2": (second, second),
            "below s1 to s2": (first, second),
            "none": (0.0, 0.0),
        }[self.dialect.small_sides]

    @cached_property
    def mine(self) -> Bools:
        """Which targets are in which image, (B, T); those that do not count are in none."""
        return np.asarray((np.arange(self.case.batch)[:, None] == self.image) & self.valid)

    @cached_property
    def candidate(self) -> Bools:
        """Which anchors are inside which target's enlarged box, (T, A) (SPEC 3.1)."""
        inside = edge_distances(self.corners, self).min(axis=2) > INSIDE
        return np.asarray((inside if self._also is None else inside | self._also) & self.valid[:, None])

    @cached_property
    def shares(self) -> Reals:
        """The softmax of the bins of each side, (B, 4, R, A)."""
        shifted = np.exp(self.sides - self.sides.max(axis=2, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=2, keepdims=True))

    @cached_property
    def distances(self) -> Reals:
        """The predicted distances to the four sides in cells, (B, A, 4) (SPEC 2)."""
        if self.case.reg_max == 1:
            return np.moveaxis(self.sides[:, :, 0], 1, 2)
        bins = np.arange(self.case.reg_max)[:, None]
        return np.moveaxis((self.shares * bins).sum(axis=2), 1, 2)

    @cached_property
    def predicted(self) -> Reals:
        """The predicted boxes in cells, (B, A, 4)."""
        near, far = np.split(self.distances, 2, axis=2)
        return np.concatenate((self.points - near, self.points + far), axis=2)

    @cached_property
    def overlap(self) -> Reals:
        """u: CIoU of each target with each anchor's box in pixels, (T, A), at least 0; 0 for others than candidates."""
        laid = Overlap(self.corners[:, None], (self.predicted * self.strides[:, None])[self.image])
        return np.where(self.candidate, np.maximum(laid.value, 0), 0)

    @cached_property
    def probability(self) -> Reals:
        """s: the probability of each target's class, (T, A)."""
        return self.sigmoid[self.image, self.label]

    @cached_property
    def metric(self) -> Reals:
        """m = s^alpha u^beta, (T, A) (SPEC 3.2)."""
        return np.asarray(self.probability**self.dialect.alpha * self.overlap**self.dialect.beta)

    @cached_property
    def chosen(self) -> Bools:
        """The candidates among each target's k anchors of largest metric, (T, A) (SPEC 3.3)."""
        return best(self.metric, self.candidate, self.topk)

    @cached_property
    def owner_before_topk2(self) -> Ints:
        """The target of each anchor, (B, A), before a second top-k; -1 without one (SPEC 3.4)."""
        found = np.full((self.case.batch, self.case.anchors), -1)
        for image, targets in enumerate(self.mine):
            rows = np.flatnonzero(targets)
            if len(rows):
                found[image] = self._winners(rows)
        return found

    def _winners(self, rows: Ints) -> Ints:
        """The target of each anchor among those of one image, (A,)."""
        chosen, overlap = self.chosen[rows], self.overlap[rows]
        running = chosen if self.dialect.contested == "takers" else self.candidate[rows]
        winner = np.where(running, overlap, -1.0).argmax(axis=0)  # the first of equal ones
        winner = np.where(chosen.sum(axis=0) > 1, winner, chosen.argmax(axis=0))
        return np.where(chosen.any(axis=0), rows[winner], -1)

    @cached_property
    def owner(self) -> Ints:
        """The target of each anchor, (B, A); -1 without one."""
        if self._given is not None:
            return self._given
        before = self.owner_before_topk2
        if self.topk2 is None:
            return before
        found = np.full_like(before, -1)
        for row, image in enumerate(self.image):
            own = before[image] == row
            found[image, best(np.where(own, self.metric[row], 0)[None], own[None], self.topk2)[0]] = row
        return found

    @cached_property
    def rows(self) -> Rows:
        """The anchors that have a target, with its box."""
        image, anchor = np.nonzero(self.owner >= 0)
        target = self.owner[image, anchor]
        return Rows(image, anchor, target, self.corners[target] / self.strides[anchor, None])

    @cached_property
    def row_scores(self) -> Reals:
        """t of each row, (n,) (SPEC 3.7)."""
        rows, count = self.rows, len(self.image)
        metric, overlap = self.metric[rows.target, rows.anchor], self.overlap[rows.target, rows.anchor]
        return (
            metric
            * largest(overlap, rows.target, count)
            / (largest(metric, rows.target, count) + max(self.dialect.eps, SMALL))
        )

    @cached_property
    def score(self) -> Reals:
        """t at its label's channel, (B, C, A); 0 in all others."""
        found, rows = np.zeros_like(self.scores), self.rows
        found[rows.image, self.label[rows.target], rows.anchor] = self.row_scores
        return found

    @property
    def divisor(self) -> float:
        """T_sum, at least 1."""
        return max(float(self.row_scores.sum()), 1.0)

    @cached_property
    def class_weights(self) -> Reals:
        """The weight of each class, (C, 1)."""
        given = self.case.class_weights if self.dialect.class_weights == "used" else None
        return np.array(given or (1.0,) * self.case.classes)[:, None]

    @cached_property
    def laid(self) -> Overlap:
        """The rows' predicted boxes over their targets, in cells."""
        return Overlap(self.predicted[self.rows.image, self.rows.anchor], self.rows.wanted)

    @cached_property
    def wanted_distances(self) -> Reals:
        """The distances from each row's anchor to the sides of its target, (n, 4), cut off if R > 1 (SPEC 5)."""
        point = self.points[self.rows.anchor]
        near, far = np.split(self.rows.wanted, 2, axis=1)
        plain = np.concatenate((point - near, far - point), axis=1)
        return plain if self.case.reg_max == 1 else np.clip(plain, 0, self.case.reg_max - 1 - MARGIN)

    @cached_property
    def bin_weights(self) -> Reals:
        """The weights of the two bins around each wanted distance, (n, 4, R)."""
        wanted = self.wanted_distances
        lower = np.trunc(wanted).astype(np.int64)
        upper = wanted - lower
        found = np.zeros((*wanted.shape, self.case.reg_max))
        np.put_along_axis(found, lower[..., None], (1 - upper)[..., None], axis=2)
        np.put_along_axis(found, lower[..., None] + 1, upper[..., None], axis=2)
        return found

    @cached_property
    def log_shares(self) -> Reals:
        """The log softmax of each row's bins, (n, 4, R)."""
        logits = self.sides[self.rows.image, :, :, self.rows.anchor]
        shifted = logits - logits.max(axis=2, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True)))

    @cached_property
    def shares_of_image(self) -> Reals:
        """What a cell of each row is of the image's sides, (n, 4): of the width, height, width, height."""
        height, width = self.case.image_size
        return np.asarray(self.strides[self.rows.anchor, None] / np.array((width, height, width, height)))

    @property
    def has_third(self) -> bool:
        """Whether there is a third term."""
        return self.case.reg_max > 1 or self.dialect.third_of_one_bin == "l1"

    @cached_property
    def third(self) -> Reals:
        """DFL of each row, (n,); with one bin, L1 (SPEC 5)."""
        if not self.has_third:
            return np.zeros(len(self.rows))
        if self.case.reg_max == 1:
            off = abs(self.distances[self.rows.image, self.rows.anchor] - self.wanted_distances)
            return np.asarray((off * self.shares_of_image).mean(axis=1))
        return np.asarray(-(self.bin_weights * self.log_shares).sum(axis=2).mean(axis=1))

    def bce_with(self, score: Reals) -> Reals:
        """BCE of each class logit with a score, times the weight of its class, (B, C, A)."""
        x = self.scores
        return (np.maximum(x, 0) + np.log1p(np.exp(-abs(x))) - score * x) * self.class_weights

    @cached_property
    def calls(self) -> tuple[ReferenceCall, ...]:
        """The call: items with gains, total (SPEC 5)."""
        t = self.row_scores
        of_classes = float(self.bce_with(self.score).sum())
        terms = float(((1 - self.laid.value) * t).sum()), of_classes, float((self.third * t).sum())
        gains = self.case.gains.values
        box, cls, third = (gain * term / self.divisor for gain, term in zip(gains, terms, strict=True))
        return (ReferenceCall(self.batch * (box + cls + third), (box, cls, third)),)

    @property
    def batch(self) -> float:
        """What the sum of the items is multiplied with: the batch size, and the weight of the head."""
        weight = weight_of(self.case.head or Head()) if self.dialect.heads == "YOLO26" else 1.0
        return weight * (self.case.batch if self.dialect.batch == "times" else 1)

    @cached_property
    def class_gradient(self) -> Reals:
        """Of the total by the class logits, (B, C, A) (SPEC 6)."""
        factor = self.batch * self.case.gains.cls / self.divisor
        return np.asarray(factor * (self.sigmoid - self.score) * self.class_weights)

    @cached_property
    def bin_slopes(self) -> Reals:
        """Of each row's distances by the logits of their bins, (n, 4, R)."""
        if self.case.reg_max == 1:
            return np.ones((len(self.rows), SIDES, 1))
        at = self.rows.image, slice(None), slice(None), self.rows.anchor
        distance = self.distances[self.rows.image, self.rows.anchor]
        return self.shares[at] * (np.arange(self.case.reg_max) - distance[..., None])

    @cached_property
    def row_weights(self) -> Reals:
        """What each row's terms are multiplied with in the total, without gain, (n, 1, 1)."""
        return (self.batch * self.row_scores / self.divisor)[:, None, None]

    @cached_property
    def box_gradient(self) -> Reals:
        """Of the box part of the total by each row's side logits, (n, 4, R); alpha of CIoU is constant."""
        by_distance = self.laid.gradient().value * (1, 1, -1, -1)  # of 1 - CIoU: x1 = point - left, x2 = point + right
        return self.case.gains.box * self.row_weights * by_distance[..., None] * self.bin_slopes

    @cached_property
    def third_gradient(self) -> Reals:
        """Of the third part of the total by each row's side logits, (n, 4, R)."""
        if not self.has_third:
            return np.zeros((len(self.rows), SIDES, 1))
        if self.case.reg_max == 1:
            off = self.distances[self.rows.image, self.rows.anchor] - self.wanted_distances
            slope = (np.sign(off) * self.shares_of_image)[..., None]
        else:
            at = self.rows.image, slice(None), slice(None), self.rows.anchor
            slope = self.shares[at] - self.bin_weights
        return self.case.gains.dfl * self.row_weights * slope / SIDES

    def placed(self, of_rows: Reals) -> Reals:
        """Values of the side logits of each row, (n, 4, R), at their places, (B, 4 R, A); 0 elsewhere."""
        case = self.case
        found = np.zeros((case.batch, SIDES * case.reg_max, case.anchors))
        found[self.rows.image, :, self.rows.anchor] = of_rows.reshape(len(self.rows), SIDES * case.reg_max)
        return found

    def by_level(self, values: Reals) -> tuple[Reals, ...]:
        """Values (B, n, A) as one array (B, n, H, W) for each level."""
        ends = np.cumsum([rows * columns for rows, columns in self.case.grids])[:-1]
        parts = zip(np.split(values, ends, axis=2), self.case.grids, strict=True)
        return tuple(part.reshape(*values.shape[:2], *grid) for part, grid in parts)

    @cached_property
    def gradients(self) -> tuple[Reals, ...]:
        """Of the total by each level, (B, 4 R + C, H, W)."""
        sides = self.placed(self.box_gradient + self.third_gradient)
        return self.by_level(np.concatenate((sides, self.class_gradient), axis=1))


def topks(case: Case, dialect: Dialect) -> tuple[int, int | None]:
    """The top-k, and the second one, by which targets take anchors."""
    if dialect.heads == "one":
        return case.topk or dialect.topk, case.topk2
    return TOPKS[dialect.heads][(case.head or Head()).name]


def most_anchors(case: Case, dialect: Dialect) -> int:
    """The largest top-k of any head."""
    used = (topks(case, dialect), *TOPKS.get(dialect.heads, {}).values())
    return max(k or 0 for pair in used for k in pair)


def weight_of(head: Head) -> float:
    """What the total of a head is multiplied with (SPEC 8)."""
    left = max(1 - head.updates / max(head.epochs - 1, 1), 0)
    many = left * (MANY_FIRST - MANY_LAST) + MANY_LAST
    return many if head.name == "one2many" else 1 - many


def sigmoid(x: Reals) -> Reals:
    """1 / (1 + exp(-x)), also where exp(-x) is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(np.where(x > 0, 1 / (1 + np.exp(-abs(x))), np.exp(-abs(x)) / (1 + np.exp(-abs(x)))))


def edge_distances(corners: NDArray[np.floating], reference: Reference) -> NDArray[np.floating]:
    """How far each anchor is inside the four sides of each target's enlarged box, in pixels, (T, A, 4).

    In the dtype of the corners. The round trip through centre and size is made for large boxes too (SPEC 3.1), but not
    where no side is enlarged.
    """
    kind = corners.dtype
    points = (reference.points * reference.strides[:, None]).astype(kind)
    low, high = np.split(corners, 2, axis=1)
    below, side = (kind.type(each) for each in reference.small_side)
    if below > 0:
        centre, size = (low + high) / kind.type(2), high - low
        size = np.where(size < below, side, size)
        low, high = centre - size / kind.type(2), centre + size / kind.type(2)
    return np.concatenate((points - low[:, None], high[:, None] - points), axis=2)


def best(metric: Reals, candidate: Bools, k: int) -> Bools:
    """The candidates among the k anchors of largest metric of each row, (T, A); of equal ones the first."""
    order = np.argsort(-metric, axis=1, kind="stable")[:, :k]
    found = np.zeros_like(candidate)
    np.put_along_axis(found, order, True, axis=1)
    return found & candidate


def largest(values: Reals, group: Ints, count: int) -> Reals:
    """The largest value of each one's group, (n,)."""
    found = np.zeros(count)
    np.maximum.at(found, group, values)
    return np.asarray(found[group])
