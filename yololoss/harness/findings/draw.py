"""Saves the picture of a case that its family draws."""

from pathlib import Path

from yololoss.harness.cases.case import Case
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.outcome import Outcome

SUFFIXES = (".png", ".svg", ".pdf")


def draw(case: Case, path: Path, title: str, outcome: Outcome | None = None) -> None:
    """Draw a case, and what an outcome has otherwise than the reference; the suffix of ``path`` gives the format."""
    import matplotlib as mpl  # noqa: PLC0415  # heavy

    # the same file every time, and text that can be searched
    with mpl.rc_context({"svg.hashsalt": "yololoss", "svg.fonttype": "none", "hatch.linewidth": 0.5}):
        figure = find_family(case.family).draw(case, title, outcome)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
