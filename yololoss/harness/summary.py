"""The table of laws at the end of a run."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = tuple[str, dict[str, Any], str]  # outcome, what the law's tally says, why it was waived


def table(rows: Sequence[Row], width: int, *, quiet: bool) -> str:
    """A line a law: outcome, cases tried, what it noted and why it did not apply; quiet: only what did not hold."""
    grid = Table("law", "outcome", "cases", "notes", title="laws", title_justify="left", box=None)
    grid.columns[2].justify = "right"
    shown = 0
    for word, law, waived in sorted(rows, key=lambda row: row[1]["id"]):
        reasons = law["not_applicable"]
        outcome = "not applicable" if word == "held" and _vacuous(law) else word
        if quiet and outcome == "held":
            continue
        notes = [*_counted(law["notes"]), *(f"not applicable: {text}" for text in _counted(reasons))]
        grid.add_row(law["id"], outcome, str(law["tried"]), "; ".join([waived, *notes] if waived else notes))
        shown += 1
    held = sum(word == "held" and not _vacuous(law) for word, law, _ in rows)
    tried = sum(law["tried"] for _, law, _ in rows)
    text = io.StringIO()
    if shown:
        Console(file=text, width=max(width, 80), no_color=True).print(grid)
    return f"{text.getvalue()}laws: {held} of {len(rows)} held, {tried} cases"


def _counted(texts: dict[str, int]) -> list[str]:
    return [f"{count} x {text}" for text, count in sorted(texts.items(), key=lambda item: -item[1])]


def _vacuous(law: dict[str, Any]) -> bool:
    """Whether there was nothing to judge or to note in any case."""
    return law["judged"] == 0 and not law["notes"]
