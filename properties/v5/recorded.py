"""Recorded results of a v5 loss: the data of a vector, how it is recorded, and how it is compared with a run."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.case import Data, Index, Number
from yololoss.harness.subjects.comparison import Aspect, Comparison
from yololoss.harness.subjects.outcome import Call, Grid, Outcome

from .case import Case
from .rows import Rows

# A value or gradient is the result of about 60 float32 operations (decode 6, CIoU 40, BCE and focal 10, mean log2 n).
# Each rounds by at most 2**-24 of its result. Another machine, or another version of torch, may round differently.
FLOAT32 = 64 * 2**-24
# In half precision each mean is rounded to half an ulp of the dtype, 2**-12 or 2**-9 of it, and so is each element
# before it; hence double that for the items. Gradients: rounding can swap two box edges that nearly tie.
HALF = {"float16": 2**-11, "bfloat16": 2**-8}
HALF_GRADIENT = 4e-2
BECAUSE = "rounding on another machine, see properties/v5/recorded.py"


class BuiltLayer(Data):
    """The rows of one layer, in order: indices, classes, and boxes in cells, centres relative to the row's cell."""

    image: tuple[int, ...]
    anchor: tuple[int, ...]
    gj: tuple[int, ...]
    gi: tuple[int, ...]
    cls: tuple[int, ...]
    box: tuple[tuple[Number, Number, Number, Number], ...]


class CallResult(Data):
    """What one call returned.

    ``total`` is times the batch size. ``box``, ``obj``, ``cls`` are the terms times gain, not times batch size; None if
    the loss returns none. ``balance_after`` is None if the loss does not show it.
    """

    total: Number
    box: Number | None = None
    obj: Number | None = None
    cls: Number | None = None
    total_shape: tuple[int, ...] = (1,)
    items_shape: tuple[int, ...] = (3,)
    total_dtype: str = "float32"
    items_dtype: str = "float32"
    balance_after: tuple[Number, ...] | None = None


class LayerGradient(Data):
    """The gradient of the last call's total in one layer.

    cells: (image, anchor, row, column) with a gradient outside the objectness channel; values: all 5 + C
    of those cells; the sums run over the objectness channel of the whole layer, in float64.
    """

    cells: tuple[tuple[int, int, int, int], ...]
    values: tuple[tuple[Number, ...], ...]
    obj_sum: Number
    obj_abs_sum: Number


class RowSteps(Data):
    """How some consecutive rows were assigned to their cells."""

    first: Index
    grid_xy: tuple[tuple[Number, Number], ...]
    offset: tuple[tuple[Number, Number], ...]
    shifted_xy: tuple[tuple[Number, Number], ...]
    cell_ij: tuple[tuple[int, int], ...]  # column, row


class AssignmentSteps(Data):
    """The steps of one layer's assignment, rounded to ``decimals`` decimals."""

    layer: Index
    decimals: Index
    targets_per_anchor_shape: tuple[int, ...]
    anchor_index: tuple[tuple[int, ...], ...]
    gain: tuple[Number, ...]
    scaled_targets: tuple[tuple[Number, ...], ...]  # image, class, x, y, w, h
    ratio_match: tuple[tuple[bool, ...], ...]
    matched_rows: tuple[tuple[Number, ...], ...]  # image, class, x, y, w, h, anchor
    cell_choice: tuple[tuple[bool, ...], ...]  # own, left, above, right, below
    rows: RowSteps
    built_rows: int
    xy_range: tuple[Number, Number]
    class_targets: tuple[Number, Number]  # positive, negative


class Expected(Data):
    """What a subject must do with a case. Fields that are not recorded are left out."""

    built: tuple[BuiltLayer, ...] | None = None
    calls: tuple[CallResult, ...] | None = None
    gradients: tuple[LayerGradient, ...] | None = None
    steps: AssignmentSteps | None = None
    raised: str | None = None  # stage and type of an exception


def write_down(outcome: Outcome) -> Expected:
    """What a loss did, in the form that a vector stores. Of an exception only the type is recorded."""
    return Expected(
        built=None if outcome.rows is None else tuple(map(_built, outcome.rows)),
        calls=tuple(map(_call, outcome.calls)),
        gradients=tuple(map(_gradient, outcome.gradients)),
        raised=_raised(outcome),
    )


def _built(rows: Rows) -> BuiltLayer:
    image, anchor, gj, gi, cls, box = (
        getattr(rows, name).tolist() for name in ("image", "anchor", "row", "column", "cls", "box")
    )
    return BuiltLayer(
        image=tuple(image),
        anchor=tuple(anchor),
        gj=tuple(gj),
        gi=tuple(gi),
        cls=tuple(cls),
        box=tuple((x, y, w, h) for x, y, w, h in box),
    )


def _call(call: Call) -> CallResult:
    items = call.items[:3] if len(call.items) >= 3 else (None, None, None)
    return CallResult(
        total=call.total,
        box=items[0],
        obj=items[1],
        cls=items[2],
        total_shape=call.total_shape,
        items_shape=call.items_shape,
        total_dtype=call.total_dtype,
        items_dtype=call.items_dtype,
        balance_after=call.state,
    )


def _used(gradient: Grid) -> NDArray[np.bool_]:
    """(B, A, H, W): cells with a gradient outside the objectness channel. NaN is not 0."""
    return np.asarray((np.delete(gradient, 4, axis=-1) != 0).any(axis=-1))


def _gradient(gradient: Grid) -> LayerGradient:
    cells = np.argwhere(_used(gradient))
    return LayerGradient(
        cells=tuple((b, a, h, w) for b, a, h, w in cells.tolist()),
        values=tuple(map(tuple, gradient[tuple(cells.T)].tolist())),
        obj_sum=float(gradient[..., 4].sum()),
        obj_abs_sum=float(abs(gradient[..., 4]).sum()),
    )


def _raised(outcome: Outcome) -> str | None:
    """The stage and type of the first exception."""
    first = next((t for t in outcome.troubles if t.kind.startswith("raised")), None)
    return None if first is None else f"{first.kind}: {first.detail.partition(':')[0]}"


def comparisons(case: Case, expected: Expected, outcome: Outcome, *, floor: float = 1.0) -> Iterator[Comparison]:
    """Everything that is recorded, compared with the outcome. A different shape ends the comparison of its part.

    Terms are compared within rounding of their size, or of ``floor`` times their gain if that is larger: each is a mean
    of logarithms, which cancel for confident predictions.
    """
    if expected.raised is not None or expected.calls:
        yield Comparison("values", "exception", np.array(str(expected.raised)), np.array(str(_raised(outcome))))
    if expected.built is not None:
        yield from _compare_rows(expected.built, outcome.rows)
    for n, (want, got) in enumerate(zip(expected.calls or (), outcome.calls, strict=False)):
        yield from _compare_call(case, n, want, got, floor)
    for i, (recorded, gradient) in enumerate(zip(expected.gradients or (), outcome.gradients, strict=False)):
        yield from _compare_gradient(case, i, recorded, gradient)


def _exact(aspect: Aspect, what: str, expected: Any, observed: Any) -> Comparison:
    return Comparison(aspect, what, np.array(expected), np.array(observed))


def _compare_rows(built: tuple[BuiltLayer, ...], rows: tuple[Rows, ...] | None) -> Iterator[Comparison]:
    counts = [len(layer.image) for layer in built], [] if rows is None else [len(layer) for layer in rows]
    if counts[0] != counts[1]:
        yield _exact("rows", "rows of each layer", str(counts[0]), str(counts[1]))
        return
    for i, (want, got) in enumerate(zip(built, rows or (), strict=True)):
        for name, recorded, now in (
            ("image", want.image, got.image),
            ("anchor", want.anchor, got.anchor),
            ("grid row", want.gj, got.row),
            ("grid column", want.gi, got.column),
            ("class", want.cls, got.cls),
            ("box", np.array(want.box).reshape(-1, 4), got.box.astype(np.float64)),
        ):
            yield _exact("rows", f"layer {i}, {name} of row", recorded, now)


def _compare_call(case: Case, n: int, want: CallResult, got: Call, floor: float) -> Iterator[Comparison]:
    shapes = (want.total_shape, want.items_shape, want.total_dtype, want.items_dtype)
    now = (got.total_shape, got.items_shape, got.total_dtype, got.items_dtype)
    yield _exact("values", f"shapes and dtypes of call {n}", str(shapes), str(now))
    if now != shapes:
        return
    gains = (case.hyp.box, case.hyp.obj, case.hyp.cls)
    for name, recorded, observed, gain in (
        *zip(("box", "objectness", "class"), (want.box, want.obj, want.cls), got.items[:3], gains, strict=False),
        ("total", want.total, got.total, case.batch * max(gains)),
    ):
        if recorded is not None:
            values = np.array(recorded), np.array(observed)
            scale = max(abs(recorded), floor * gain)
            tolerance = HALF.get(case.dtype, FLOAT32) * (scale if np.isfinite(scale) else 0.0)
            yield Comparison("values", f"{name} of call {n}", *values, tolerance, BECAUSE)
    if want.balance_after is not None:
        table = np.array(want.balance_after)
        after = np.array(got.state if got.state is not None else ())
        if table.shape != after.shape:
            yield _exact("values", f"length of the balance after call {n}", table.size, after.size)
        else:
            yield Comparison("values", f"balance after call {n}", table, after, np.abs(FLOAT32 * table), BECAUSE)


def _compare_gradient(case: Case, i: int, want: LayerGradient, gradient: Grid) -> Iterator[Comparison]:
    unit = HALF_GRADIENT if case.dtype in HALF else FLOAT32
    cells = np.array(want.cells, dtype=np.int64).reshape(-1, 4)
    found = np.zeros(gradient.shape[:4], dtype=bool)
    found[tuple(cells.T)] = True
    yield _exact("gradients", f"layer {i}, other cells with a gradient", 0, int((_used(gradient) & ~found).sum()))
    values = np.array(want.values).reshape(-1, gradient.shape[-1])
    # a gradient is a difference of numbers near 1, times its share of the gain
    share = case.batch * max(case.hyp.box, case.hyp.cls) / (max(len(cells), 1) * case.classes)
    largest = np.abs(values[np.isfinite(values)]).max(initial=share)
    at = gradient[tuple(cells.T)]
    yield Comparison("gradients", f"layer {i}, gradient of a cell, channel", values, at, unit * largest, BECAUSE)
    objectness = gradient[..., 4]
    for name, recorded, now in (
        ("sum", want.obj_sum, objectness.sum()),
        ("absolute sum", want.obj_abs_sum, abs(objectness).sum()),
    ):
        scale = max(want.obj_abs_sum, case.batch * case.hyp.obj) if np.isfinite(want.obj_abs_sum) else 0.0
        what = f"layer {i}, objectness gradient, {name}"
        yield Comparison("gradients", what, np.array(recorded), np.array(now), unit * scale, BECAUSE)
