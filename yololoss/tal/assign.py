"""Assignment: which anchors predict which target, and how good each of them is at it.

Ties have one winner on every device and in every order of execution. Of anchors with the same metric, the first ones
are among the best of a target, in the order of anchors; of those with metric 0, the ones that are no candidates come
before. Of targets with the same overlap, the first row wins an anchor. Metrics and overlaps are compared in float32.
They are made of operations that IEEE 754 rounds in one way, and of some that are rounded once (`rounded_once`): so
devices, batches and images by themselves agree about what is a tie. A compiler that fuses operations may round anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from yololoss.tal.boxes import Anchors, aspect_angle, bounded, ciou, rounded_once
from yololoss.tal.inputs import Targets

PAIRS = 2**18  # of a target and an anchor: so many are looked at together, which bounds the memory
INSIDE = 1e-9  # pixels by which an anchor point must be inside a box
ROWS = 2**32  # more than there are rows: a factor that makes one whole number of an overlap and a row


@dataclass
class Assigner:
    """The settings of the assignment. A change takes effect at the next call.

    metric = score^alpha overlap^beta. Raises ValueError for a top-k below 1. Source: SPEC section 1.
    """

    topk: int = 10  # anchors that a target takes at first
    topk2: int | None = None  # anchors that it keeps after conflicts; None: all
    alpha: float = 0.5
    beta: float = 6.0
    eps: float = 1e-9

    def __post_init__(self) -> None:
        for name, value in (("topk", self.topk), ("topk2", self.topk2)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")

    @property
    def most(self) -> int:
        """How many anchors a target has on average at most: it may inherit some, but then another has lost them."""
        return self.topk if self.topk2 is None else min(self.topk, self.topk2)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every pair of a target and an anchor of its image: T targets in the order of their rows, A anchors."""

    candidate: Bool[Tensor, "T A"]  # the anchor is inside the box, small boxes enlarged
    overlap: Float32[Tensor, "T A"]  # CIoU with the predicted box, at least 0; 0 where it is no candidate
    metric: Float[Tensor, "T A"]
    chosen: Bool[Tensor, "T A"]  # a candidate among the target's best

    @classmethod
    def joined(cls, parts: "list[Pairs]") -> "Pairs":
        """The pairs of all targets, from those of some."""
        names = ("candidate", "overlap", "metric", "chosen")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class Owners:
    """Which target owns each anchor, by its row; T is no target."""

    row: Int64[Tensor, "B A"]
    before_topk2: Int64[Tensor, "B A"]
    contested: Bool[Tensor, "B A"]  # chosen by two targets or more
    candidate: Bool[Tensor, "B A"]  # of any target


class Matching:
    """The pairs of one batch, computed for some targets at a time."""

    def __init__(
        self,
        targets: Targets,
        predicted: Float32[Tensor, "B A 4"],
        scores: Float[Tensor, "B C A"],
        anchors: Anchors,
        small_side: float,
        settings: Assigner,
    ) -> None:
        self.targets = targets
        # Corners in pixels. Each coordinate lies in one piece: most of the time goes into reading them.
        self.predicted = bounded(predicted).movedim(2, 1).contiguous().movedim(1, 2)
        angle = partial(rounded_once, torch.atan2)
        self.angle, self.target_angle = aspect_angle(self.predicted, angle), aspect_angle(targets.box, angle)
        self.scores = scores
        self.points = anchors.pixel
        self.small_side = small_side
        self.settings = settings
        self.rows = len(targets.image) - 1  # the last is that of no target
        self.shape = predicted.shape[:2]

    def chunks(self) -> Iterator[slice]:
        """Slices of rows with at most `PAIRS` pairs each, or of one row; without rows, an empty one."""
        size = max(PAIRS // self.shape[1], 1)
        return (slice(start, min(start + size, self.rows)) for start in range(0, max(self.rows, 1), size))

    def pairs(self, some: slice) -> Pairs:
        """All pairs of some targets."""
        image, box = self.targets.image[some], self.targets.box[some]
        candidate = inside(self.points, enlarged(box, self.small_side)) & self.targets.present[some, None]
        overlap = ciou(box[:, None], self.predicted[image], self.target_angle[some, None], self.angle[image])
        overlap = positive(overlap, candidate)
        metric = self.metric(self.scores[image, self.targets.cls[some]], overlap)
        return Pairs(candidate, overlap, metric, best(metric.float(), candidate, self.settings.topk))

    def metric(self, logits: Tensor, overlap: Tensor) -> Tensor:
        """How well an anchor fits a target, from its logit at the target's class and the overlap."""
        score = rounded_once(torch.sigmoid, logits.to(torch.promote_types(logits.dtype, torch.float32)))
        return positive(power(score, self.settings.alpha) * power(overlap, self.settings.beta), overlap > 0)

    def owners(self, seen: list[Pairs] | None = None) -> Owners:
        """Look at all pairs; ``seen`` collects them."""
        nobody = self.rows
        device = self.points.device
        first = torch.full(self.shape, nobody, device=device)
        last, largest = torch.full_like(first, -1), torch.full_like(first, -1)
        for some in self.chunks():
            pairs = self.pairs(some)
            row = torch.arange(some.start, some.stop, device=device)[:, None]
            at = self.targets.image[some, None].expand_as(pairs.chosen)
            first.scatter_reduce_(0, at, torch.where(pairs.chosen, row, nobody), "amin")
            last.scatter_reduce_(0, at, torch.where(pairs.chosen, row, -1), "amax")
            # The bits of floats that are not negative are ordered as the floats. The first row is the largest
            # remainder. One maximum over whole numbers has one result, in whatever order it is taken.
            key = pairs.overlap.view(torch.int32).long() * ROWS + (nobody - row)
            largest.scatter_reduce_(0, at, torch.where(pairs.candidate, key, -1), "amax")
            if seen is not None:
                seen.append(pairs)
        contested = first < last
        row = torch.where(contested, nobody - largest % ROWS, first)
        topk2 = self.settings.topk2
        kept = row if topk2 is None or topk2 == self.settings.topk else self._keep(row, topk2)
        return Owners(kept, row, contested, largest >= 0)

    def _keep(self, owner: Tensor, topk2: int) -> Tensor:
        """The owners after the second top-k: each target keeps its best anchors."""
        metric = self.of_owners(owner)[0].float()
        kept = torch.zeros_like(owner)
        for some in self.chunks():
            image = self.targets.image[some]
            own = owner[image] == torch.arange(some.start, some.stop, device=owner.device)[:, None]
            chosen = best(torch.where(own, metric[image], 0), own, topk2)
            kept.scatter_reduce_(0, image[:, None].expand_as(own), chosen.long(), "amax")
        return torch.where(kept > 0, owner, self.rows)

    def of_owners(self, owner: Int64[Tensor, "B A"]) -> tuple[Tensor, Tensor]:
        """Metric and overlap of each anchor with the target that owns it, (B, A); 0 without one."""
        overlap = ciou(self.targets.box[owner], self.predicted, self.target_angle[owner], self.angle)
        overlap = positive(overlap, owner < self.rows)
        logits = self.scores.gather(1, self.targets.cls[owner][:, None]).squeeze(1)
        return self.metric(logits, overlap), overlap

    def target_scores(self, owner: Tensor, metric: Tensor, overlap: Tensor) -> Tensor:
        """The score t of each anchor, (B, A): its metric, scaled so that a target's best one has its largest overlap.

        t = m U / (M + eps), where M and U are the largest metric and overlap of the target's anchors.
        """
        slots = owner.flatten()
        largest_metric, largest_overlap = (
            values.new_zeros(self.rows + 1).scatter_reduce_(0, slots, values.flatten(), "amax")[owner]
            for values in (metric, overlap)
        )
        return metric * largest_overlap / (largest_metric + self.settings.eps)


def enlarged(box: Float32[Tensor, "n 4"], small_side: float) -> Float32[Tensor, "n 4"]:
    """Boxes (corners) whose sides below ``small_side`` are as long as that, around the same centres.

    Large boxes, too, are taken to centre and size and back, as upstream does: it may move a side by an ulp.
    """
    low, high = box.chunk(2, dim=-1)
    centre, size = (low + high) / 2, high - low
    half = torch.where(size < small_side, small_side, size) / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def inside(points: Float32[Tensor, "A 2"], box: Float32[Tensor, "n 4"]) -> Bool[Tensor, "n A"]:
    """Which points are strictly inside which boxes."""
    x, y = points.unbind(1)
    left, top, right, bottom = box[:, :, None].unbind(1)
    return (x - left > INSIDE) & (y - top > INSIDE) & (right - x > INSIDE) & (bottom - y > INSIDE)


def positive(values: Tensor, where: Tensor) -> Tensor:
    """Values where they are wanted and above 0; 0 elsewhere, and for NaN."""
    return torch.where(where & (values > 0), values, 0)


def power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent; the usual exponents by a root and products, which are fast and rounded in one way."""
    if exponent == 0.5:
        return base.sqrt()
    if exponent == 6:
        cube = base * base * base
        return cube * cube
    return rounded_once(partial(torch.pow, exponent=exponent), base)


def best(metric: Float32[Tensor, "n A"], candidate: Bool[Tensor, "n A"], k: int) -> Bool[Tensor, "n A"]:
    """The candidates among the k anchors of largest metric of each row; the metric of others must be 0.

    torch.topk takes any of equal ones. Here its k-th value decides, and of anchors with just that the first ones have
    the rooms that are left.
    """
    k = min(k, metric.shape[1])
    limit = metric.topk(k, dim=1).values[:, -1:]
    above = metric > limit
    level = candidate & (metric == limit)
    outside = torch.where(limit > 0, 0, (~candidate).sum(1, keepdim=True))
    room = k - above.sum(1, keepdim=True) - outside
    return above | (level & (level.cumsum(1) <= room))
