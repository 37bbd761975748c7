"""Recorded results of a task-aligned loss: the data of a vector, how it is recorded, and how it is compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from yololoss.harness.cases.case import Data, Number
from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.outcome import Call, Grid, Outcome

from .case import Case

# A value or gradient comes of some 100 float32 operations, each rounded by at most 2**-24; another machine may round
# differently: twice that, relative to the largest value around.
FLOAT32 = 2 * 2**-17
# In half precision a loss may compute everything in the predictions' dtype (golden/tal/test_golden.py measured it).
HALF = {"float16": 4e-3, "bfloat16": 2e-2}
HALF_GRADIENT = {"float16": 8e-2, "bfloat16": 2e-1}
BECAUSE = "rounding on another machine, see properties/tal/recorded.py"


class CallResult(Data):
    """What one call returned: ``total`` is its sum; ``items`` are box, cls and third, if the loss returns any."""

    total: Number
    items: tuple[Number, ...] | None = None
    total_shape: tuple[int, ...] = (3,)


class LevelGradient(Data):
    """The gradient of the total in one level: what is not 0 of it, by its flat C-order index."""

    at: tuple[int, ...]
    values: tuple[Number, ...]


class Expected(Data):
    """What a loss must do with a case. Fields that are not recorded are left out."""

    calls: tuple[CallResult, ...] | None = None
    gradients: tuple[LevelGradient, ...] | None = None
    raised: str | None = None  # stage and type of an exception


def write_down(outcome: Outcome) -> Expected:
    """What a loss did, in the form that a vector stores. Of an exception only the type is recorded."""
    return Expected(
        calls=tuple(map(_call, outcome.calls)),
        gradients=tuple(map(_gradient, outcome.gradients)),
        raised=_raised(outcome),
    )


def _call(call: Call) -> CallResult:
    return CallResult(total=call.total, items=call.items or None, total_shape=call.total_shape)


def _gradient(gradient: Grid) -> LevelGradient:
    at = np.flatnonzero(gradient)
    return LevelGradient(at=tuple(at.tolist()), values=tuple(gradient.reshape(-1)[at].tolist()))


def _raised(outcome: Outcome) -> str | None:
    first = next((each for each in outcome.troubles if each.kind.startswith("raised")), None)
    return None if first is None else f"{first.kind}: {first.detail.partition(':')[0]}"


def comparisons(case: Case, expected: Expected, outcome: Outcome) -> Iterator[Comparison]:
    """Everything that is recorded of a case, compared with the outcome."""
    now = write_down(outcome)
    raised = np.array([expected.raised or "nothing"]), np.array([now.raised or "nothing"])
    yield Comparison("values", "what was raised", *raised)
    if expected.raised or now.raised:
        return
    unit = HALF.get(case.dtype, FLOAT32)
    for n, (want, got) in enumerate(zip(expected.calls or (), now.calls or (), strict=True)):
        size = max(abs(want.total), 1.0)
        totals, shapes = (want.total, got.total), (str(want.total_shape), str(got.total_shape))
        yield _values(f"total of call {n}", totals, unit * size)
        yield Comparison("values", "shape of the total", np.array(shapes[0]), np.array(shapes[1]))
        yield _values(f"items of call {n}", (want.items or (), got.items or ()), unit * size)
    share = HALF_GRADIENT.get(case.dtype, FLOAT32)
    for i, (before, after) in enumerate(zip(expected.gradients or (), outcome.gradients, strict=False)):
        yield from _gradients(i, before, after, share)


def _values(what: str, pair: tuple[Any, Any], allowed: float) -> Comparison:
    want, got = (np.array(each, dtype=np.float64) for each in pair)
    return Comparison("values", what, want, got, allowed, BECAUSE)


def _gradients(level: int, want: LevelGradient, gradient: Grid, share: float) -> Iterator[Comparison]:
    full = np.zeros(gradient.size)
    full[list(want.at)] = want.values
    allowed = share * abs(full).max(initial=1e-6)
    place = f"gradient of level {level} at image, channel, row, column"
    yield Comparison("gradients", place, full.reshape(gradient.shape), gradient, allowed, BECAUSE)
