"""Residual risk: the estimate, its limit, and the session that ends by it."""

import json

import pytest

from tests.residual import alone, truth
from tests.test_cli import run
from yololoss.harness.engine.residual import ENOUGH, poisson_limit, residual


@pytest.mark.parametrize(("count", "tail", "rate"), [(0, 0.05, 2.9957), (1, 0.05, 4.7439), (10, 0.025, 18.3904)])
def test_limits_are_those_of_statistical_tables(count, tail, rate):
    """Garwood's exact limits of a Poisson rate."""
    assert poisson_limit(count, tail) == pytest.approx(rate, abs=1e-4)


def test_the_estimate_is_the_share_of_cases_that_alone_showed_something():
    """Two kinds in one case count once; too few cases have no estimate; a probability is at most 1."""
    assert alone([[1, 2], [3], [3], [], [4, 3]]) == 2
    risk = residual(2, 400)
    assert risk is not None
    assert (risk.estimate, risk.at_most) == (0.005, pytest.approx(6.2958 / 400, abs=1e-5))
    assert residual(0, ENOUGH - 1) is None
    certain = residual(ENOUGH, ENOUGH)
    assert certain is not None
    assert certain.at_most == 1
    assert truth([[1]], [[1], [2], [], [1, 3]]) == 0.5


@pytest.mark.slow
def test_a_session_ends_when_its_risk_is_as_low_as_asked(tmp_path):
    """Without another limit. The risk is in the summary, and is told."""
    status, output, errors = run("fuzz", "--until-risk", 0.02, "--workers", 2, "--out", "s", cwd=tmp_path)
    assert status == 0, errors
    risk = json.loads((tmp_path / "s" / "summary.json").read_text(encoding="utf-8"))["risk"]
    assert (risk["estimate"], risk["at_most"] <= 0.02) == (0, True)
    assert "new kind of finding: about 0, at most 0.0" in output
