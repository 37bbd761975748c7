"""The settings of a project: ``[tool.yololoss]`` in pyproject.toml, or yololoss.toml."""

import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from yololoss.harness.errors import UsageError, closest
from yololoss.harness.subjects.dialect import text_of_table

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover  # pytest installs tomli on such a Python
    import tomli as tomllib

BUNDLED = "yololoss:ComputeLoss"


class Waiver(BaseModel):
    """A law that a loss is known to break. It still runs, but its breaking is no failure."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    law: str
    reason: str = Field(min_length=1)
    link: str | None = None
    expires: date | None = None


class Config(BaseModel):
    """The settings of one project."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    loss: str | None = None
    device: str | None = None
    dialect: Annotated[str | None, BeforeValidator(text_of_table)] = None
    baseline: str | None = None
    corpus: str | None = None
    waivers: list[Waiver] = []


class Settings(BaseModel):
    """What a run judges: the loss, its device, its dialect, and its baseline."""

    model_config = ConfigDict(frozen=True)

    loss: str
    device: str
    dialect: str | None  # None: the default of the family that the loss belongs to
    baseline: str | None


def settle(project: Config, **given: str | None) -> Settings:
    """The values given, else those of the project, else the defaults. ``given`` has the field names of Settings."""
    known = {name: given.get(name) or getattr(project, name) for name in Settings.model_fields}
    loss = known["loss"] or BUNDLED
    usual = {"loss": loss, "device": "cpu"}
    return Settings(**{name: value or usual.get(name) for name, value in known.items()})


def read_config(folder: Path) -> Config:
    """The settings of the nearest folder upwards that has any, else empty settings. Raises UsageError."""
    for place in (folder, *folder.parents):
        for path, keys in ((place / "yololoss.toml", ()), (place / "pyproject.toml", ("tool", "yololoss"))):
            if path.is_file():
                found = _table(path, keys)
                if found is not None:
                    return _validated(path, found)
    return Config()


def _table(path: Path, keys: tuple[str, ...]) -> Any:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: tables or arrays are nested too deeply") from error
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _validated(path: Path, table: Any) -> Config:
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        if isinstance(table, dict) and "family" in table:
            raise UsageError(
                f'{path}: "family" is now called "dialect": write dialect = "{table["family"]}"'
            ) from error
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = closest(str(first["loc"][-1]), (*Config.model_fields, *Waiver.model_fields)) if where else ""
        raise UsageError(f"{path}: {where or 'table'}: {first['msg']}{hint}") from error


def check_waivers(config: Config, laws: Iterable[str], today: date) -> None:
    """Raise UsageError for a waiver that has expired, or that names an unknown law."""
    known = list(laws)
    for waiver in config.waivers:
        if waiver.law not in known:
            raise UsageError(f"waiver of {waiver.law}: there is no such law{closest(waiver.law, known)}")
        if waiver.expires is not None and waiver.expires < today:
            raise UsageError(f"waiver of {waiver.law}: expired on {waiver.expires} ({waiver.reason})")
