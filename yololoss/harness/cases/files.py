"""The harness's own files: data that is checked when it is read. A file is written completely or not at all."""

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from yololoss.harness.errors import BadFile

LARGEST = 64 * 2**20  # bytes of a file
Kind = TypeVar("Kind", bound=BaseModel)


def read_file(path: Path, kind: type[Kind]) -> Kind:
    """Read a file of this kind, as data: nothing in it is run or imported. Raises BadFile with one line."""
    try:
        if path.stat().st_size > LARGEST:
            raise BadFile(f"{path}: {path.stat().st_size} bytes, expected {LARGEST} at most")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "top level"
        more = f" ({error.error_count() - 1} more errors)" if error.error_count() > 1 else ""
        raise BadFile(f"{path}: {place}: {first['msg']}{more}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file completely or not at all, even if the process is killed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:  # the error of a full disk has no file name
        error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
