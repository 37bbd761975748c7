"""Reads recorded values of the task-aligned loss (README.md): cases of the family, and what is expected of them."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from torch import Tensor

from yololoss import Assigner, E2EDetectLoss, E2ELoss, Gains, TaskAlignedLoss
from yololoss.harness.cases.case import Count, Data, Dtype, Finite, Index, Number
from yololoss.harness.cases.files import read_file
from yololoss.harness.subjects.family import find_family

FILE = Path(__file__).parent / "upstream-8.4.190.json"
TAL = find_family("tal")  # whatever its package is called: in a wheel it is inside ours
cases, forms = TAL.module("case"), TAL.module("forms")
SIDES = cases.SIDES
# The losses of two heads, and what the family calls their choice.
TWO_HEADS = {"E2ELoss": "YOLO26", "E2EDetectLoss": "YOLOv10"}
Whole = tuple[int, ...]
Numbers = tuple[Number, ...]


class Seeded(Data):
    """Logits by a formula, and single ones that are set: level, index, value."""

    kind: Literal["seed"]
    seed: int
    box_scale: Finite
    box_offset: Finite = 0.0
    cls_scale: Finite
    cls_offset: Finite
    peak: tuple[tuple[Finite, Finite, Finite, Finite], ...] | None = None
    sharp: Finite = 0.0
    overrides: tuple[tuple[Index, Index, Number], ...] = ()

    @property
    def logits(self) -> Any:
        """As a case has them."""
        names = ("seed", "box_scale", "box_offset", "cls_scale", "cls_offset", "peak", "sharp")
        overrides = tuple(cases.Override(level=i, at=k, value=value) for i, k, value in self.overrides)
        return cases.SeededLogits(**{name: getattr(self, name) for name in names}, overrides=overrides)


class Given(Data):
    """Every logit of each level."""

    kind: Literal["values"]
    layers: tuple[Numbers, ...]

    @property
    def logits(self) -> Any:
        """As a case has them."""
        return cases.GivenLogits(layers=self.layers)


class EndToEnd(Data):
    """The class of a loss with two heads, and how often ``update`` was called before."""

    name: Literal["E2ELoss", "E2EDetectLoss"] = Field(alias="class")
    updates: Index = 0


class Recorded(Data):
    """Everything that a call needs."""

    batch: Count
    classes: Count
    reg_max: Count
    grids: tuple[tuple[Count, Count], ...]
    strides: tuple[Finite, ...]
    targets: tuple[tuple[Number, Number, Number, Number, Number, Number], ...]
    dtype: Dtype = "float32"
    topk: Count | None = None
    topk2: Count | None = None
    gains: cases.Gains = cases.Gains()
    class_weights: tuple[Finite, ...] | None = None
    epochs: Count = 100
    e2e: EndToEnd | None = None
    predictions: tuple[Annotated[Seeded | Given, Field(discriminator="kind")], ...]

    @cached_property
    def heads(self) -> tuple[Any, ...]:
        """The family's case of each head, the one-to-many head first."""
        return tuple(map(self._head, self.predictions, self._names))

    @property
    def _names(self) -> tuple[str, ...]:
        return ("",) if self.e2e is None else forms.HEADS

    def _head(self, given: Seeded | Given, name: str) -> Any:
        same = ("batch", "classes", "reg_max", "grids", "strides", "targets", "dtype", "topk", "topk2", "class_weights")
        updates = self.e2e.updates if self.e2e else 0
        return cases.Case(
            **{field: getattr(self, field) for field in same},
            gains=self.gains,
            head=cases.Head(name=name, updates=updates, epochs=self.epochs) if name else None,
            predictions=given.logits,
        )


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
    case: Recorded
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


def loss_of(case: Recorded, **kwargs: Any) -> Any:
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
