"""Vectors: cases with the outcome they must have. Golden values and saved failures share one format."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from yololoss.harness.case import Case, Data, Index, Number
from yololoss.harness.errors import UsageError
from yololoss.harness.files import read_file, write_whole


class BuiltLayer(Data):
    """The rows of one layer, in order: indices, classes, and boxes in cells relative to their cell."""

    image: tuple[int, ...]
    anchor: tuple[int, ...]
    gj: tuple[int, ...]
    gi: tuple[int, ...]
    cls: tuple[int, ...]
    box: tuple[tuple[Number, Number, Number, Number], ...]


class CallResult(Data):
    """What one call returned: terms times gain, not times batch, if any; balances after it, if they are shown."""

    total: Number
    box: Number | None = None
    obj: Number | None = None
    cls: Number | None = None
    total_shape: tuple[int, ...] = (1,)
    items_shape: tuple[int, ...] = (3,)
    total_dtype: str = "float32"
    items_dtype: str = "float32"
    balance_after: tuple[float, ...] | None = None


class LayerGradient(Data):
    """The gradient of the last call's total in one layer.

    cells: (image, anchor, row, column) with a gradient outside the objectness channel; values: all 5 + C
    of those cells; the sums run over the objectness channel of the whole layer, in float64.
    """

    cells: tuple[tuple[int, int, int, int], ...]
    values: tuple[tuple[Number, ...], ...]
    obj_sum: Number
    obj_abs_sum: Number


class RowSteps(Data):
    """How some consecutive rows came to their cells."""

    first: Index
    grid_xy: tuple[tuple[float, float], ...]
    offset: tuple[tuple[float, float], ...]
    shifted_xy: tuple[tuple[float, float], ...]
    cell_ij: tuple[tuple[int, int], ...]  # column, row


class AssignmentSteps(Data):
    """The steps of one layer's assignment, printed to some decimals."""

    layer: Index
    decimals: Index
    targets_per_anchor_shape: tuple[int, ...]
    anchor_index: tuple[tuple[int, ...], ...]
    gain: tuple[float, ...]
    scaled_targets: tuple[tuple[float, ...], ...]  # image, class, x, y, w, h
    ratio_match: tuple[tuple[bool, ...], ...]
    matched_rows: tuple[tuple[float, ...], ...]  # image, class, x, y, w, h, anchor
    cell_choice: tuple[tuple[bool, ...], ...]  # own, left, above, right, below
    rows: RowSteps
    built_rows: int
    xy_range: tuple[float, float]
    class_targets: tuple[float, float]  # positive, negative


class Expected(Data):
    """What a subject must do with a case; what is not recorded is left out."""

    built: tuple[BuiltLayer, ...] | None = None
    calls: tuple[CallResult, ...] | None = None
    gradients: tuple[LayerGradient, ...] | None = None
    steps: AssignmentSteps | None = None
    raised: str | None = None  # stage and type of an exception


class Vector(Data):
    """A case with the outcome it must have, or (a saved failure) with the law it broke."""

    id: str
    flags: tuple[str, ...] = ()
    comment: str = ""
    law: str | None = None
    case: Case
    expected: Expected | None = None


class VectorFile(Data):
    """A file of vectors: golden values and saved failures alike."""

    format: Literal["yololoss-vectors"] = "yololoss-vectors"
    version: Literal[1] = 1
    source: dict[str, str]
    broken: tuple[str, ...] = ()  # laws that a recorded loss broke when it was recorded
    vectors: tuple[Vector, ...]


def read_vectors(path: Path) -> VectorFile:
    """Read a vector file. Raises BadFile."""
    return read_file(path, VectorFile)


def read_corpus(folder: Path) -> dict[str, Vector]:
    """Its cases by the name of what they are: the same case under the same law is one. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of case files")
    found: dict[str, Vector] = {}
    for path in sorted(folder.rglob("*.json")):
        for vector in read_vectors(path).vectors:
            found.setdefault(name_of(vector), vector)
    return found


def name_of(vector: Vector) -> str:
    """The name of what a vector is: law and case."""
    return case_name(vector.law or vector.id, vector.case)


def case_name(law: str, case: Case) -> str:
    """The name of a case that was found for a law: the same finding has the same file."""
    return f"{law}-{sha256(case.key.encode()).hexdigest()[:8]}"


def write_vectors(
    path: Path, source: dict[str, str], vectors: Iterable[Vector], broken: tuple[str, ...] | None = None
) -> None:
    """Write a vector file, a vector a line, floats in the shortest form that reads back the same bits."""
    head = VectorFile(source=source, broken=broken or (), vectors=())
    text = head.model_dump_json(exclude={"broken"} if broken is None else None)
    lines = ",\n".join(v.model_dump_json(exclude_none=True) for v in vectors)
    write_whole(path, f"{text.removesuffix(']}')}\n{lines}\n]}}\n")
