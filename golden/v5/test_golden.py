"""Compares the subject with recorded values: every number of every vector."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yololoss import assign_layer, smooth_bce
from yololoss.harness.cases.vectors import Vector, kind, read_vectors
from yololoss.harness.subjects.execute import execute as execute_anew
from yololoss.harness.subjects.family import LossUnderTest, find_family
from yololoss.harness.subjects.outcome import Grid, Outcome

HERE = Path(__file__).parent
UPSTREAM = read_vectors(HERE / "upstream-5081342f04fb.json").vectors
ARTICLE = read_vectors(HERE / "article.json").vectors

# A value or gradient comes of a chain of some 60 float32 operations (decode 6, CIoU 40, BCE and focal 10,
# mean log2 n), each rounded by at most 2**-24: 64 * 2**-24, relative to the largest value around.
FLOAT32 = 64 * 2**-24
# Upstream computes in half precision what this project computes in float32. Each of its means is rounded to
# half an ulp of the dtype, 2**-12 or 2**-9 of it, after elements that each were; double that for the items.
# Gradients: within 4e-2 of the layer's largest, since a tie of box edges within half rounding can flip one.
HALF = {"float16": 2**-11, "bfloat16": 2**-8}
HALF_GRADIENT = 4e-2

Count = Callable[[int], None]
execute = lru_cache(maxsize=len(UPSTREAM))(execute_anew)  # three tests compare what one execution gave


def close(observed: object, expected: object, tolerance: float, what: str, scale: float | None = None) -> int:
    """Compare within ``tolerance`` of ``scale`` (default: each expected value); return how many."""
    got, want = np.asarray(observed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert got.shape == want.shape, what
    assert np.isfinite(got).all(), f"{what}: {got}"
    known = np.isfinite(want)  # where upstream's is NaN or infinite, the subject's must be finite: that's all
    allowed = tolerance * (np.abs(want) if scale is None else scale)
    assert (np.abs(got - want) <= allowed)[known].all(), f"{what}: expected {want}, observed {got}"
    return got.size


def compare_rows(rows: Any, recorded: Any) -> int:
    """Compare a layer's rows with what is recorded of them, in order and to the bit; return how many numbers."""
    for got, want in (
        (rows.image, recorded.image),
        (rows.anchor, recorded.anchor),
        (rows.row, recorded.gj),
        (rows.column, recorded.gi),
        (rows.cls, recorded.cls),
    ):
        assert got.tolist() == list(want)
    assert [tuple(box) for box in rows.box.tolist()] == list(recorded.box)
    return 9 * len(rows)


@pytest.mark.parametrize("vector", UPSTREAM, ids=lambda v: v.id)
def test_rows_are_the_recorded_ones_in_order_and_bit_for_bit(subject: LossUnderTest, vector: Vector, count: Count):
    """Built rows equal upstream's: indices, classes, order, and boxes to the last bit."""
    rows = execute(subject, vector.case).rows
    assert rows is not None
    assert vector.expected is not None
    assert vector.expected.built is not None
    for built, want in zip(rows, vector.expected.built, strict=True):
        count(compare_rows(built, want))


@pytest.mark.parametrize("vector", UPSTREAM, ids=lambda v: v.id)
def test_loss_is_the_recorded_one(subject: LossUnderTest, vector: Vector, count: Count):
    """Total, items, balances, shapes and dtypes of every call equal upstream's."""
    tolerance = HALF.get(vector.case.dtype, FLOAT32)
    calls = execute(subject, vector.case).calls
    assert vector.expected is not None
    assert vector.expected.calls is not None
    for call, want in zip(calls, vector.expected.calls, strict=True):
        numbers = close(call.total, want.total, tolerance, "total")
        numbers += close(call.items[:3], (want.box, want.obj, want.cls), tolerance, "items")
        assert (call.total_shape, call.items_shape) == (want.total_shape, want.items_shape)
        assert (call.total_dtype, call.items_dtype) == (want.total_dtype, want.items_dtype)
        if want.balance_after is not None:
            numbers += close(call.state, want.balance_after, FLOAT32, "balance after the call")
        count(numbers + 4)


@pytest.mark.parametrize("vector", UPSTREAM, ids=lambda v: v.id)
def test_gradients_are_the_recorded_ones(subject: LossUnderTest, vector: Vector, count: Count):
    """The gradient equals upstream's in the recorded cells, and is 0 outside objectness in all others."""
    outcome = execute(subject, vector.case)
    assert vector.expected is not None
    assert vector.expected.gradients is not None
    tolerance = HALF_GRADIENT if vector.case.dtype in HALF else FLOAT32
    for observed, recorded in zip(outcome.gradients, vector.expected.gradients, strict=True):
        count(compare_gradient(observed, recorded, tolerance))


def compare_gradient(observed: Grid, recorded: Any, tolerance: float) -> int:
    """Compare a layer's gradient with what is recorded of it; return how many numbers."""
    objectness = observed[..., 4]
    numbers = close(objectness.sum(), recorded.obj_sum, tolerance, "objectness sum", recorded.obj_abs_sum)
    numbers += close(abs(objectness).sum(), recorded.obj_abs_sum, tolerance, "objectness absolute sum")
    elsewhere = np.ones(observed.shape, dtype=bool)
    elsewhere[..., 4] = False
    if recorded.cells:
        at = tuple(np.array(recorded.cells).T)
        want = np.array(recorded.values, dtype=np.float64)
        largest = abs(want[np.isfinite(want)]).max()
        numbers += close(observed[at], want, tolerance, "gradient", largest)
        elsewhere[at] = False
    assert not observed[elsewhere].any(), "a gradient where no row is"
    return numbers


def test_large_logits_get_finite_gradients_where_upstream_has_none(subject: LossUnderTest):
    """Three recorded cells have NaN or infinite gradients upstream; here every gradient is finite."""
    vector = next(v for v in UPSTREAM if v.id == "large-logits")
    assert vector.expected is not None
    assert vector.expected.gradients is not None
    broken = sum(not np.isfinite(values).all() for g in vector.expected.gradients for values in g.values)
    assert broken == 3
    outcome: Outcome = execute(subject, vector.case)
    assert all(np.isfinite(g).all() for g in outcome.gradients)


def test_the_articles_steps_are_those_of_the_assignment(count: Count):
    """The explanation of the guided example gives every intermediate value that the article prints."""
    (vector,) = ARTICLE
    assert vector.expected is not None
    want = vector.expected.steps
    assert want is not None
    case = vector.case
    layer = assign_layer(
        case.target_rows,
        torch.tensor(case.anchors[want.layer]),
        case.grids[want.layer],
        case.hyp.anchor_t,
    )
    image_class = case.target_rows[:, :2]
    scaled = torch.cat((image_class, layer.scaled), dim=1)
    anchor, target = layer.matched.nonzero(as_tuple=True)
    pairs = torch.cat((scaled[target], anchor[:, None]), dim=1)
    rows, columns = case.grids[want.layer]
    some = slice(want.rows.first, want.rows.first + len(want.rows.grid_xy))
    anchors, targets = layer.matched.shape
    exact = (
        ((anchors, targets, 7), want.targets_per_anchor_shape),
        ([[a] * targets for a in range(anchors)], want.anchor_index),
        ((1, 1, columns, rows, columns, rows, 1), want.gain),
        (layer.matched, want.ratio_match),
        (layer.choice[:, target], want.cell_choice),
        (layer.offset[some], want.rows.offset),
        (layer.cell[some], want.rows.cell_ij),
        (len(layer.cls), want.built_rows),
        (smooth_bce(0.0), want.class_targets),
    )
    for got, recorded in exact:
        assert np.array_equal(np.asarray(got), np.asarray(recorded))
        count(np.asarray(recorded).size)
    printed = 0.5 * 10**-want.decimals + 1e-6  # half of the last printed decimal, and float32's own rounding
    for got, recorded in (
        (scaled, want.scaled_targets),
        (pairs, want.matched_rows),
        (layer.scaled[layer.target[some], :2], want.rows.grid_xy),
        (layer.shifted[some], want.rows.shifted_xy),
    ):
        np.testing.assert_allclose(np.asarray(got), np.asarray(recorded), rtol=0, atol=printed)
        count(np.asarray(recorded).size)
    low, high = want.xy_range
    assert bool(((layer.box[:, :2] >= low) & (layer.box[:, :2] <= high)).all())
    count(2)


def test_files_follow_the_published_schema():
    """schema.json is made from the types that read the files, and every golden file is valid under it."""
    jsonschema = pytest.importorskip("jsonschema", reason="in the extra dev, for other languages' sake")
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    assert schema == kind("v5").file.model_json_schema()
    for path in sorted(HERE.glob("*.json")):
        if path.name != "schema.json":
            jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)


def test_reading_and_writing_a_case_keeps_every_bit():
    """A case read from its own JSON is the same case."""
    for vector in (*UPSTREAM, *ARTICLE):
        case = find_family("v5").case  # whatever its package is called: in a wheel it is inside ours
        assert case.model_validate_json(vector.case.model_dump_json(), strict=False) == vector.case
