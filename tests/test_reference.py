"""The reference reproduces every recorded value. Only for this reason may it judge losses."""

import numpy as np
import pytest

from golden.v5.test_golden import FLOAT32, HALF, HALF_GRADIENT, UPSTREAM, close, compare_gradient, compare_rows
from properties.v5.budget import UNITS, Budget
from properties.v5.reference import Reference


@pytest.mark.parametrize("vector", UPSTREAM, ids=lambda v: v.id)
def test_the_reference_gives_the_recorded_rows_loss_balances_and_gradients(vector):
    """Rows exactly and in order; values and gradients within the rounding of what was recorded."""
    reference, case = Reference(vector.case), vector.case
    for rows, want in zip(reference.rows, vector.expected.built, strict=True):
        compare_rows(rows, want)
    tolerance = HALF.get(case.dtype, FLOAT32)
    # a float32 BCE cancels: where every logit is about -12 or less, it is off by 2**-24 x 12 a cell
    cancelled = 16 * UNITS["float32"] * case.hyp.obj * sum(reference.calls[0].balance[: case.layers])
    for call, want in zip(reference.calls, vector.expected.calls, strict=True):
        for mine, recorded in zip((call.total, *call.items), (want.total, want.box, want.obj, want.cls), strict=True):
            assert abs(mine - recorded) <= tolerance * abs(recorded) + case.batch * cancelled
        if want.balance_after is not None:
            close(call.balance_after, want.balance_after, FLOAT32, "balance")
    for mine, want in zip(reference.gradients, vector.expected.gradients, strict=True):
        compare_gradient(mine, want, HALF_GRADIENT if case.dtype in HALF else FLOAT32)


@pytest.mark.parametrize("vector", [v for v in UPSTREAM if v.case.dtype == "float32"], ids=lambda v: v.id)
def test_upstreams_recorded_values_lie_within_the_error_budget(vector):
    """The budget causes no false alarm: what upstream returned in float32 is within it."""
    budget = Budget(vector.case)
    for call, want, items, total in zip(
        budget.reference.calls, vector.expected.calls, budget.items, budget.totals, strict=True
    ):
        assert (abs(np.array(call.items) - (want.box, want.obj, want.cls)) <= items).all()
        assert abs(call.total - want.total) <= total
    for mine, off, want in zip(budget.reference.gradients, budget.gradients, vector.expected.gradients, strict=True):
        if want.cells:
            at = tuple(np.array(want.cells).T)
            recorded = np.array(want.values)
            known = np.isfinite(recorded)
            assert (abs(mine[at] - recorded) <= off[at])[known].all()
