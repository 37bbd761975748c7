"""Vectors: cases with the outcome that they must have. Golden values and saved failures share one format.

A family defines the types of its cases and outcomes; see `register`.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field
from typing_extensions import override

from yololoss import _suite
from yololoss.harness.cases.case import Case, Data
from yololoss.harness.cases.files import parse, read_bytes, validated, write_whole
from yololoss.harness.errors import BadFile, UsageError, closest

C = TypeVar("C", bound=Case)
E = TypeVar("E", bound=Data)
# Names become names of files, so they are no paths, and can be typed and printed.
Name = Annotated[str, Field(pattern=r"^[._-]*[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class _Named(Data):
    @classmethod
    @override
    def model_parametrized_name(cls, params: Any) -> str:
        return cls.__name__  # in the schema


class Vector(_Named, Generic[C, E]):
    """A case with the outcome that it must have, or (a saved failure) with the law that it broke."""

    id: Name
    flags: tuple[str, ...] = ()
    comment: str = ""
    law: Name | None = None
    case: C
    expected: E | None = None


class VectorFile(_Named, Generic[C, E]):
    """A file of vectors: golden values or saved failures."""

    format: Literal["yololoss-vectors"] = "yololoss-vectors"
    version: Literal[1] = 1
    family: Name = "v5"
    source: dict[str, str]
    broken: tuple[Name, ...] = ()  # laws that a recorded loss broke when it was recorded
    vectors: tuple[Vector[C, E], ...]

    @property
    def recorded(self) -> dict[C, E]:
        """What a loss did, by case, in the order of the file."""
        return {vector.case: vector.expected for vector in self.vectors if vector.expected is not None}


class Kind(NamedTuple):
    """The types of a family's vectors and files."""

    vector: type[Vector[Any, Any]]
    file: type[VectorFile[Any, Any]]


class _Head(BaseModel):
    family: Name = "v5"


_KINDS: dict[str, Kind] = {}


def register(case: type[Case], expected: type[Data]) -> None:
    """Register the types of the vectors of the case's family."""
    _KINDS[case.family] = Kind(Vector[case, expected], VectorFile[case, expected])  # type: ignore[valid-type]


def kind(family: str) -> Kind:
    """The types of a family's vectors and files. Raises UsageError for an unknown family.

    A file is data: it cannot make the harness import a family. Known are the package's families and that of the loss.
    """
    if family not in _KINDS:
        _suite.load_families()
    if family not in _KINDS:
        known = f"known: {', '.join(_KINDS)}"
        raise UsageError(f"unknown family {family!r}{closest(family, _KINDS)} ({known}, and that of --loss)")
    return _KINDS[family]


def make_vector(case: Case, **fields: Any) -> Vector[Any, Any]:
    """A vector of the case, of its family's type."""
    return kind(case.family).vector(case=case, **fields)


def read_vectors(path: Path) -> VectorFile[Any, Any]:
    """Read a vector file. Raises BadFile."""
    data, name = read_bytes(path), str(path)
    family = parse(data, _Head, name).family
    try:
        return validated(data, kind(family).file, name)
    except BadFile:
        raise
    except UsageError as error:
        raise BadFile(f"{path}: {error}") from error


def read_corpus(folder: Path) -> dict[str, Vector[Any, Any]]:
    """The cases of a folder by `name_of`. The same case under the same law appears once. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of case files")
    found: dict[str, Vector[Any, Any]] = {}
    for path in sorted(folder.rglob("*.json")):
        for vector in read_vectors(path).vectors:
            found.setdefault(name_of(vector), vector)
    return found


def name_of(vector: Vector[Any, Any]) -> str:
    """A name made from the vector's law, else its id, and its case."""
    return case_name(vector.law or vector.id, vector.case)


def case_name(law: str, case: Case) -> str:
    """The name of a case that was found for a law. The same finding always has the same name."""
    return f"{law[:91]}-{sha256(case.key.encode()).hexdigest()[:8]}"


def as_name(text: str) -> str:
    """The text as a name: with other characters replaced, and its end alone if it is too long."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[-100:]


def write_vectors(
    path: Path, source: dict[str, str], vectors: Iterable[Vector[Any, Any]], broken: tuple[str, ...] | None = None
) -> None:
    """Write a vector file, one vector per line, floats in the shortest form that reads back the same bits."""
    written = list(vectors)
    family = next((vector.case.family for vector in written), "v5")
    head = kind(family).file(family=family, source=source, broken=broken or (), vectors=())
    text = head.model_dump_json(exclude={"broken"} if broken is None else None)
    lines = ",\n".join(v.model_dump_json(exclude_none=True) for v in written)
    write_whole(path, f"{text.removesuffix(']}')}\n{lines}\n]}}\n")
