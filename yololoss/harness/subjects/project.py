"""Finds the settings of a project: the table ``[tool.yololoss]`` of pyproject.toml, or the file yololoss.toml."""

import sys
from pathlib import Path
from typing import Any

from yololoss.harness.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover  # pytest installs tomli on such a Python
    import tomli as tomllib


LARGEST = 2**20  # bytes; Python takes a second to read so many


def find_settings(folder: Path) -> tuple[Path, Any] | None:
    """The file of the nearest folder upwards that has settings, and their table. Raises UsageError."""
    for place in (folder, *folder.parents):
        for path, keys in ((place / "yololoss.toml", ()), (place / "pyproject.toml", ("tool", "yololoss"))):
            if path.is_file():
                found = _table(path, keys)
                if found is not None:
                    return path, found
    return None


def _table(path: Path, keys: tuple[str, ...]) -> Any:
    with path.open("rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise UsageError(f"{path}: more than {LARGEST} bytes")
    try:
        table: Any = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: tables or arrays are nested too deeply") from error
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table
