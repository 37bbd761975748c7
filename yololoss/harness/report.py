"""The report: a page that says what a run found, complete in one file."""

from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from yololoss import _suite
from yololoss.harness.about import About
from yololoss.harness.run import Verdict
from yololoss.harness.summary import notes

TEMPLATE = "report.html.j2"


def headline(verdict: Verdict) -> str:
    """The verdict, in a few words."""
    broken = len({f.law for f in verdict.findings})
    if verdict.problem:
        return "The loss could not be judged"
    if broken:
        return f"{broken} {'law' if broken == 1 else 'laws'} broke"
    if verdict.failures:
        return "The run failed"
    held = sum(row["word"] == "held" for row in verdict.laws)
    other = len(verdict.laws) - held
    return f"{held} laws hold" + (f", {other} were waived or did not apply" if other else "")


def write_report(verdict: Verdict, about: About, path: Path) -> None:
    """Write the page. Pictures are in it; it loads nothing."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("yololoss.harness").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    pictures = {f.path: b64encode(Path(f.picture).read_bytes()).decode() for f in verdict.findings if f.picture}
    page = template.render(
        verdict=verdict,
        about=about,
        headline=headline(verdict),
        cases=sum(row["tried"] for row in verdict.laws),
        statements={id: law.statement for id, law in _suite.laws().items()},
        pictures={f.path: pictures.get(f.path) for f in verdict.findings},
        notes=notes,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
