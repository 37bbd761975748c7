"""Compares the task-aligned loss with recorded values: every number of every vector."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from yololoss import Assignment

from .vectors import SIDES, HeadResult, Vector, forms, levels, loss_of, numbers, vectors

HEADS = forms.HEADS
# A value or gradient comes of some 100 float32 operations (decode 40, CIoU 50, the metric's powers 6 times the error
# of an overlap, normalisation 4), each rounded by at most 2**-24: 2**7 * 2**-24, relative to the largest value around.
FLOAT32 = 2**-17
# Upstream computes in half precision what this project computes in float32. A side, a sum of 16 products, is off by
# three roundings (2**-12 or 2**-9 of it), an overlap by four times that, its sixth power by 24 times: so is a score.
# Values and gradients are means of those. The record's own README measured 2e-3 and 4e-2, 1e-2 and 1e-1.
HALF_SCORE = {"float16": 3 * 24 * 2**-12, "bfloat16": 3 * 24 * 2**-9}
HALF_VALUE = {"float16": 2e-3, "bfloat16": 1e-2}
HALF_GRADIENT = {"float16": 4e-2, "bfloat16": 1e-1}
# Upstream drops a target whose corners sum to 0 or less. Here it is refused, so the vector is asked without it.
REFUSED = {"corner-dropped": [0]}
# Upstream takes centres outside the image. With checks they are refused.
UNCHECKED = ("beyond",)

Count = Callable[[int], None]
every_vector = pytest.mark.parametrize("vector", vectors(), ids=lambda v: v.id)


class Head(NamedTuple):
    """What the loss did with one head: gradients (B, 4 R + C, A), scores (B, A), both float64, and the assignment."""

    assigned: Assignment
    gradient: np.ndarray
    score: np.ndarray
    bins: int  # 4 R


class Outcome(NamedTuple):
    """What the loss did with a case."""

    total: np.ndarray
    items: np.ndarray
    heads: list[Head]
    rows: list[int]  # of the targets that it was given, their rows in the case


@lru_cache(maxsize=len(vectors()))
def run(index: int) -> Outcome:
    """Run the loss on a vector's case."""
    vector = vectors()[index]
    rows = [i for i in range(len(vector.case.targets)) if i not in REFUSED.get(vector.id, ())]
    targets, loss = batch(vector, rows), loss_of(vector.case, checks=vector.id not in UNCHECKED)
    layers = list(map(levels, vector.case.heads))
    total, items = loss(layers[0] if len(layers) == 1 else dict(zip(HEADS, layers, strict=True)), targets)
    total.sum().backward()
    losses = [loss] if len(layers) == 1 else [getattr(loss, name) for name in HEADS]
    heads = []
    for one, given in zip(losses, layers, strict=True):
        assigned = one.assign(given, targets)
        gradient = torch.cat([level.grad.flatten(2) for level in given], dim=2)
        heads.append(Head(assigned, gradient.double().numpy(), assigned.score.double().numpy(), SIDES * one.reg_max))
    return Outcome(total.detach().numpy(), np.array([float(v) for v in items.values()]), heads, rows)


def batch(vector: Vector, rows: list[int]) -> dict[str, torch.Tensor]:
    """Some of the targets as a batch."""
    return forms.as_batch(vector.case.heads[0].target_rows[rows])


def outcome(vector: Vector) -> Outcome:
    """What the loss did with a vector's case; it runs once."""
    return run(next(i for i, v in enumerate(vectors()) if v.id == vector.id))


def close(observed: Any, expected: Any, tolerance: float, what: str, scale: float | None = None) -> int:
    """Compare within ``tolerance`` of ``scale`` (default: each expected value); return how many."""
    got, want = np.asarray(observed, dtype=np.float64), numbers(expected)
    assert got.shape == want.shape, what
    assert np.isfinite(got).all(), f"{what}: {got}"
    known = np.isfinite(want)  # where upstream's is infinite, the loss's must be finite: that's all
    allowed = tolerance * (abs(want) if scale is None else scale)
    assert (abs(got - want) <= allowed)[known].all(), f"{what}: expected {want}, observed {got}"
    return got.size


def pairs(vector: Vector) -> list[tuple[Head, HeadResult]]:
    """Each head with what is recorded of it."""
    return list(zip(outcome(vector).heads, vector.expected.heads, strict=True))


def foreground(head: Head, vector: Vector) -> dict[tuple[int, int], tuple[int, int]]:
    """Target (its number in the image) and label of each anchor with a score, by image and anchor."""
    rows = outcome(vector).rows
    images = [int(row[0]) for row in vector.case.targets]
    at = head.score.nonzero()
    owner = head.assigned.owners.row.numpy()[at]
    label = head.assigned.targets.cls.numpy()[owner]
    number = [images[: rows[row]].count(images[rows[row]]) for row in owner]
    anchors = zip(*(index.tolist() for index in at), strict=True)
    return dict(zip(anchors, zip(number, label.tolist(), strict=True), strict=True))


def recorded_foreground(recorded: HeadResult) -> dict[tuple[int, int], tuple[int, int]]:
    """The same of upstream. What has score 0 is background: which of those it chose is arbitrary."""
    columns = (getattr(recorded.foreground, name) for name in ("image", "anchor", "target", "label", "score"))
    return {(i, a): (t, c) for i, a, t, c, score in zip(*columns, strict=True) if score > 0}


@every_vector
def test_the_assignment_is_the_recorded_one(vector: Vector, count: Count):
    """Every anchor has upstream's target and label, and targets upstream's corners to the last bit.

    Where exact ties are recorded on purpose, another choice is as right: then the scores are the same, in some order.
    """
    for head, recorded in pairs(vector):
        got, want = foreground(head, vector), recorded_foreground(recorded)
        at = recorded.foreground.image, recorded.foreground.anchor
        scores, wanted = head.score[at], numbers(recorded.foreground.score)
        if got != want:
            assert "TIE" in vector.flags
            assert sorted(got.values()) == sorted(want.values())
            scores, wanted = np.sort(head.score[head.score > 0]), np.sort(wanted)
        tolerance = HALF_SCORE.get(vector.case.dtype, FLOAT32)
        count(4 * len(want) + close(scores, wanted, tolerance, "score", scale=1.0))
        count(close(head.score.sum(), recorded.score_sum, tolerance, "sum of scores", max(1, len(want))))
        assigned = head.assigned.targets
        corners = [assigned.box[row].tolist() for image in range(vector.case.batch)
                   for row in (assigned.present & (assigned.image == image)).nonzero()[:, 0]]  # fmt: skip
        # recorded as the shortest decimals that read back as the same float32
        assert np.array_equal(np.float32(corners), np.float32(recorded.boxes))
        count(4 * len(corners))


@every_vector
def test_the_loss_is_the_recorded_one(vector: Vector, count: Count):
    """Total and items equal upstream's."""
    tolerance = HALF_VALUE.get(vector.case.dtype, FLOAT32)
    got = outcome(vector)
    count(close(got.total, vector.expected.total, tolerance, "total"))
    count(close(got.items, vector.expected.items, tolerance, "items"))


@every_vector
def test_the_gradients_are_the_recorded_ones(vector: Vector, count: Count):
    """The gradient equals upstream's in the recorded anchors, and is 0 for the boxes of all others."""
    tolerance = HALF_GRADIENT.get(vector.case.dtype, FLOAT32)
    for head, recorded in pairs(vector):
        want, at = recorded.gradients, recorded.foreground
        # where ties were decided otherwise, other anchors have the gradients: the sums over each level remain
        same = foreground(head, vector) == recorded_foreground(recorded)
        box, scores = np.split(head.gradient, [head.bins], axis=1)
        wanted_box, wanted_score = numbers(want.box), numbers(want.score)
        largest = max(abs(wanted_box).max(initial=0), abs(wanted_score).max(initial=0))
        if same:
            cells = numbers(want.box_cells).astype(int).reshape(-1, 2)
            index = (cells[:, 0], slice(None), cells[:, 1])
            count(close(box[index], wanted_box.reshape(-1, head.bins), tolerance, "box", largest))
            rest = box.copy()
            rest[index] = 0
            assert not rest.any(), "a box has a gradient where no target is"
            wanted_score = wanted_score.reshape(-1, scores.shape[1])
            count(close(scores[at.image, :, at.anchor], wanted_score, tolerance, "class", largest))
        sizes = [rows * columns for rows, columns in vector.case.grids]
        for level, sums in zip(np.split(scores, np.cumsum(sizes)[:-1], axis=2), want.score_sums, strict=True):
            count(close([level.sum(), abs(level).sum()], sums, tolerance, "sums of the class gradient", sums[1]))


@every_vector
def test_both_forms_of_predictions_give_the_same_loss(vector: Vector):
    """A mapping and a list, which a model in eval mode returns beside its output: not a bit differs."""
    case = vector.case
    heads = [(torch.zeros(1), forms.as_mapping(levels(head), case.reg_max)) for head in case.heads]
    preds = heads[0] if len(heads) == 1 else (torch.zeros(1), dict(zip(HEADS, heads, strict=True)))
    loss = loss_of(case, checks=vector.id not in UNCHECKED)
    total, _ = loss(preds, batch(vector, outcome(vector).rows))
    assert total.tolist() == outcome(vector).total.tolist()


@pytest.mark.parametrize("name", [*REFUSED, *UNCHECKED])
def test_what_upstream_loses_or_takes_from_outside_the_image_is_refused(name: str):
    """A centre outside the image is refused by name, where upstream drops the target, or takes it."""
    vector = next(v for v in vectors() if v.id == name)
    with pytest.raises(
        ValueError, match=r"^batch\['bboxes'\]\[\d, 0\] \(x\): expected a number from 0 to 1, got -?\d\.\d+"
    ):
        loss_of(vector.case)(levels(vector.case.heads[0]), forms.as_batch(vector.case.heads[0].target_rows))
