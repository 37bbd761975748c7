"""Targets: where a target lies, how large it is, and the logits of its cell, chosen by bytes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from yololoss.harness.cases.domain import Choices

from .case import Override
from .pools import AT_EDGE, BEYOND, EXTREME, RATIOS, SPOTS, ULPS

Target = tuple[float, float, float, float, float, float]


class Frame(NamedTuple):
    """The structure of a case, before its targets."""

    batch: int
    classes: int
    grids: tuple[tuple[int, int], ...]
    strides: tuple[float, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    anchor_t: float
    exact: bool
    edges: bool


class Drawn(NamedTuple):
    """A target, and the layer and anchor that it is drawn for."""

    row: Target
    layer: int
    anchor: int
    spot: str


def nudged(value: float, ulps: int) -> float:
    """The float32 that is ``ulps`` steps away from the float32 nearest to ``value``."""
    number = np.float32(value)
    for _ in range(abs(ulps)):
        number = np.nextafter(number, np.float32(math.copysign(math.inf, ulps)))
    return float(number)


def _coordinate(code: int, cells: int, frame: Frame) -> float:
    """A centre in [0, 1]: inside a half cell; on or beside a grid line, half cell or edge; anywhere."""
    if frame.exact:
        return (2 * (code % 256) + 1) / 512
    rest, kind = (code, 1) if frame.edges else divmod(code, 3)
    ulp, half = divmod(rest, 2 * cells + 1)
    if kind == 0:
        return float(np.float32(min(half + 0.375, 2 * cells) / (2 * cells)))
    if kind == 1:
        return min(max(nudged(half / (2 * cells), ULPS[ulp % len(ULPS)]), 0.0), 1.0)
    return float(np.float32(code * 0.6180339887498949 % 1))


def _side(ratio: tuple[int, float], ulps: int, anchor: float, cells: int, anchor_t: float) -> float:
    """A side as a fraction of the image: the given multiple of an anchor's side."""
    power, factor = ratio
    return nudged(anchor * anchor_t**power * factor / cells, ulps)


def target_of(chunk: bytes, frame: Frame, earlier: Sequence[Drawn], crowded: bool) -> Drawn:
    """A target from its bytes; ``earlier`` are those before it, which it may repeat, or share a place with."""
    choose = Choices(chunk)
    copy = max(choose.index(256) - 1, 0) % 6
    image, cls, layer = choose.index(frame.batch), choose.index(frame.classes), choose.index(len(frame.grids))
    anchor = choose.index(len(frame.anchors[layer]))
    (rows, columns), (wide, high) = frame.grids[layer], frame.anchors[layer][anchor]
    ratios = AT_EDGE if frame.edges else RATIOS
    across, down, ulps, spot = choose.of(ratios), choose.of(ratios), choose.of(ULPS), choose.of(SPOTS)
    width = _side(across, ulps, wide, columns, frame.anchor_t)
    height = _side(down, ulps, high, rows, frame.anchor_t)
    centre = (_coordinate(choose.wide(), columns, frame), _coordinate(choose.wide(), rows, frame))
    if spot == "exact fit" and frame.exact:
        spot = "fit"
    if spot == "exact fit":
        column, line = cell_of(*centre, (rows, columns))
        centre = ((column + 0.5) / columns, (line + 0.5) / rows)
        width, height = wide / columns, high / rows
    row = (float(image), float(cls), *centre, width, height)
    if earlier and copy == 4 and not crowded:  # a duplicate row
        return earlier[-1]
    if earlier and (copy == 5 or (crowded and copy > 0)):  # the same centre, another class and size
        first = earlier[-1].row
        row = (first[0], float(cls), first[2], first[3], width, height)
    return Drawn(row, layer, anchor, spot)


def cell_of(x: float, y: float, grid: tuple[int, int]) -> tuple[int, int]:
    """Column and row of the cell that contains a centre; on the far edge, the last ones."""
    rows, columns = grid
    return min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)


def spot_of(drawn: Drawn, frame: Frame, beyond: float) -> list[Override]:
    """Logits for the cell and anchor that a target is drawn for: a perfect fit, a box of size 0, saturation."""
    image, cls, x, y, w, h = drawn.row
    rows, columns = frame.grids[drawn.layer]
    at = cell_of(x, y, frame.grids[drawn.layer])
    if drawn.spot == "fit":
        centre = [_logit((v * n - i + 0.5) / 2) for v, n, i in zip((x, y), (columns, rows), at, strict=True)]
        sides = zip((w, h), (columns, rows), frame.anchors[drawn.layer][drawn.anchor], strict=True)
        values = dict(enumerate((*centre, *(_logit(math.sqrt(v * n / a) / 2) for v, n, a in sides))))
    elif drawn.spot in ("no size", "no height"):
        values = {3: -EXTREME} | ({2: -EXTREME} if drawn.spot == "no size" else {})
    elif drawn.spot == "gone":  # sigmoid underflows to 0, so its logarithm is infinite
        values = {2: -BEYOND, 3: -1.2 * BEYOND}
    elif drawn.spot == "exact fit":
        values = dict.fromkeys(range(4), 0.0)
    elif drawn.spot == "far off":  # no overlap, and a narrow box for a wide target, or the other way round
        aside = [-EXTREME if v * n - i > 0.5 else EXTREME for v, n, i in zip((x, y), (columns, rows), at, strict=True)]
        thin = (-EXTREME, -EXTREME / 2)
        values = dict(enumerate((*aside, *(thin if w * columns > h * rows else thin[::-1]))))
    else:
        size = beyond if drawn.spot.startswith("beyond") else EXTREME
        sure = size if drawn.spot.endswith("certain") else -size
        values = {4: sure, 5 + int(cls): sure}
    place: dict[str, Any] = {
        "layer": drawn.layer,
        "image": int(image),
        "anchor": drawn.anchor,
        "row": at[1],
        "column": at[0],
    }
    return [Override(**place, channel=channel, value=value) for channel, value in values.items()]


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(clipped / (1 - clipped))
