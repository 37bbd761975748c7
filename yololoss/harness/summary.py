"""The table of laws at the end of a run."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = tuple[str, dict[str, Any], str]  # outcome, what the law's tally says, why it was waived


def table(rows: Sequence[Row], width: int, *, quiet: bool) -> str:
    """A line a law: outcome, cases tried, and why it did not apply where it did not; quiet: only what did not hold."""
    grid = Table("law", "outcome", "cases", "did not apply", title="laws", title_justify="left", box=None)
    grid.columns[2].justify = "right"
    shown = 0
    for word, law, waived in sorted(rows, key=lambda row: row[1]["id"]):
        reasons = law["not applicable"]
        outcome = "not applicable" if word == "held" and _vacuous(law) else word
        if quiet and outcome == "held":
            continue
        why = [f"{count} x {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
        grid.add_row(law["id"], outcome, str(law["tried"]), "; ".join([waived, *why] if waived else why))
        shown += 1
    held = sum(word == "held" and not _vacuous(law) for word, law, _ in rows)
    tried = sum(law["tried"] for _, law, _ in rows)
    text = io.StringIO()
    if shown:
        Console(file=text, width=max(width, 80), no_color=True).print(grid)
    return f"{text.getvalue()}laws: {held} of {len(rows)} held, {tried} cases"


def _vacuous(law: dict[str, Any]) -> bool:
    """Whether the law applied to no case at all."""
    return bool(sum(law["not applicable"].values()) == law["tried"])
