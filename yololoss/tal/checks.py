"""Input checks: errors for invalid predictions and targets.

They read values, so on an accelerator each call waits for it. A training loop may switch them off (``checks=False``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from yololoss.tal.inputs import SIDES, unwrapped
from yololoss.v5.checks import check_targets, described

HINT = "; a model in eval mode returns (inference output, preds): pass that or preds"
NAMES = ("batch['batch_idx'][{}]", "batch['cls'][{}]", *(f"batch['bboxes'][{{}}, {n}]" for n in range(SIDES)))
FORM = "a mapping of boxes, scores and feats, or a list of tensors, one per level"


def check_predictions(preds: object, *, classes: int, reg_max: int, strides: tuple[float, ...]) -> None:
    """Raise ValueError or TypeError unless ``preds`` is of a form that `read_predictions` reads, and fits the loss."""
    preds = unwrapped(preds)
    if isinstance(preds, Mapping):
        grids = _check_mapping(preds, classes, SIDES * reg_max, len(strides))
    elif isinstance(preds, Sequence) and not isinstance(preds, str):
        grids = _check_levels(preds, classes, SIDES * reg_max, len(strides))
    else:
        raise TypeError(f"predictions: expected {FORM}, got {described(preds)}{HINT}")
    _check_sizes(grids, strides)


def check_heads(preds: object) -> None:
    """Raise ValueError or TypeError unless ``preds`` has the predictions of two heads. They are checked one by one."""
    if not isinstance(preds, Mapping):
        raise TypeError(f"predictions: expected a mapping of one2many and one2one, got {described(preds)}{HINT}")
    missing = [name for name in ("one2many", "one2one") if name not in preds]
    if missing:
        raise ValueError(f"predictions: missing {', '.join(missing)} (got: {', '.join(map(str, preds))})")


def _check_mapping(preds: Mapping[str, Any], classes: int, channels: int, levels: int) -> list[tuple[int, int]]:
    missing = [name for name in ("boxes", "scores", "feats") if name not in preds]
    if missing:
        hint = "; predictions of two heads are for E2ELoss" if "one2many" in preds else ""
        raise ValueError(f"predictions: missing {', '.join(missing)} (got: {', '.join(map(str, preds))}){hint}")
    feats = preds["feats"]
    if isinstance(feats, Tensor) or not isinstance(feats, Sequence) or len(feats) != levels:
        raise ValueError(f"predictions['feats']: expected {levels} tensors, one per level, got {_count(feats)}")
    for i, level in enumerate(feats):
        if not isinstance(level, Tensor) or level.ndim != 4:
            raise ValueError(
                f"predictions['feats'][{i}]: expected a tensor (batch, channels, rows, columns), got {described(level)}"
            )
    grids = [(level.shape[2], level.shape[3]) for level in feats]
    anchors, batch = sum(rows * columns for rows, columns in grids), None
    for name, wanted in (("boxes", channels), ("scores", classes)):
        value = preds[name]
        _check_float(value, f"predictions[{name!r}]")
        batch = value.shape[0] if batch is None and value.ndim else batch
        meaning = "4 reg_max" if name == "boxes" else "classes"
        _check_shape(value, f"predictions[{name!r}]", f"(batch, {meaning}, anchors)", (batch, wanted, anchors))
    if preds["boxes"].device != preds["scores"].device:
        raise ValueError(
            f"predictions['boxes']: expected device {preds['scores'].device}, as the scores, "
            f"got {preds['boxes'].device}"
        )
    return grids


def _check_levels(preds: Sequence[Any], classes: int, channels: int, levels: int) -> list[tuple[int, int]]:
    if len(preds) != levels:
        raise ValueError(f"predictions: expected {levels} levels, got {len(preds)}{HINT}")
    batch = None
    for i, level in enumerate(preds):
        name = f"predictions[{i}]"
        _check_float(level, name)
        batch = level.shape[0] if batch is None and level.ndim else batch
        rest = tuple(level.shape[2:]) if level.ndim == 4 else ("H", "W")
        _check_shape(level, name, "(batch, 4 reg_max + classes, rows, columns)", (batch, channels + classes, *rest))
        if level.device != preds[0].device:
            raise ValueError(f"{name}: expected device {preds[0].device}, as level 0, got {level.device}")
    return [(level.shape[2], level.shape[3]) for level in preds]


def _check_float(value: object, name: str) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {described(value)}")


def _check_shape(value: Tensor, name: str, meaning: str, wanted: tuple[object, ...]) -> None:
    if tuple(value.shape) != wanted:
        expected = ", ".join(map(str, wanted))
        raise ValueError(f"{name}: expected shape {meaning} = ({expected}), got {tuple(value.shape)}")
    if 0 in value.shape:
        raise ValueError(f"{name}: expected at least one element along every axis, got {tuple(value.shape)}")


def _check_sizes(grids: Sequence[tuple[int, int]], strides: tuple[float, ...]) -> None:
    """All levels are of one image size, but for less than a cell, by which a level may be rounded."""
    for i, (grid, stride) in enumerate(zip(grids, strides, strict=True)):
        for cells, first in zip(grid, grids[0], strict=True):
            if abs(cells * stride - first * strides[0]) >= max(stride, strides[0]) and i:
                raise ValueError(
                    f"predictions: level {i} of {grid[0]} x {grid[1]} cells of stride {stride:g} does not fit "
                    f"level 0 of {grids[0][0]} x {grids[0][1]} cells of stride {strides[0]:g}"
                )


def check_batch(batch: object, *, images: int, classes: int) -> None:
    """Raise ValueError or TypeError unless ``batch`` has targets with every value in its range."""
    if not isinstance(batch, Mapping):
        raise TypeError(f"batch: expected a mapping of batch_idx, cls and bboxes, got {described(batch)}")
    missing = [name for name in ("batch_idx", "cls", "bboxes") if name not in batch]
    if missing:
        raise ValueError(f"batch: missing {', '.join(missing)} (got: {', '.join(map(str, batch))})")
    boxes = batch["bboxes"]
    if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
        raise TypeError(
            f"batch['bboxes']: expected a floating-point tensor, got {described(boxes)}; "
            "as integers, all coordinates below 1 are truncated to 0"
        )
    if boxes.ndim != 2 or boxes.shape[1] != SIDES:
        raise ValueError(f"batch['bboxes']: expected shape (targets, 4), got {tuple(boxes.shape)}")
    for name in ("batch_idx", "cls"):
        value = batch[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"batch[{name!r}]: expected a tensor, got {described(value)}")
        if tuple(value.shape) not in ((len(boxes),), (len(boxes), 1)):
            raise ValueError(
                f"batch[{name!r}]: expected shape ({len(boxes)},) or ({len(boxes)}, 1), as there are "
                f"{len(boxes)} boxes, got {tuple(value.shape)}"
            )
    # As the loss will read them: what only float32 rounds into the range is in it, and out of it.
    columns = (batch["batch_idx"].reshape(-1, 1), batch["cls"].reshape(-1, 1), boxes)
    targets = torch.cat([column.to(boxes.device).float() for column in columns], dim=1)
    check_targets(targets, batch=images, classes=classes, device=boxes.device, names=NAMES)


def _count(value: object) -> str:
    return f"{len(value)}" if isinstance(value, Sequence) else described(value)
