"""The cases on which the dialect of a loss is looked for."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from .case import Case, SeededLogits

SIDES = (1e-3, 1e-4, 2e-5)  # of the tiny boxes whose overlap shows its epsilon, in cells
IMAGES = 60  # each with one tiny box: so many that the rounding of their sides averages out
# One target in each image, so that no two rows share a cell: sizes from a fit to the limit, places all over a cell.
SINGLES = tuple(
    (i, i % 3, (i % 4 + 0.5 + x) / 4, (i // 4 % 4 + 0.5 + y) / 4, w, h)
    for i, (x, y, w, h) in enumerate(
        product((0.1, -0.3), (-0.2, 0.35), (0.4, 0.15, 0.9), (0.3, 0.8)),
    )
)
LINES: dict[str, Any] = {"layers": 1, "grids": ((8, 8),), "anchors": (((1.5, 1.25), (2.0, 1.0)),)}
SHARED = tuple((0, k % 3, 0.4 + 0.02 * k, 0.6 - 0.02 * k, 0.3 + 0.1 * (k % 3), 0.4) for k in range(5))  # in one cell


def case_of(targets: Sequence[Sequence[float]], **fields: Any) -> Case:
    """A case of three layers of 4 x 4 cells, one anchor and three classes, unless the fields say otherwise."""
    layers = fields.pop("layers", 3)
    return Case(
        **{
            "batch": 1,
            "classes": 3,
            "grids": ((4, 4),) * layers,
            "strides": tuple(8.0 * 2**i for i in range(layers)),
            "anchors": (((1.5, 1.25),),) * layers,
            "targets": tuple((image, cls % fields.get("classes", 3), *rest) for image, cls, *rest in targets),
            "predictions": SeededLogits(seed=7, scale=2.0),
        }
        | fields
    )


def tiny(classes: int) -> Case:
    """Boxes of one ten-thousandth of a cell and smaller, each over a target of other sides, with the same centre."""
    chance = np.random.default_rng(0)
    sizes = np.resize(SIDES, IMAGES)[:, None] * np.exp(chance.uniform(-1, 1, (IMAGES, 2))) / 4
    targets = [(i, 0, 0.375, 0.625, w, h) for i, (w, h) in enumerate(sizes.tolist())]
    case = case_of(targets, batch=IMAGES, classes=classes, anchors=tuple(((side, side),) for side in SIDES))
    logits = [x.clone() for x in case.logits]
    for x in logits:
        x[..., :2] = 0.0
    return case.with_logits(tuple(logits))


def on_lines(beyond: float) -> list[tuple[float, ...]]:
    """Targets on lines of a grid of 8 x 8, at halves of cells, and elsewhere, and a little beyond."""
    places = ((2, 3), (2.5, 4.5), (4, 6.5), (5.3, 1.7), (6.2, 5.9))
    return [(0, k % 3, (x + beyond) / 8, (y + beyond) / 8, 0.2, 0.15) for k, (x, y) in enumerate(places)]
