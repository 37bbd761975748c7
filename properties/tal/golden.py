"""Reads the cases of recorded values of upstream (golden/tal/README.md), so that every baseline has them."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from yololoss.harness.cases.case import Count, Data, Dtype, Finite, Index, Number
from yololoss.harness.cases.files import read_file

from .case import Case, Gains, GivenLogits, Head, Override, SeededLogits
from .forms import HEADS

FILE = Path(__file__).parents[2] / "golden" / "tal" / "upstream-8.4.190.json"


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
        overrides = tuple(Override(level=i, at=k, value=value) for i, k, value in self.overrides)
        return SeededLogits(**{name: getattr(self, name) for name in names}, overrides=overrides)


class Given(Data):
    """Every logit of each level."""

    kind: Literal["values"]
    layers: tuple[tuple[Number, ...], ...]

    @property
    def logits(self) -> Any:
        """As a case has them."""
        return GivenLogits(layers=self.layers)


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
    gains: Gains = Gains()
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
        return ("",) if self.e2e is None else HEADS

    def _head(self, given: Seeded | Given, name: str) -> Any:
        same = ("batch", "classes", "reg_max", "grids", "strides", "targets", "dtype", "topk", "topk2", "class_weights")
        updates = self.e2e.updates if self.e2e else 0
        return Case(
            **{field: getattr(self, field) for field in same},
            gains=self.gains,
            head=Head.model_validate({"name": name, "updates": updates, "epochs": self.epochs}) if name else None,
            predictions=given.logits,
        )


class _Vector(Data):
    model_config = ConfigDict(extra="ignore")

    id: str
    case: Recorded


class _File(Data):
    model_config = ConfigDict(extra="ignore")

    vectors: tuple[_Vector, ...]


def golden() -> dict[str, Case]:
    """Those of losses of one head, by id."""
    found = read_file(FILE, _File).vectors
    return {vector.id: vector.case.heads[0] for vector in found if vector.case.e2e is None}
