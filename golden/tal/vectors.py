"""Reads the recorded values of the task-aligned loss, and makes the inputs that they belong to."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yololoss import Assigner, E2EDetectLoss, E2ELoss, Gains, TaskAlignedLoss

FILE = Path(__file__).parent / "upstream-8.4.190.json"
SIDES = 4


@lru_cache
def vectors() -> tuple[dict[str, Any], ...]:
    """All recorded vectors, in the order of the file."""
    return tuple(json.loads(FILE.read_text(encoding="utf-8"))["vectors"])


def numbers(values: Any) -> np.ndarray:
    """Recorded numbers as float64; the strings "nan", "inf" and "-inf" are numbers as well."""
    return np.array(values, dtype=np.float64)


def noise(seed: int, level: int, size: int) -> np.ndarray:
    """``size`` numbers from -1 to 1, (size,) float64, by the formula of golden/README.md."""
    with np.errstate(over="ignore"):  # whole numbers of 64 bits
        start = np.uint64((seed << 32) + (level << 28))
        z = (np.arange(size, dtype=np.uint64) + start + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def level_logits(case: dict[str, Any], head: int, level: int) -> np.ndarray:
    """The logits of one level, (B, 4 R + C, H, W) float64: the sides' bins first."""
    given, bins = case["predictions"][head], case["reg_max"]
    shape = (case["batch"], SIDES * bins + case["classes"], *case["grids"][level])
    if given["kind"] == "values":
        return numbers(given["layers"][level]).reshape(shape)
    n = noise(given["seed"], level, int(np.prod(shape))).reshape(shape)
    box = n[:, : SIDES * bins] * given["box_scale"] + given.get("box_offset", 0)
    if "peak" in given:
        peak = np.repeat(numbers(given["peak"][level]), bins)
        bump = peak if bins == 1 else -given["sharp"] * abs(np.tile(np.arange(bins), SIDES) - peak)
        box = box + bump[:, None, None]
    logits = np.concatenate((box, n[:, SIDES * bins :] * given["cls_scale"] + given["cls_offset"]), axis=1)
    for at, k, value in given.get("overrides", ()):
        if at == level:
            logits.reshape(-1)[k] = value
    return logits


def levels(case: dict[str, Any], head: int) -> list[Tensor]:
    """The predictions of a head as a tensor a level, which require a gradient."""
    dtype = getattr(torch, case["dtype"])
    made = (level_logits(case, head, level) for level in range(len(case["grids"])))
    return [torch.from_numpy(logits).to(dtype).requires_grad_() for logits in made]


def mapping(layers: list[Tensor], reg_max: int) -> dict[str, Any]:
    """The same predictions as a mapping of boxes, scores and feats."""
    joined = torch.cat([level.flatten(2) for level in layers], dim=2)
    return {"boxes": joined[:, : SIDES * reg_max], "scores": joined[:, SIDES * reg_max :], "feats": layers}


def batch(rows: list[list[float]]) -> dict[str, Tensor]:
    """Rows of image, class, x, y, w, h as a batch of targets."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6).float()
    return {"batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": table[:, 2:]}


def loss_of(case: dict[str, Any], **kwargs: Any) -> Any:
    """The loss that a case is about."""
    parts = case["strides"], case["classes"], case["reg_max"]
    kwargs |= {"gains": Gains(**case.get("gains", {})), "class_weights": case.get("class_weights")}
    kind = case.get("e2e", {}).get("class")
    if kind == "E2EDetectLoss":
        return E2EDetectLoss.from_parts(*parts, **kwargs)
    if kind == "E2ELoss":
        loss = E2ELoss.from_parts(*parts, epochs=case.get("epochs", 100), **kwargs)
        for _ in range(case["e2e"]["updates"]):
            loss.update()
        return loss
    return TaskAlignedLoss.from_parts(*parts, assigner=Assigner(case.get("topk", 10), case.get("topk2")), **kwargs)
