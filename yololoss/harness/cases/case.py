"""A case: one call of a loss, complete, as data. Each family of losses derives its own class from `Case`.

The same type is used everywhere: strategies draw it, the subject and the reference take it, files store it.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema
from torch import Tensor
from typing_extensions import Self, override

SPELLED = ("nan", "inf", "-inf")
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
}


def _read_number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in SPELLED else value


def _spell(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


Number = Annotated[
    float,
    BeforeValidator(_read_number),
    PlainSerializer(_spell, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": list(SPELLED)}]}),
]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Index = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Dtype = Literal["float16", "bfloat16", "float32", "float64"]


def _stop_early(schema: Any) -> None:
    """Have sequences stop at their first invalid element: a small file may have millions, and an error takes 2 kB."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "tuple"):
            schema["fail_fast"] = True
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else ():
        _stop_early(part)


class Data(BaseModel):
    """The base class of every part of a case or vector: frozen, strict, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    @override
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _stop_early(schema)
        return schema


class Case(Data):
    """One call of a loss, complete: enough to make its tensors, its model and its options.

    Immutable. It is written to JSON and read from it bit for bit. Its ``str`` is a small table that can be checked by
    hand.
    """

    family: ClassVar[str]  # the name of its family

    @property
    def calls(self) -> int:
        """How often the loss is called on the inputs."""
        return 1

    def called(self, calls: int) -> "Case":
        """The case with the loss called so often; the same case if the family calls it once."""
        return self

    @property
    def size(self) -> tuple[int, int, str]:
        """The sort key of cases, the smallest first."""
        return 0, len(self.key), self.key

    @property
    def numbers(self) -> int:
        """How many numbers its predictions have."""
        return 0

    @property
    def clearer(self) -> tuple["Case", ...]:
        """Cases like this one on which less hides a fault: with less rounding, with usual values."""
        return ()

    @property
    def simpler(self) -> Mapping[str, "Case"]:
        """Valid cases like this one with one setting as usual: by the name of the setting."""
        return {}

    def inputs(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Predictions, which require grad and are not leaves, and targets. Each call returns new tensors."""
        raise NotImplementedError

    @cached_property
    def invalid(self) -> str | None:
        """Why it is no valid input of a loss, such as a NaN among its targets; None if it is valid."""
        return None

    @cached_property
    def key(self) -> str:
        """The case as JSON, without fields that are None. Cases are equal if their keys are. NaN equals NaN here."""
        return self.model_dump_json(exclude_none=True)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Case) and self.key == other.key

    @override
    def __hash__(self) -> int:
        return hash(self.key)

    def changed(self, **fields: Any) -> Self:
        """A copy with some fields replaced, validated again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | fields)
