"""Seconds of each loss in each setting, by pytest-benchmark. `benchmarks.__main__` computes the ratios."""

import gc

import pytest
import torch

from benchmarks.settings import FLOOR, LOSSES, SETTINGS, USUAL, Setting, inputs, work

MEASURED = (
    *(("step", name) for name in (FLOOR, *LOSSES)),
    *(("forward", name) for name in LOSSES),
    *(("assignment", name) for name in ("loss", "plain")),
)


@pytest.fixture(autouse=True)
def two_threads():
    """The same number of threads on every machine, so that figures can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def setting(request):
    """A setting. Its inputs are deleted after its tests: some take gigabytes."""
    yield request.param
    inputs.cache_clear()
    gc.collect()


@pytest.mark.parametrize(
    "setting", [pytest.param(s, id=("usual, " if s == USUAL else "") + str(s)) for s in SETTINGS], indirect=True
)
@pytest.mark.parametrize(("what", "name"), MEASURED, ids=map(", ".join, MEASURED))
def test_speed(benchmark, setting: Setting, what: str, name: str):
    """Seconds of one call."""
    benchmark.extra_info.update(what=what, name=name, setting=str(setting))
    benchmark(work(what, name, setting))
