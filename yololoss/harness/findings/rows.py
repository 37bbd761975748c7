"""What test reports and a session of pytest carry of laws. Light, since every pytest run of an environment loads it."""

from collections.abc import Sequence
from typing import Any

import pytest

PROPERTY, FINDING = "yololoss law", "yololoss finding"  # of a test report: a row of the table of laws, a finding; JSON
ABSENT: "pytest.StashKey[list[str]]" = pytest.StashKey()  # of a session: devices that are not there, and why
NOTHING = "nothing was judged: none of these laws applies to this loss and these cases"


def nothing_judged(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether no law of a run had anything to judge."""
    return bool(rows) and all(row["word"] == "not applicable" for row in rows)
