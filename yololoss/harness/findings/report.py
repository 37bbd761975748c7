"""The report: an HTML page about a run, complete in one file."""

from base64 import b64encode
from pathlib import Path

from yololoss.harness.findings.about import About
from yololoss.harness.findings.page import write_page
from yololoss.harness.findings.summary import notes
from yololoss.harness.findings.verdict import Verdict, headline
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family

TEMPLATE = "report.html.j2"


def write_report(verdict: Verdict, about: About, path: Path) -> None:
    """Write the page. Pictures are embedded, and it loads nothing."""
    pictures = {f.path: b64encode(Path(f.picture).read_bytes()).decode() for f in verdict.faults if f.picture}
    write_page(
        path,
        TEMPLATE,
        verdict=verdict,
        about=about,
        headline=headline(verdict),
        cases=sum(row["tried"] for row in verdict.laws),
        statements={id: law.statement for id, law in find_laws(find_family(about.family)).items()},
        pictures={f.path: pictures.get(f.path) for f in verdict.faults},
        notes=notes,
    )
