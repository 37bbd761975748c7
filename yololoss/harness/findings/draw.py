"""Saves the picture of a case. The case's family draws it."""

from pathlib import Path
from typing import Any

from yololoss.harness.cases.case import Case
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.outcome import Outcome

SUFFIXES = (".png", ".svg", ".pdf")


def draw(case: Case, path: Path, title: str, outcome: Outcome | None = None, dialect: Any = None) -> None:
    """Draw a case, and mark where an outcome differs from the reference in a dialect: the family's usual one if None.

    The suffix of ``path`` is the format.
    """
    import matplotlib as mpl  # noqa: PLC0415  # heavy

    # the same file every time, and text that can be searched
    with mpl.rc_context({"svg.hashsalt": "yololoss", "svg.fonttype": "none", "hatch.linewidth": 0.5}):
        family = find_family(case.family)
        figure = family.draw(case, title, outcome, dialect or family.dialects[family.usual_dialect])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
