"""Fixtures that restore global state after every test."""

import sys
from pathlib import Path

import hypothesis
import pytest
import torch

# A busy machine may need long for any example.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
collect_ignore = ["toy"]  # laws of another family than the loss that a run is about


@pytest.fixture(autouse=True)
def threads():
    """Restore torch's number of threads, which commands, sessions and proofs set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def modules(request):
    """Forget modules that a test has written: another test may write one of the same name."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder:
        for name, module in list(sys.modules.items()):
            if folder in Path(vars(module).get("__file__") or "").parents:
                del sys.modules[name]


@pytest.fixture
def shapes_are_checked(pytestconfig):
    """Whether this run checks the shapes in the loss's signatures in every call."""
    return bool(pytestconfig.getoption("jaxtyping_packages", None))
