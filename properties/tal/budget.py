"""How far rounding may take a right loss from the reference, and whether rounding decides who gets which anchor.

Where a decision of the assignment hangs on rounding (SPEC 7), two right losses may differ by a whole anchor. Such a
case is in doubt: laws that compare with the reference leave it out. For all others, errors are carried from the logits
to the results: the reference is evaluated again with every coordinate moved by its error, so a place where a result is
sensitive widens its own tolerance and no other.
"""

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .case import SIDES, Case
from .dialects import UPSTREAM, Dialect
from .overlap import Overlap, Reals
from .reference import MARGIN, SMALL, Bools, Ints, Reference, edge_distances

BECAUSE = "rounding, see properties/tal/budget.py"
U = 2.0**-24  # the largest relative error of one rounding to float32
# Roundings of a result made of a few numbers: CIoU takes 40 operations, few of which add up.
FEW = 16
EXP = 4  # ulps that an exponential or logarithm may be off
HALF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # one rounding to half precision
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-133}  # half precision has no smaller steps
# A smaller probability may be 0 in float32, since the exponential of the negated logit overflows, or has few digits.
LEAST_PROBABILITY = 2.0**-126
UNDERFLOW = 2.0**-120  # float32 has few digits below 2**-126, or none, and a result is a product with gains and batch
# Metrics below may be 0 in float32: which of them are among the best is arbitrary.
VANISHING = 2.0**-120
# A score below is that of an anchor whose metric vanishes, over eps.
NO_SCORE = 2.0**-90
ANYTHING = 1e30


class Budget:
    """The budget of a case, in the shapes of an outcome."""

    because = BECAUSE

    def __init__(
        self, case: Case, dialect: Dialect = UPSTREAM, owner: Ints | None = None, also: Bools | None = None
    ) -> None:
        self.case, self.dialect = case, dialect
        self.reference = Reference(case, dialect, owner, also)
        own = case.dtype in HALF and dialect.half == "own"
        self.unit = HALF[case.dtype] if own else U  # one rounding of what the loss computes
        self.cast = HALF.get(case.dtype, 0.0)  # one rounding of a gradient to the predictions' dtype
        self.step = SMALLEST[case.dtype] if own else 0.0  # of what the loss computes, before it is multiplied
        self.least = UNDERFLOW + SMALLEST.get(case.dtype, 0.0) + (SMALLEST["float16"] if own else 0.0)

    # Boxes and overlaps

    @cached_property
    def _spread(self) -> Reals:
        """How much a softmax share may be off, as a multiple of a rounding, (B, 4, R, A)."""
        shifted = self.reference.sides.max(axis=2, keepdims=True) - self.reference.sides
        return np.asarray(EXP + shifted)

    @cached_property
    def distances(self) -> Reals:
        """Of the predicted distances in cells, (B, A, 4)."""
        r = self.reference
        if self.case.reg_max == 1:
            return np.zeros_like(r.distances)
        bins = np.arange(self.case.reg_max)[:, None]
        own = (r.shares * self._spread * bins).sum(axis=2)
        mean = np.moveaxis(r.distances, 2, 1) * (r.shares * self._spread).sum(axis=2)
        rounded = self.unit * (own + mean + FEW * np.moveaxis(r.distances, 2, 1))
        return np.moveaxis(rounded, 1, 2)

    @cached_property
    def corners(self) -> Reals:
        """Of the predicted boxes in cells, (B, A, 4)."""
        r = self.reference
        points = np.tile(r.points, 2)
        return np.asarray(self.distances + 2 * self.unit * (points + abs(r.distances)))

    @cached_property
    def overlap(self) -> Reals:
        """Of the overlap of each target with each anchor's box, (T, A)."""
        r = self.reference
        pixels = r.strides[:, None]
        box = (r.predicted * pixels)[r.image]
        target = np.broadcast_to(r.corners[:, None].astype(np.float64), box.shape)
        off = (self.corners * pixels)[r.image] + 2 * self.unit * abs(box)
        return moved_value(box, target, off, U * abs(target)) + FEW * self.unit

    @cached_property
    def overlap_range(self) -> tuple[Reals, Reals]:
        """The least and the largest overlap that a right loss may have, (T, A)."""
        r = self.reference
        low = np.maximum(r.overlap - self.overlap, 0)
        return low, np.where(r.candidate, np.minimum(r.overlap + self.overlap, 1 + FEW * U), 0)

    @cached_property
    def metric_range(self) -> tuple[Reals, Reals]:
        """The least and the largest metric that a right loss may have, (T, A)."""
        r, dialect = self.reference, self.dialect
        x = r.scores[r.image, r.label]
        off = FEW * (self.unit + U) * (1 + dialect.beta)
        least = SMALLEST["float16"] if self.unit > U else LEAST_PROBABILITY
        # where sigmoid is tiny, the exponential of a logit that is rounded is off by more
        wide = off + U * np.minimum(abs(x), 200)
        low, high = self.overlap_range
        share = np.maximum(r.probability - least, 0), r.probability + least
        return tuple(  # type: ignore[return-value]  # two of them
            s**dialect.alpha * u**dialect.beta * (1 + sign * wide)
            for s, u, sign in zip(share, (low, high), (-1, 1), strict=True)
        )

    # Decisions

    @cached_property
    def doubt(self) -> str | None:
        """What rounding decides in the assignment; None if it decides nothing."""
        if not len(self.reference.image):
            return None
        checks = (
            ("which anchors are inside a target", self._edges_in_doubt),
            ("which anchors are among a target's best", self._best_in_doubt),
            ("which target wins an anchor", self._winners_in_doubt),
            ("which anchors of metric 0 are among a target's best", self._zeros_in_doubt),
            ("which anchors a target keeps", self._kept_in_doubt),
        )
        return next((what for what, in_doubt in checks if in_doubt()), None)

    @property
    def decided(self) -> bool:
        """Whether rounding decides nothing in the assignment."""
        return self.doubt is None

    def _edges_in_doubt(self) -> bool:
        return bool(self.edges_in_doubt.any())

    @cached_property
    def edges_in_doubt(self) -> Bools:
        """For which targets and anchors rounding decides whether one is inside the other, (T, A)."""
        r = self.reference
        single = edge_distances(r.corners, r)
        # In float64 fractions times sides are exact, as they have few bits together.
        x, y, w, h = r.case.target_rows[:, 2:].float().double().numpy().T
        height, width = r.case.image_size
        exact = np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), axis=1) * ((width, height) * 2)
        double = edge_distances(exact, r)
        near = abs(double) < FEW * U * (abs(exact).max(axis=1, initial=0) + max(height, width))[:, None, None]
        sure = (single == 0) & (double == 0)  # no rounding at all: inputs have few bits
        away = (single.min(axis=2) <= -1) & (double.min(axis=2) <= -1)  # another side decides
        doubtful = (near & ~sure).any(axis=2) & ~away
        below = r.small_side[0]
        sides = r.corners[:, 2:] - r.corners[:, :2]
        exact_sides = exact[:, 2:] - exact[:, :2]
        at_limit = (abs(exact_sides - below) < FEW * U * width) & ~((sides == below) & (exact_sides == below))
        return np.asarray((doubtful | at_limit.any(axis=1)[:, None]) & r.valid[:, None])

    @cached_property
    def _vanishing(self) -> Bools:
        """Candidates whose metric may be 0 in float32, (T, A)."""
        return np.asarray(self.reference.candidate & (self.metric_range[0] < VANISHING))

    def _best_in_doubt(self) -> bool:
        r = self.reference
        return self._cut_in_doubt(r.chosen & ~self._vanishing, r.candidate & ~r.chosen)

    def _cut_in_doubt(self, taken: Bools, left: Bools) -> bool:
        """Whether an anchor that is left may be as good as one that is taken, for any row."""
        low, high = self.metric_range
        worst = np.where(taken, low, np.inf).min(axis=1)
        rival = np.where(left, high, -np.inf).max(axis=1)
        full = taken.any(axis=1) & left.any(axis=1)
        return bool((full & (rival >= worst) & (rival >= VANISHING)).any())

    @cached_property
    def _sure_winner(self) -> Ints:
        """The target of largest overlap of each anchor among all of its image, (B, A); -1 if rounding decides."""
        r = self.reference
        low, high = self.overlap_range
        found = np.full((self.case.batch, self.case.anchors), -1)
        for image, mine in enumerate(r.mine):
            rows = np.flatnonzero(mine)
            if len(rows):
                first = r.overlap[rows].argmax(axis=0)
                others = np.where(np.arange(len(rows))[:, None] == first, -1.0, high[rows]).max(axis=0)
                sure = low[rows[first], np.arange(self.case.anchors)] > others
                found[image] = np.where(sure, rows[first], -1)
        return found

    @cached_property
    def _choosers(self) -> Ints:
        """How many targets choose each anchor, metrics that may be 0 left out, (B, A)."""
        r = self.reference
        sure = r.chosen & ~self._vanishing
        return np.stack([sure[mine].sum(axis=0) for mine in r.mine])

    def _winners_in_doubt(self) -> bool:
        if self.dialect.contested == "takers":
            return bool((self._choosers > 1).any()) and not self._takers_are_sure()
        return bool(((self._choosers > 1) & (self._sure_winner < 0)).any())

    def _takers_are_sure(self) -> bool:
        r = self.reference
        low, high = self.overlap_range
        image, anchor = np.nonzero(self._choosers > 1)
        for b, a in zip(image, anchor, strict=True):
            rows = np.flatnonzero(r.mine[b] & r.chosen[:, a])
            owner = r.owner_before_topk2[b, a]
            if any(high[row, a] >= low[owner, a] for row in rows if row != owner):
                return False
        return True

    def _zeros_in_doubt(self) -> bool:
        """Whether it matters which anchors of metric 0 fill the rooms that are left (SPEC 7)."""
        r = self.reference
        room = r.topk > (r.candidate & ~self._vanishing).sum(axis=1)
        maybe = self._vanishing & room[:, None]
        return bool(maybe.any()) and (self._zeros_change_owner(maybe) or self._zeros_change_scores(maybe))

    def _zeros_change_owner(self, maybe: Bools) -> bool:
        r = self.reference
        for image, mine in enumerate(r.mine):
            fans, sure = maybe[mine].sum(axis=0), self._choosers[image]
            winner, anchors = self._sure_winner[image], np.arange(self.case.anchors)
            alone = np.where(mine[:, None] & r.chosen & ~self._vanishing, np.arange(len(mine))[:, None], -1).max(axis=0)
            nothing = (winner >= 0) & self._vanishing[winner, anchors]
            # one sure chooser, that need not be the winner; or none, and a winner with a score that chose it not
            if ((fans > 0) & (sure == 1) & (winner != alone)).any():
                return True
            unsure = (fans > 1) & (sure == 0) & ~nothing
            if (unsure & (self.metric_range[1][mine].max(axis=0, initial=0) >= VANISHING)).any():
                return True
        return False

    def _zeros_change_scores(self, maybe: Bools) -> bool:
        """Whether an anchor without a metric may have the largest overlap of a target with a score."""
        r, rows = self.reference, self.reference.rows
        for row in np.flatnonzero(maybe.any(axis=1)):
            own = rows.anchor[(rows.target == row) & ~self._vanishing[row, rows.anchor]]
            largest = self.overlap_range[0][row, own].max(initial=0)
            if len(own) and self.overlap_range[1][row, maybe[row]].max() > largest:
                return True
            if not len(own) and self.metric_range[1][row].max() >= VANISHING and r.overlap[row].max() > 1e-3:
                return True
        return False

    def _kept_in_doubt(self) -> bool:
        r = self.reference
        if r.topk2 is None:
            return False
        own = (r.owner_before_topk2[r.image] == np.arange(len(r.image))[:, None]) & r.valid[:, None]
        kept = (r.owner[r.image] == np.arange(len(r.image))[:, None]) & r.valid[:, None]
        return self._cut_in_doubt(kept & ~self._vanishing, own & ~kept)

    # Scores

    @cached_property
    def row_scores(self) -> Reals:
        """Of t of each row, (n,): the range of m U / (M + eps), where the row's own m may be the largest."""
        r, rows = self.reference, self.reference.rows
        at = rows.target, rows.anchor
        low, high = (each[at] for each in self.metric_range)
        overlaps = tuple(each[at] for each in self.overlap_range)
        found, eps = np.zeros(len(rows)), max(self.dialect.eps, SMALL)
        for row in np.unique(rows.target):
            mine = np.flatnonzero(rows.target == row)
            least, most = (each[mine].max() for each in overlaps)
            others_low, others_high = (_of_others(each[mine]) for each in (low, high))
            smallest = least * low[mine] / (np.maximum(low[mine], others_high) + eps)
            largest = most * high[mine] / (np.maximum(high[mine], others_low) + eps)
            t = r.row_scores[mine]
            found[mine] = np.maximum(largest - t, t - smallest)
        return np.asarray(found + 2 * FEW * self.unit * r.row_scores + NO_SCORE)

    @cached_property
    def score(self) -> Reals:
        """Of t of every anchor and class, (B, C, A)."""
        r = self.reference
        found = np.zeros_like(r.scores)
        found[r.rows.image, r.label[r.rows.target], r.rows.anchor] = self.row_scores
        # Vanishing candidates may have a target or not.
        for row in np.flatnonzero(self._vanishing.any(axis=1)):
            found[r.image[row], r.label[row], self._vanishing[row]] += NO_SCORE
        return found

    @cached_property
    def divisor(self) -> float:
        """Of T_sum, as a share of it."""
        total = float(self.row_scores.sum()) + self._sum_error * float(self.reference.row_scores.sum())
        return total / self.reference.divisor if self.reference.row_scores.sum() + total > 1 else 0.0

    @cached_property
    def _sum_error(self) -> float:
        return U * (FEW + 2 * math.log2(max(self.case.anchors * self.case.batch, 2)))

    # Results

    @cached_property
    def _box_term(self) -> tuple[Reals, Reals]:
        """Of CIoU of each row in cells, (n,); and the errors of its box's corners, (n, 4)."""
        r, rows = self.reference, self.reference.rows
        box = r.predicted[rows.image, rows.anchor]
        off = self.corners[rows.image, rows.anchor] + 2 * self.unit * abs(box)
        return moved_value(box, rows.wanted, off, 2 * U * abs(rows.wanted)) + FEW * self.unit, off

    @cached_property
    def _wanted(self) -> Reals:
        """Of the wanted distances, (n, 4)."""
        rows = self.reference.rows
        point = np.tile(self.reference.points[rows.anchor], 2)
        return np.asarray(4 * U * (point + abs(rows.wanted) + self.case.reg_max) + U * MARGIN)

    @cached_property
    def _third_term(self) -> Reals:
        """Of the third term of each row, (n,)."""
        r, rows = self.reference, self.reference.rows
        if self.case.reg_max == 1:
            off = self.distances[rows.image, rows.anchor] + self._wanted
            size = abs(r.distances[rows.image, rows.anchor]) + abs(r.wanted_distances)
            return np.asarray(((off + FEW * self.unit * size) * r.shares_of_image).mean(axis=1))
        logits = r.sides[rows.image, :, :, rows.anchor]
        size = abs(r.log_shares) + abs(logits)
        rounded = FEW * self.unit * (size * r.bin_weights + EXP * r.bin_weights).sum(axis=2)
        steps = abs(np.diff(r.log_shares, axis=2)).max(axis=2)  # of two bins side by side
        return np.asarray((rounded + self._wanted * steps).mean(axis=1))

    @cached_property
    def items(self) -> tuple[Reals, ...]:
        """Of (box, cls, third) of the call, (3,)."""
        r, t = self.reference, self.reference.row_scores
        of_box = self.row_scores * (1 - r.laid.value) + t * (self._box_term[0] + FEW * self.unit)
        of_third = self.row_scores * r.third + t * self._third_term
        gains = np.array(self.case.gains.values)
        terms = np.array([float(of_box.sum()), self.bce(r.score, self.score), float(of_third.sum())])
        items = np.array(r.calls[0].items)
        return (gains * terms / r.divisor + abs(items) * (self.divisor + self._sum_error),)

    def bce(self, score: Reals, off: Reals) -> float:
        """Of the sum of BCE of all class logits with scores (B, C, A) that may be ``off``."""
        r = self.reference
        x, weights = r.scores, abs(r.class_weights)
        # As many write it, BCE is a difference of numbers of about 1, and of the logit where there is a score.
        parts = EXP * (1 + abs(x) * (score > 0))
        sizes = np.maximum(x, 0) + abs(score * x) + np.log1p(np.exp(-abs(x)))
        of_each = off * abs(x) + self.unit * parts + (FEW * self.unit + self._bce_cast) * sizes
        of_sum = (self._sum_error + self._bce_cast) * abs(r.bce_with(score))
        return float((of_each * weights).sum() + of_sum.sum())

    @property
    def _bce_cast(self) -> float:
        """Upstream sums the class term in the dtype of the scores."""
        return 0.0 if self.unit == U else 16 * self.unit

    @cached_property
    def totals(self) -> tuple[float, ...]:
        """Of the total."""
        r = self.reference
        size = sum(map(abs, r.calls[0].items))
        return (r.batch * (float(self.items[0].sum()) + FEW * U * size),)

    @cached_property
    def class_gradient(self) -> Reals:
        """Of the gradient of the class logits, (B, C, A)."""
        r = self.reference
        factor = r.batch * self.case.gains.cls * abs(r.class_weights) / r.divisor
        x = np.minimum(abs(r.scores), 200)
        off = self.score + self.unit * (FEW * (r.sigmoid + r.score) + EXP * r.sigmoid * x) + self.step
        return self._as_gradient(factor * off, r.class_gradient)

    def _as_gradient(self, off: Reals, value: Reals) -> Reals:
        """The error of a gradient: divided by T_sum, then rounded to the dtype of the predictions."""
        rounded = (self.divisor + FEW * self.unit + self.cast) * abs(value)
        return np.asarray(off + rounded + (self.cast * off) + self.least)

    @cached_property
    def _slopes(self) -> Reals:
        """Of the slopes of the distances by the logits, (n, 4, R)."""
        r, rows = self.reference, self.reference.rows
        if self.case.reg_max == 1:
            return np.zeros((len(rows), SIDES, 1))
        at = rows.image, slice(None), slice(None), rows.anchor
        share = r.shares[at]
        spread = self._spread[at]
        distance = self.distances[rows.image, rows.anchor][..., None]
        size = abs(np.arange(self.case.reg_max) - r.distances[rows.image, rows.anchor][..., None])
        return np.asarray(share * (FEW * self.unit * spread * (size + 1) + distance + self.unit * self.case.reg_max))

    @cached_property
    def box_gradient(self) -> Reals:
        """Of the box part of the gradient of each row's side logits, (n, 4, R)."""
        r, rows = self.reference, self.reference.rows
        box = r.predicted[rows.image, rows.anchor]
        gradient = r.laid.gradient()
        moved = moved_gradient(box, rows.wanted, self._box_term[1], 2 * U * abs(rows.wanted))
        by_corner = moved + FEW * self.unit * gradient.size
        slope = abs(r.bin_slopes)
        off = by_corner[..., None] * (slope + self._slopes) + abs(gradient.value)[..., None] * self._slopes
        return self._of_rows(self.case.gains.box * off, r.box_gradient)

    @cached_property
    def third_gradient(self) -> Reals:
        """Of the third part of the gradient of each row's side logits, (n, 4, R)."""
        r, rows = self.reference, self.reference.rows
        if not r.has_third:
            return np.zeros((len(rows), SIDES, self.case.reg_max))
        if self.case.reg_max == 1:
            apart = abs(r.distances[rows.image, rows.anchor] - r.wanted_distances)
            near = self.distances[rows.image, rows.anchor] + self._wanted
            near = near + 4 * self.unit * abs(r.distances[rows.image, rows.anchor])
            jump = np.where(apart <= near, 2.0, FEW * self.unit)  # |x| has any slope from -1 to 1 at 0
            off = (jump * r.shares_of_image)[..., None]
        else:
            at = rows.image, slice(None), slice(None), rows.anchor
            off = FEW * self.unit * self._spread[at] * r.shares[at] + self._wanted[..., None] + FEW * self.unit
        return self._of_rows(self.case.gains.dfl * off / SIDES, r.third_gradient)

    def _of_rows(self, off: Reals, value: Reals) -> Reals:
        """Of the gradient of rows whose score has an error, (n, 4, R)."""
        r = self.reference
        share = self.row_scores / np.maximum(r.row_scores, SMALL)
        by_score = np.minimum(share, ANYTHING)[:, None, None] * abs(value)
        return self._as_gradient(r.row_weights * (1 + np.minimum(share, 1)[:, None, None]) * off + by_score, value)

    @cached_property
    def gradients(self) -> tuple[NDArray[np.float64], ...]:
        """Of the total's gradient, (B, 4 R + C, H, W) for each level."""
        r = self.reference
        sides = r.placed(self.box_gradient + self.third_gradient) + self.least
        return r.by_level(np.concatenate((sides, self.class_gradient), axis=1))


def moved_value(box: Any, target: Any, off: Any, target_off: Any) -> Reals:
    """How far CIoU changes if each corner coordinate is moved by its error, (...)."""
    middle = Overlap(box, target).value
    changes = (abs(each.value - middle) for each in _moved(box, target, off, target_off, 1.0))
    return _pairwise(list(changes))


def moved_gradient(box: Any, target: Any, off: Any, target_off: Any) -> Reals:
    """The same of CIoU's gradient, (..., 4).

    Where edges nearly coincide it jumps, and changes further behind the jump: hence moves by one error and by two.
    """
    middle = Overlap(box, target).gradient().value
    once, twice = ([each.gradient().value for each in _moved(box, target, off, target_off, far)] for far in (1.0, 2.0))
    return _pairwise([abs(a - middle) + abs(b - a) for a, b in zip(once, twice, strict=True)])


def _moved(box: Any, target: Any, off: Any, target_off: Any, far: float) -> list[Overlap]:
    """The boxes laid over each other with one coordinate moved: of each coordinate, first down and then up."""
    found = []
    for side in range(SIDES):
        at = (np.arange(SIDES) == side) * far
        for sign in (-1, 1):
            found.append(Overlap(box + sign * at * off, target))
        for sign in (-1, 1):
            found.append(Overlap(box, target + sign * at * target_off))
    return found


def _pairwise(changes: list[Reals]) -> Reals:
    """The sum over coordinates of the larger change of the two directions."""
    pairs = zip(changes[::2], changes[1::2], strict=True)
    return np.asarray(sum(np.maximum(one, other) for one, other in pairs))


def _of_others(values: Reals) -> Reals:
    """For each value the largest of the others, (n,); 0 without others."""
    if len(values) < 2:
        return np.zeros(len(values))
    *_, second, first = np.sort(values)
    return np.asarray(np.where(values == first, second, first))
