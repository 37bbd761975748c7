"""Reads recorded values of the task-aligned loss (README.md): cases of the family, and what is expected of them."""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict
from torch import Tensor

from yololoss import Assigner, E2EDetectLoss, E2ELoss, Gains, TaskAlignedLoss
from yololoss.harness.cases.case import Data, Number
from yololoss.harness.cases.files import read_file
from yololoss.harness.subjects.family import find_family

TAL = find_family("tal")  # whatever its package is called: in a wheel it is inside ours
cases, forms, golden = TAL.module("case"), TAL.module("forms"), TAL.module("golden")
FILE, Recorded = golden.FILE, golden.Recorded
SIDES = cases.SIDES
# The losses of two heads, and what the family calls their choice.
TWO_HEADS = {"E2ELoss": "YOLO26", "E2EDetectLoss": "YOLOv10"}
Whole = tuple[int, ...]
Numbers = tuple[Number, ...]


class Foreground(Data):
    """The anchors that have a target, in parallel: its number among those of its image, its class, the score."""

    image: Whole
    anchor: Whole
    target: Whole
    label: Whole
    score: Numbers


class Gradients(Data):
    """Of the sum of the total: of some anchors' boxes and scores, and sums over the scores of each level."""

    box_cells: tuple[tuple[int, int], ...]
    box: tuple[Numbers, ...]
    score: tuple[Numbers, ...]
    score_sums: tuple[tuple[Number, Number], ...]


class HeadResult(Data):
    """What was recorded of one head."""

    score_sum: Number
    foreground: Foreground
    boxes: tuple[tuple[Number, Number, Number, Number], ...]
    gradients: Gradients


class Expected(Data):
    """What was recorded of a call."""

    total: tuple[Number, Number, Number]
    items: tuple[Number, Number, Number]
    heads: tuple[HeadResult, ...]


class Vector(Data):
    """A case and what is expected of it. What else is recorded says how near the case is to a tie."""

    model_config = ConfigDict(extra="ignore")

    id: str
    flags: tuple[str, ...] = ()
    case: Recorded  # type: ignore[valid-type]  # a class, whatever its package is called
    expected: Expected


class VectorFile(Data):
    """A file of vectors."""

    format: Literal["yololoss-tal-vectors"]
    version: Literal[1]
    source: dict[str, str]
    vectors: tuple[Vector, ...]


@lru_cache
def vectors() -> tuple[Vector, ...]:
    """All recorded vectors, in the order of the file."""
    return read_file(FILE, VectorFile).vectors


def numbers(values: Any) -> np.ndarray:
    """Recorded numbers as float64."""
    return np.array(values, dtype=np.float64)


def levels(case: Any) -> list[Tensor]:
    """A head's predictions as a tensor a level, which require a gradient."""
    return [level.clone().requires_grad_() for level in case.logits]


def loss_of(case: Any, **kwargs: Any) -> Any:
    """The loss that a case is about."""
    parts = case.strides, case.classes, case.reg_max
    kwargs |= {"gains": Gains(**dict(case.gains)), "class_weights": case.class_weights}
    if case.e2e is None:
        return TaskAlignedLoss.from_parts(*parts, assigner=Assigner(case.topk or 10, case.topk2), **kwargs)
    if case.e2e.name == "E2EDetectLoss":
        return E2EDetectLoss.from_parts(*parts, **kwargs)
    loss = E2ELoss.from_parts(*parts, epochs=case.epochs, **kwargs)
    for _ in range(case.e2e.updates):
        loss.update()
    return loss
