"""What every test finds as it was, and how it is run."""

import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    """Commands, sessions and proofs set the number of torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def modules(request):
    """Two tests may write losses of one name: a process keeps the first module of it."""
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
