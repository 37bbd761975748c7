"""The task-aligned loss in plain loops over Python's floats, from SPEC alone: slow, and easy to compare with the page.

It shares no code with the loss. Targets are read in float32, since that decides at edges; all else is float64.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EPS = 1e-7


@dataclass
class Case:
    """One call: ``levels`` are arrays (B, 4 R + C, H, W), ``rows`` image, class, x, y, w, h."""

    levels: list[np.ndarray]
    strides: list[float]
    rows: list[tuple[float, ...]]
    classes: int
    bins: int
    topk: int = 10
    topk2: int | None = None
    weights: list[float] | None = None


@dataclass
class Result:
    """Target row and score of each anchor that has one, by image and anchor; what decided; the three terms."""

    owner: dict[tuple[int, int], int] = field(default_factory=dict)
    score: dict[tuple[int, int], float] = field(default_factory=dict)
    gap: float = math.inf  # the smallest relative distance of two numbers that decided and are not equal
    terms: tuple[float, float, float] = (0.0, 0.0, 0.0)


def ciou(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """SPEC section 4."""
    w1, h1 = one[2] - one[0], one[3] - one[1] + EPS
    w2, h2 = two[2] - two[0], two[3] - two[1] + EPS
    inter = max(min(one[2], two[2]) - max(one[0], two[0]), 0) * max(min(one[3], two[3]) - max(one[1], two[1]), 0)
    iou = inter / (w1 * h1 + w2 * h2 - inter + EPS)
    across = max(one[2], two[2]) - min(one[0], two[0])
    down = max(one[3], two[3]) - min(one[1], two[1])
    rho2 = ((one[0] + one[2] - two[0] - two[2]) ** 2 + (one[1] + one[3] - two[1] - two[3]) ** 2) / 4
    v = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    return iou - (rho2 / (across**2 + down**2 + EPS) + v * v / (1 - iou + v + EPS))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


class Slow:
    """Everything of one case, step by step."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.images = len(case.levels[0])
        self.points, self.pixels = [], []
        for level, stride in zip(case.levels, case.strides, strict=True):
            for row in range(level.shape[2]):
                for column in range(level.shape[3]):
                    self.points.append((column + 0.5, row + 0.5))
                    self.pixels.append(stride)
        flat = np.concatenate([level.reshape(*level.shape[:2], -1) for level in case.levels], axis=2)
        self.sides = flat[:, : 4 * case.bins].reshape(self.images, 4, case.bins, -1).astype(np.float64)
        self.logits = flat[:, 4 * case.bins :].astype(np.float64)
        self.size = [n * case.strides[0] for n in case.levels[0].shape[2:]]
        self.boxes = [self.corners(row) for row in case.rows]
        self.small = case.strides[min(1, len(case.strides) - 1)]

    def corners(self, row: tuple[float, ...]) -> tuple[float, ...]:
        height, width = np.float32(self.size[0]), np.float32(self.size[1])
        x, y, w, h = (np.float32(v) for v in row[2:])
        x, y, w, h = x * width, y * height, w * width, h * height
        return tuple(float(v) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))

    def distance(self, image: int, anchor: int) -> list[float]:
        if self.case.bins == 1:
            return [float(v) for v in self.sides[image, :, 0, anchor]]
        shares = (np.exp(log_softmax(self.sides[image, side, :, anchor])) for side in range(4))
        return [float(sum(j * p for j, p in enumerate(share))) for share in shares]

    def cells(self, image: int, anchor: int) -> tuple[float, ...]:
        """The predicted box in cells."""
        (x, y), (left, top, right, bottom) = self.points[anchor], self.distance(image, anchor)
        return x - left, y - top, x + right, y + bottom

    def inside(self, row: int, anchor: int) -> bool:
        x, y = (v * self.pixels[anchor] for v in self.points[anchor])
        box = np.float32(self.boxes[row])
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        size = np.where(size < self.small, np.float32(self.small), size)
        (left, top), (right, bottom) = centre - size / 2, centre + size / 2
        return bool(min(x - left, y - top, right - x, bottom - y) > 1e-9)

    def run(self) -> Result:
        result = Result()
        anchors = range(len(self.points))
        overlap: dict[tuple[int, int], float] = {}
        metric: dict[tuple[int, int], float] = {}
        for row, (image, cls, *_) in enumerate(self.case.rows):
            for a in anchors:
                if self.inside(row, a):
                    pixels = tuple(v * self.pixels[a] for v in self.cells(int(image), a))
                    overlap[row, a] = max(ciou(self.boxes[row], pixels), 0.0)
                    metric[row, a] = sigmoid(self.logits[int(image), int(cls), a]) ** 0.5 * overlap[row, a] ** 6
        takers: dict[tuple[int, int], list[int]] = {}
        for row, (image, *_) in enumerate(self.case.rows):
            mine = {a: metric.get((row, a), 0.0) for a in anchors}
            for a in self.best(mine, {a for a in anchors if (row, a) in metric}, self.case.topk, result):
                takers.setdefault((int(image), a), []).append(row)
        for (image, a), rows in takers.items():
            among = [r for r, row in enumerate(self.case.rows) if row[0] == image and (r, a) in overlap]
            if len(rows) > 1:
                self.decided([overlap[r, a] for r in among], 1, result)
            result.owner[image, a] = max(among, key=lambda r: (overlap[r, a], -r)) if len(rows) > 1 else rows[0]
        if self.case.topk2 not in (None, self.case.topk):
            self.second(metric, result)
        self.score(metric, overlap, result)
        self.sum(result)
        return result

    def decided(self, values: list[float], k: int, result: Result) -> None:
        values = sorted(values, reverse=True)
        if len(values) > k and values[k - 1] > values[k]:
            result.gap = min(result.gap, (values[k - 1] - values[k]) / values[k - 1])

    def best(self, metric: dict[int, float], candidates: set[int], k: int, result: Result) -> list[int]:
        """SPEC 3.3; of equal ones those that are no candidates, then the first."""
        k = min(k, len(metric))
        self.decided(list(metric.values()), k, result)
        ranked = sorted(metric, key=lambda a: (-metric[a], a in candidates, a))
        return [a for a in ranked[:k] if a in candidates]

    def second(self, metric: dict[tuple[int, int], float], result: Result) -> None:
        """SPEC 3.5."""
        for row, (image, *_) in enumerate(self.case.rows):
            own = {a for (i, a), owner in result.owner.items() if owner == row and i == image}
            values = {a: metric[row, a] if a in own else 0.0 for a in range(len(self.points))}
            kept = self.best(values, own, self.case.topk2 or 0, result)
            for a in own - {*kept}:
                del result.owner[int(image), a]

    def score(self, metric: dict[Any, float], overlap: dict[Any, float], result: Result) -> None:
        """SPEC 3.7."""
        for row in range(len(self.case.rows)):
            own = [(image, a) for (image, a), owner in result.owner.items() if owner == row]
            if own:
                most, largest = max(metric[row, a] for _, a in own), max(overlap[row, a] for _, a in own)
                for image, a in own:
                    result.score[image, a] = metric[row, a] * largest / (most + 1e-9)

    def sum(self, result: Result) -> None:
        """SPEC section 5."""
        box = third = cls = 0.0
        for image in range(self.images):
            for c in range(self.case.classes):
                weight = self.case.weights[c] if self.case.weights else 1.0
                for a in range(len(self.points)):
                    owner = result.owner.get((image, a))
                    wanted = result.score[image, a] if owner is not None and self.case.rows[owner][1] == c else 0.0
                    x = self.logits[image, c, a]
                    cls += weight * (max(x, 0) - x * wanted + math.log1p(math.exp(-abs(x))))
        for (image, a), t in result.score.items():
            target = tuple(v / self.pixels[a] for v in self.boxes[result.owner[image, a]])
            box += (1 - ciou(self.cells(image, a), target)) * t
            third += self.third(image, a, target) * t
        divisor = max(sum(result.score.values()), 1.0)
        result.terms = box / divisor, cls / divisor, third / divisor

    def third(self, image: int, anchor: int, target: tuple[float, ...]) -> float:
        (x, y), bins = self.points[anchor], self.case.bins
        wanted = [x - target[0], y - target[1], target[2] - x, target[3] - y]
        if bins == 1:
            got, height, width = self.distance(image, anchor), *self.size
            off = [abs(g - w) * self.pixels[anchor] for g, w in zip(got, wanted, strict=True)]
            return sum(v / side for v, side in zip(off, (width, height, width, height), strict=True)) / 4
        loss = 0.0
        for side, d in enumerate(min(max(d, 0.0), bins - 1 - 0.01) for d in wanted):
            j, logs = int(d), log_softmax(self.sides[image, side, :, anchor])
            loss -= (j + 1 - d) * logs[j] + (1 - (j + 1 - d)) * logs[j + 1]
        return loss / 4
