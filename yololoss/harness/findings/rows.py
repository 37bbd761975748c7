"""What pytest's reports and session store about laws. Light, since the plugin loads it."""

from collections.abc import Sequence
from typing import Any

from yololoss.harness.errors import printable

PROPERTY = "yololoss law"  # user property of a test report: the row of its law, as JSON
NOTHING = "nothing was judged: none of these laws applies to this loss and these cases"


def nothing_judged(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether no law of a run had anything to judge."""
    return bool(rows) and all(row["word"] == "not applicable" for row in rows)


def reason(row: dict[str, Any]) -> str:
    """Why a law was waived, explained or skipped, in a few words."""
    why = printable(str(row["why"] or row["word"]))
    return f"explained by {why}" if row["word"] == "explained" else why
