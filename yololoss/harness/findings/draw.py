"""Saves the picture of a case. The case's family draws it."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.files import write_whole
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.outcome import Outcome

# Most numbers of the predictions of a case that is run to draw it: that takes 80 bytes for each, in this process.
LARGEST = 2**24
SUFFIXES = (".png", ".svg", ".pdf")


def draw(case: Case, path: Path, title: str, outcome: Outcome | None = None, dialect: Any = None) -> None:
    """Draw a case, and mark where an outcome differs from the reference in a dialect: the family's usual one if None.

    The suffix of ``path`` is the format.
    """
    import matplotlib as mpl  # noqa: PLC0415  # heavy, and needed only for a finding

    # the same file every time, and text that can be searched
    with mpl.rc_context({"svg.hashsalt": "yololoss", "svg.fonttype": "none", "hatch.linewidth": 0.5}):
        family = find_family(case.family)
        figure = family.draw(case, title, outcome, dialect or family.dialects[family.usual_dialect])
        with BytesIO() as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font lacks a character of the title
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(file, format=path.suffix[1:], dpi=110, metadata=metadata)
            write_whole(path, file.getvalue())
