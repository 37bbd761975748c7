"""Input checks: errors for invalid predictions and targets.

They read values, so on an accelerator each call waits for it. A training loop may switch them off (``checks=False``).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

TARGET_COLUMNS = ("image", "class", "x", "y", "w", "h")
NAMES = tuple(f"targets[{{}}, {column}]" for column in range(len(TARGET_COLUMNS)))


def check_predictions(p: object, *, layers: int, anchors: int, classes: int, device: torch.device) -> None:
    """Raise ValueError or TypeError unless ``p`` has one float tensor (B, A, H, W, 5 + C) for each layer."""
    if isinstance(p, Tensor) or not isinstance(p, Sequence):
        raise TypeError(f"predictions: expected a list of {layers} tensors, one per layer, got {described(p)}")
    hint = "; a model in eval mode returns (inference, train) outputs: pass the train outputs"
    if len(p) != layers:
        raise ValueError(f"predictions: expected {layers} layers, got {len(p)}{hint}")
    batch = None
    for i, layer in enumerate(p):
        name = f"predictions[{i}]"
        if not isinstance(layer, Tensor) or not layer.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {described(layer)}")
        batch = layer.shape[0] if batch is None and layer.ndim else batch
        wanted = (batch, anchors, "H", "W", 5 + classes)
        if layer.ndim != 5 or (*layer.shape[:2], layer.shape[4]) != (batch, anchors, 5 + classes):
            raise ValueError(
                f"{name}: expected shape (batch, anchors, rows, columns, 5 + classes) = "
                f"({', '.join(map(str, wanted))}), got {tuple(layer.shape)}{hint if layer.ndim == 3 else ''}"
            )
        if 0 in layer.shape:
            raise ValueError(f"{name}: expected at least one element along every axis, got {tuple(layer.shape)}")
        if layer.device != device:
            raise ValueError(
                f"{name}: expected device {device}, as the anchors, got {layer.device}; "
                "after moving a model, call refresh(model) on its loss"
            )


def check_targets(
    targets: object, *, batch: int, classes: int, device: torch.device, names: Sequence[str] = NAMES
) -> None:
    """Raise ValueError or TypeError unless ``targets`` is a float tensor (N, 6) with every value in its range.

    ``names``: what a message calls a value of each column; ``{}`` stands for its row.
    """
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets: expected a tensor of shape (N, 6), got {described(targets)}")
    if not targets.is_floating_point():
        raise TypeError(
            f"targets: expected a floating-point tensor, got {targets.dtype}; "
            "as integers, all coordinates below 1 are truncated to 0"
        )
    if targets.ndim != 2 or targets.shape[1] != 6:
        raise ValueError(f"targets: expected shape (N, 6), got {tuple(targets.shape)}")
    if targets.device != device:
        raise ValueError(f"targets: expected device {device}, as the predictions, got {targets.device}")
    values = targets.detach()
    index, centre, size = values[:, :2], values[:, 2:4], values[:, 4:]
    count = targets.new_tensor((batch, classes))
    bad = torch.cat(
        (
            ~((index >= 0) & (index < count) & (index == index.floor())),
            ~((centre >= 0) & (centre <= 1)),
            ~((size > 0) & size.isfinite()),
        ),
        dim=1,
    )
    if bool(bad.any()):
        _refuse_target(targets, bad, batch, classes, names)


def _refuse_target(targets: Tensor, bad: Tensor, batch: int, classes: int, names: Sequence[str]) -> None:
    allowed = (
        f"a whole number from 0 to {batch - 1}",
        f"a whole number from 0 to {classes - 1}",
        *("a number from 0 to 1",) * 2,
        *("a finite number above 0",) * 2,
    )
    row, column = bad.nonzero()[0].tolist()
    more = int(bad.any(dim=1).sum()) - 1
    raise ValueError(
        f"{names[column].format(row)} ({TARGET_COLUMNS[column]}): expected {allowed[column]}, "
        f"got {targets[row, column].item():.9g}" + (f" ({more} more bad rows)" if more else "")
    )


def described(value: object) -> str:
    """What came in place of what was expected, for an error message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
    return type(value).__name__
