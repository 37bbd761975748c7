"""Holds the reference to recorded values: ``pytest golden --vectors FILE [--dialect NAME]``.

Each file says what some loss did. The reference, in the loss's dialect, must build the same rows to the bit, and its
values and gradients must agree within the error budget. What was NaN, infinite or an exception is a fault of the loss,
so nothing is compared there. Without ``--vectors``, the files of this folder are used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yololoss.harness.cases.vectors import Vector, read_vectors
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.dialect import read_dialect
from yololoss.harness.subjects.family import find_family

from ..given import files_of
from .test_golden import Count, compare_rows

Recorded = Vector[Any, Any]
HERE = Path(__file__).parent
V5 = find_family("v5")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each vector of each file."""
    given, named = metafunc.config.getoption("vectors"), metafunc.config.getoption("dialect")
    found = []
    own = [HERE / "upstream-5081342f04fb.json", *sorted((HERE / "dialects").glob("*.json"))]
    for path in files_of("v5", given) if given else own:
        try:
            file = read_vectors(path)
            text = str((named if given else None) or file.source.get("dialect", V5.usual_dialect))
            dialect: Any = read_dialect(text, V5.dialects, V5.usual_dialect)
            if dialect.taken or dialect.added_term != "none":
                raise UsageError(f"dialect {text}: what is taken from the loss itself, no file has")
        except UsageError as error:
            raise pytest.UsageError(f"--vectors {path}: {error}") from error
        found += [pytest.param(each, dialect, id=f"{path.stem}-{each.id}") for each in file.vectors if each.expected]
    metafunc.parametrize(("vector", "dialect"), found)


def test_the_reference_gives_the_recorded_rows_bit_for_bit(vector: Recorded, dialect: Any, count: Count) -> None:
    """Indices, classes, order, and boxes to the last bit."""
    if vector.expected.built is None:
        pytest.skip("no rows are recorded")
    mine = V5.reference(vector.case, dialect).rows
    for rows, want in zip(mine, vector.expected.built, strict=True):
        count(compare_rows(rows, want))


def test_the_reference_gives_the_recorded_values(vector: Recorded, dialect: Any, count: Count) -> None:
    """Total and items of every call, within the error budget."""
    if not vector.expected.calls:
        pytest.skip("no value is recorded")
    budget: Any = V5.budget(vector.case, dialect)
    calls = budget.reference.calls
    for call, want, items, total in zip(calls, vector.expected.calls, budget.items, budget.totals, strict=False):
        numbers = np.array([want.total, *(v for v in (want.box, want.obj, want.cls) if v is not None)])
        off = abs(numbers - np.array([call.total, *call.items])[: len(numbers)])
        known = np.isfinite(numbers)
        assert (off <= np.array([total, *items])[: len(numbers)])[known].all(), f"{numbers}, {call}"
        count(int(known.sum()))


def test_the_reference_gives_the_recorded_gradients(vector: Recorded, dialect: Any, count: Count) -> None:
    """In the recorded cells, and summed over objectness, within the error budget; elsewhere none outside objectness."""
    if not vector.expected.gradients:
        pytest.skip("no gradient is recorded")
    budget: Any = V5.budget(vector.case, dialect)
    layers = zip(budget.reference.gradients, budget.gradients, vector.expected.gradients, strict=True)
    for i, (mine, off, want) in enumerate(layers):
        rest = np.delete(mine, 4, axis=-1)
        if want.cells:
            at = tuple(np.array(want.cells).T)
            recorded = np.array(want.values, dtype=np.float64)
            known = np.isfinite(recorded)
            assert (abs(mine[at] - recorded) <= off[at])[known].all(), f"layer {i}"
            rest[at] = 0
            count(int(known.sum()))
        assert (abs(rest) <= np.delete(off, 4, axis=-1)).all(), f"layer {i}: a gradient where none is recorded"
        summed = float(mine[..., 4].sum()), float(abs(mine[..., 4]).sum())
        for one, two in zip(summed, (want.obj_sum, want.obj_abs_sum), strict=True):
            if np.isfinite(two):
                assert abs(one - two) <= float(off[..., 4].sum()), f"layer {i}: the sum over objectness"
                count(1)
