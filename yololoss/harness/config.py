"""The settings of a project: ``[tool.yololoss]`` in pyproject.toml, or yololoss.toml."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from yololoss.harness.errors import UsageError, closest
from yololoss.harness.subjects.dialect import text_of_table
from yololoss.harness.subjects.project import find_settings

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
    _file: Path | None = None

    @property
    def file(self) -> Path | None:
        """The file that they are in; None without settings."""
        return self._file


class Settings(BaseModel):
    """What a run judges: the loss, its device, its dialect, its baseline, and the cases that come first."""

    model_config = ConfigDict(frozen=True)

    loss: str
    device: str
    dialect: str | None  # None: the default of the family that the loss belongs to
    baseline: str | None
    corpus: str | None = None
    _sources: dict[str, Path] = PrivateAttr(default_factory=dict)  # by name: the file that a value comes from

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the file of the settings in a UsageError about a value that comes from it, not an option."""
        try:
            yield
        except UsageError as error:
            option, _, rest = str(error).partition(" ")
            name = option.removeprefix("--")
            if name == option or name not in self._sources:
                raise
            raise UsageError(f"{self._sources[name]}: {name} {rest}") from error


def settle(project: Config, **given: str | None) -> Settings:
    """The values given, else those of the project, else the defaults. ``given`` has the field names of Settings."""
    known = {name: given.get(name) or getattr(project, name) for name in Settings.model_fields}
    usual = {"loss": BUNDLED, "device": "cpu"}
    chosen = Settings(**{name: value or usual.get(name) for name, value in known.items()})
    if project.file is not None:
        chosen._sources.update({name: project.file for name in known if known[name] and not given.get(name)})
    return chosen


def read_config(folder: Path) -> Config:
    """The settings of the nearest folder upwards that has any, else empty settings. Raises UsageError.

    Their paths begin at their own folder, and are changed to begin at ``folder``.
    """
    found = find_settings(folder)
    if found is None:
        return Config()
    path, table = found
    config = _validated(path, table)
    if path.parent != folder:
        paths = {name: getattr(config, name) for name in ("loss", "baseline", "corpus")}
        # a loss may be a module's name, which is no path
        moved = {
            n: os.path.relpath(path.parent / p, folder) for n, p in paths.items() if p and (n != "loss" or ".py:" in p)
        }
        config = config.model_copy(update=moved)
    config._file = path
    return config


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
