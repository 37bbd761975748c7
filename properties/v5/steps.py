"""A saved training step: what may be left out of it, and why a law usually breaks in one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.steps import Steps, array, parts, with_images
from .case import Case
from .packed import OBJECTNESS, PackedLogits, pack
from .training import bounds

# Why a law usually breaks in a training run, the most probable first, each with what to look at.
CAUSES = {
    "totals.finite": (
        "A division by the area or a side of a box that has none: has every denominator of the overlap an epsilon?",
        "A logarithm, a root or a power of 0 or of a negative number: is its argument clamped?",
        "float16 ends at 65,504: is the loss computed in float32, with autocast switched off?",
    ),
    "gradients.finite": (
        "A root, an angle or a power at 0, whose value is right and whose slope is not: is there an epsilon inside it?",
        "torch.where hides a NaN in the value, but not in the gradient: is the argument made safe before the division?",
        "float16 ends at 65,504: is the scale of the total too large, or the loss computed in float16?",
    ),
    "run.no-exception": (
        "An index outside the grid: are row and column clamped for a centre on the right or lower edge?",
        "A class or an image outside its range: do the labels have as many classes as the head?",
        "A batch without targets, or a layer without rows: does the code take a mean or a maximum of nothing?",
    ),
}


def smaller(case: Case) -> Iterator[Case]:
    """The case with fewer images, fewer targets, fewer layers, and less in its logits."""
    layers = [array(values) for values in case.logits]
    for images in parts(case.batch):
        yield _with_images(case, layers, images)
    for kept in parts(len(case.targets), least=0):
        yield case.changed(targets=tuple(case.targets[n] for n in kept))
    for only in range(case.layers) if case.layers > 1 else ():
        yield _with_layer(case, layers, only)
    if isinstance(case.predictions, PackedLogits):
        yield from _plainer(case, layers)


def _with_images(case: Case, layers: list[NDArray[Any]], images: list[int]) -> Case:
    return case.changed(**with_images(case, images), predictions=_packed([each[images] for each in layers]))


def _with_layer(case: Case, layers: list[NDArray[Any]], only: int) -> Case:
    fields = {name: (getattr(case, name)[only],) for name in ("grids", "strides", "anchors")}
    return case.changed(**fields, predictions=_packed([layers[only]]))


def _plainer(case: Case, layers: list[NDArray[Any]]) -> Iterator[Case]:
    """With objectness 0 in every cell, and all logits of one cell or another 0."""
    without = [values.copy() for values in layers]
    for values in without:
        values[..., OBJECTNESS] = 0
    if any(values[..., OBJECTNESS].any() for values in layers):
        yield case.changed(predictions=_packed(without))
    cells = [(n, int(at)) for n, values in enumerate(layers) for at in _filled(values)]
    for kept in parts(len(cells), least=0):
        fewer = [np.zeros_like(values) for values in layers]
        for n, at in (cells[each] for each in kept):
            fewer[n].reshape(-1, fewer[n].shape[-1])[at] = layers[n].reshape(-1, layers[n].shape[-1])[at]
        yield case.changed(predictions=_packed(fewer))


def _filled(values: NDArray[Any]) -> NDArray[np.int64]:
    """Flat indices of the cells with a logit other than 0, besides objectness."""
    return np.flatnonzero(np.delete(values, OBJECTNESS, axis=-1).reshape(-1, values.shape[-1] - 1).any(axis=1))


def _packed(layers: list[NDArray[Any]]) -> PackedLogits:
    return pack(layers, [_filled(values) for values in layers])


STEPS = Steps(bounds, CAUSES, smaller)
