"""The report: an HTML page about a run, complete in one file."""

from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from yololoss.harness.errors import printable
from yololoss.harness.findings.about import About
from yololoss.harness.findings.summary import notes
from yololoss.harness.findings.verdict import Verdict, headline
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family

TEMPLATE = "report.html.j2"


def write_report(verdict: Verdict, about: About, path: Path) -> None:
    """Write the page. Pictures are embedded, and it loads nothing."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    template = environment.from_string(
        files("yololoss.harness.findings").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    pictures = {f.path: b64encode(Path(f.picture).read_bytes()).decode() for f in verdict.faults if f.picture}
    page = template.render(
        verdict=verdict,
        about=about,
        headline=headline(verdict),
        cases=sum(row["tried"] for row in verdict.laws),
        statements={id: law.statement for id, law in find_laws(find_family(about.family)).items()},
        pictures={f.path: pictures.get(f.path) for f in verdict.faults},
        notes=notes,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _printable(value: object) -> object:
    return printable(value, keep="\n") if type(value) is str else value  # what is marked as HTML is text no more
