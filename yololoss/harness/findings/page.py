"""HTML pages, each complete in one file: templates of this folder in one style, with every text escaped."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from yololoss.harness.errors import printable


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write the page that a template makes of these values. It loads nothing."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    page = environment.from_string(_text(template)).render(style=_text("style.css"), **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _text(name: str) -> str:
    return files("yololoss.harness.findings").joinpath(name).read_text(encoding="utf-8")


def _printable(value: object) -> object:
    return printable(value, keep="\n") if type(value) is str else value  # what is marked as HTML is text no more
