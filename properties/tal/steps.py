"""A saved training step: what may be left out of it, and why a law usually breaks in one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.steps import Steps, array, parts, with_images
from .case import SIDES, Case
from .packed import PackedLogits, filled, pack
from .training import bounds

# Why a law usually breaks in a training run, the most probable first, each with what to look at.
CAUSES = {
    "totals.finite": (
        "A division by a sum of scores that is 0: is it at least 1?",
        "A division by the area or a side of a box that has none: has every denominator of the overlap an epsilon?",
        "float16 ends at 65,504: is the loss computed in float32, with autocast switched off?",
    ),
    "gradients.finite": (
        "A root, an angle or a power at 0, whose value is right and whose slope is not: is there an epsilon inside it?",
        "The weight of the aspect term: is it held constant?",
        "float16 ends at 65,504: is the scale of the total too large, or the loss computed in float16?",
    ),
    "run.no-exception": (
        "Fewer anchors than top-k: is it limited to the number of anchors?",
        "Rows in another order than by image: are they grouped by their image, whatever their order?",
        "A class or an image outside its range: do the labels have as many classes as the head?",
    ),
}


def smaller(case: Case) -> Iterator[Case]:
    """The case with fewer images, fewer targets, fewer levels, and less in its logits."""
    levels = [array(values) for values in case.logits]
    for images in parts(case.batch):
        yield case.changed(**with_images(case, images), predictions=_packed(case, [each[images] for each in levels]))
    for kept in parts(len(case.targets), least=0):
        yield case.changed(targets=tuple(case.targets[n] for n in kept))
    for only in range(case.levels) if case.levels > 1 else ():
        fields = {"grids": (case.grids[only],), "strides": (case.strides[only],)}
        yield case.changed(**fields, predictions=_packed(case, [levels[only]]))
    if isinstance(case.predictions, PackedLogits):
        yield from _plainer(case, levels)


def _plainer(case: Case, levels: list[NDArray[Any]]) -> Iterator[Case]:
    """With class logits 0 in every anchor, and the sides of one anchor or another 0."""
    sides = SIDES * case.reg_max
    without = [values.copy() for values in levels]
    for values in without:
        values[:, sides:] = 0
    if any(values[:, sides:].any() for values in levels):
        yield case.changed(predictions=_packed(case, without))
    cells = [(n, int(at)) for n, values in enumerate(levels) for at in filled(values, case.classes)]
    for kept in parts(len(cells), least=0):
        fewer = [values.copy() for values in levels]
        for values in fewer:
            values[:, :sides] = 0
        for n, at in (cells[each] for each in kept):
            image, row, column = np.unravel_index(at, (case.batch, *case.grids[n]))
            fewer[n][image, :sides, row, column] = levels[n][image, :sides, row, column]
        yield case.changed(predictions=_packed(case, fewer))


def _packed(case: Case, levels: list[NDArray[Any]]) -> PackedLogits:
    return pack(levels, [filled(values, case.classes) for values in levels], case.classes)


STEPS = Steps(bounds, CAUSES, smaller)
