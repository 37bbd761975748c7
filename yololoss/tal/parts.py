"""What a loss is made of: gains, and what it reads of a model's detection head."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from yololoss.v5.loss import unwrap


@dataclass
class Gains:
    """The factors of the three terms, under upstream's names. A change takes effect at the next call.

    Raises ValueError for a gain that is negative or not finite.
    """

    box: float = 7.5
    cls: float = 0.5
    dfl: float = 1.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"gains: {field.name}: expected a finite number of 0 or more, got {value}")


def args_of(model: nn.Module, *names: str) -> Any:
    """``model.args``, also of a wrapped model. Raises ValueError, which names what is missing of these attributes."""
    args = getattr(model, "args", None)  # trainers set it before or after they wrap the model
    if args is None:
        args = getattr(unwrap(model), "args", None)
    missing = [name for name in names if not hasattr(args, name)]
    if missing:
        raise ValueError(f"model.args: missing {', '.join(missing)} (got: {type(args).__name__})")
    return args


class Head(NamedTuple):
    """What a loss reads of a detection head."""

    strides: tuple[float, ...]
    stride: Tensor  # the same, as the head has it
    classes: int
    reg_max: int
    class_weights: Tensor | None
    device: torch.device

    @classmethod
    def of(cls, model: nn.Module) -> "Head":
        """The head of a model, which may be wrapped. Its device is that of the first parameter."""
        inner = unwrap(model)
        head = inner.model[-1]
        weights = getattr(inner, "class_weights", None)
        return cls.of_parts(head.stride, head.nc, head.reg_max, weights, next(inner.parameters()).device)

    @classmethod
    def of_parts(
        cls,
        strides: Tensor | Sequence[float],
        classes: int,
        reg_max: int,
        class_weights: Tensor | Sequence[float] | None,
        device: torch.device,
    ) -> "Head":
        """A head of these parts. Raises ValueError for parts that do not fit."""
        stride = torch.as_tensor(strides, dtype=torch.float32)
        if stride.ndim != 1 or not len(stride) or not bool((stride > 0).all() & stride.isfinite().all()):
            raise ValueError(f"strides: expected one or more finite numbers above 0, got {stride.tolist()}")
        for name, value in (("classes", classes), ("reg_max", reg_max)):
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        if class_weights is not None:
            class_weights = torch.as_tensor(class_weights, dtype=torch.float32, device=device)
            if class_weights.shape != (classes,):
                raise ValueError(
                    f"class_weights: expected shape (classes,) = ({classes},), got {tuple(class_weights.shape)}"
                )
        return cls(tuple(stride.tolist()), stride, classes, reg_max, class_weights, device)
