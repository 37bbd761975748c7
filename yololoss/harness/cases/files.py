"""The harness's own files: data that is checked when it is read. A file is written completely or not at all."""

import json
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from yololoss.harness.errors import BadFile, short

LARGEST = 8 * 2**20  # bytes of a file: reading takes up to 60 times that in memory, and seconds
KEYS = 2**16  # of one object: each that is unknown is an error, which takes 2 kB
Kind = TypeVar("Kind", bound=BaseModel)


def read_bytes(path: Path) -> bytes:
    """The content of a plain file of no more than `LARGEST` bytes. Raises BadFile with one line."""
    try:
        found = path.stat()
        # a named pipe has no end until somebody writes, and a device may have none at all
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise BadFile(f"{path}: cannot be read: not a plain file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1) if found.st_size <= LARGEST else b""
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # no system has such a name: one with a NUL
        raise BadFile(f"{path}: cannot be read: {error}") from error
    if max(found.st_size, len(data)) > LARGEST:  # a file of the kernel has no size before it is read
        raise BadFile(f"{path}: {max(found.st_size, len(data))} bytes, expected {LARGEST} at most")
    return data


def read_file(path: Path, kind: type[Kind]) -> Kind:
    """Read a file of this kind, as data: nothing in it is run or imported. Raises BadFile with one line."""
    return parse(read_bytes(path), kind, str(path))


def parse(data: bytes, kind: type[Kind], name: str) -> Kind:
    """Read the content of a file of that name. Raises BadFile with one line."""
    try:
        json.loads(data, object_pairs_hook=_each_once)
    except BadFile as error:
        raise BadFile(f"{name}: {error}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{name}: is no text; a file of cases is JSON") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{name}: top level: Invalid JSON: {short(str(error), 200)}") from error
    return validated(data, kind, name)


def validated(data: bytes, kind: type[Kind], name: str) -> Kind:
    """What is in the content of a file, each key of which is there once. Raises BadFile with one line."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = short(".".join(map(str, first["loc"])), 100) or "top level"
        more = f" ({error.error_count() - 1} more errors)" if error.error_count() > 1 else ""
        raise BadFile(f"{name}: {place}: {short(first['msg'], 200)}{more}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    """Raise BadFile if two values have the same key: readers of JSON do not agree on which one counts."""
    if len(pairs) > KEYS:
        raise BadFile(f"{len(pairs)} keys in one object, expected {KEYS} at most")
    known: set[str] = set()
    for key, _ in pairs:
        if key in known:
            raise BadFile(f"the key {short(key, 100)!r} is there twice")
        known.add(key)


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file completely or not at all, even if the process is killed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(text if isinstance(text, bytes) else text.encode())
        part.replace(path)
    except OSError as error:  # the error of a full disk has no file name
        error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
