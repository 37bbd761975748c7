"""The files that ``--vectors`` names: of which family each is."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import BaseModel

from yololoss.harness.cases.files import parse, read_bytes
from yololoss.harness.errors import UsageError

# Formats that are of one family; all others say in the file which family they are of.
FORMATS = {"yololoss-tal-vectors": "tal"}


class _Head(BaseModel):
    format: str = ""
    family: str = "v5"


def family_of(path: Path) -> str:
    """The family of a file of vectors. Raises UsageError."""
    head = parse(read_bytes(path), _Head, str(path))
    return FORMATS.get(head.format, head.family)


def files_of(family: str, given: Iterable[str]) -> list[Path]:
    """Those of the given files that are of a family."""
    try:
        return [path for path in map(Path, given) if family_of(path) == family]
    except UsageError as error:
        raise pytest.UsageError(f"--vectors: {error}") from error
