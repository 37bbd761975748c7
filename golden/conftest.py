"""What the golden tests share."""

from collections.abc import Callable

import pytest


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Adds to the number of recorded numbers that were compared; the terminal summary prints the sum."""
    return lambda numbers: record_property("numbers compared", numbers)
