"""The table of laws at the end of a run."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from yololoss.harness.findings.rows import reason


def table(rows: Sequence[dict[str, Any]], width: int, *, quiet: bool) -> str:
    """One line for each law: outcome, cases tried, notes, and why it did not apply.

    ``quiet`` leaves out laws that held or that a fault explains, and why a law did not apply to some cases; of laws
    that were not tried, it only says how many, by reason. A row has the law's id and tally, the word for its outcome,
    and why it was waived or skipped.
    """
    grid = Table("law", "outcome", "cases", "notes", title="laws", title_justify="left", box=None)
    grid.columns[0].no_wrap = True  # so that an id can be searched for
    grid.columns[2].justify = "right"
    untried: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: str(row["id"])):
        if quiet and row["word"] == "not applicable" and not row["tried"]:
            untried[row["why"]] += 1
        elif not quiet or row["word"] not in ("held", "explained"):
            grid.add_row(row["id"], row["word"], str(row["tried"]), "; ".join(notes(row, quiet=quiet)))
    held = sum(row["word"] == "held" for row in rows)
    tried = sum(row["tried"] for row in rows)
    text = io.StringIO()
    if grid.row_count:
        Console(file=text, width=max(width, 80), no_color=True).print(grid)
    for why, count in untried.most_common():
        text.write(f"not applicable: {count} {'law' if count == 1 else 'laws'}, {why}\n")
    explained = sum(row["word"] == "explained" for row in rows)
    others = f", {explained} more broke for the same reason" if explained else ""
    idle = sum(row["word"] == "not applicable" for row in rows)
    others += f", {idle} {'does' if idle == 1 else 'do'} not apply" if idle else ""
    return f"{text.getvalue()}laws: {held} of {len(rows)} held{others}, {tried} cases"


def notes(row: dict[str, Any], *, quiet: bool = False) -> list[str]:
    """Why a law was waived or skipped, its notes, and why it did not apply to some cases; the latter not if quiet."""
    reasons = [f"not applicable: {text}" for text in _counted(row["not_applicable"]) if not quiet]
    return [*([reason(row)] if row["why"] else []), *_counted(row["notes"]), *reasons]


def _counted(texts: dict[str, int]) -> list[str]:
    return [f"{count} x {text}" for text, count in sorted(texts.items(), key=lambda item: -item[1])]
