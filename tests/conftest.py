"""What every test finds as it was."""

import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    """Commands, sessions and proofs set the number of torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
