"""Cases: inputs drawn so that the places where losses go wrong are common, not rare.

Drawn are whole numbers: a few for the structure, four a target, one for the seed of the bulk logits. They are
decoded by hand in mixed bases, most plain at 0, so that a case costs few draws and shrinks to one that a
person can check.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import event
from hypothesis import strategies as st

from yololoss.harness.case import Case, Dtype, Layout, Options, Override, SeededLogits
from yololoss.hyp import Hyperparameters

from .regions import regions

Target = tuple[float, float, float, float, float, float]

# First-layer grids (rows, columns); deeper layers halve them, rounding up. Square, wide, tall, odd, single.
GRIDS = ((2, 2), (4, 4), (1, 1), (3, 5), (8, 8), (6, 2), (2, 7), (5, 5), (1, 4), (10, 6), (13, 13), (16, 12))
LAYERS = (1, 3, 2, 3, 4, 3, 5)
FIRST_STRIDES = (8.0, 16.0, 4.0)
BATCHES = (1, 2, 3)
CLASSES = (2, 1, 3, 5, 20)
ANCHORS = (1, 3, 2, 3, 5)
SIDES = (1.0, 2.0, 1.25, 3.75, 0.5, 4.125, 1.625, 2.875, 6.1875)
DTYPES: tuple[Dtype, ...] = ("float32", "float32", "float32", "float32", "float16", "bfloat16", "float64")
LAYOUTS: tuple[Layout, ...] = (
    "contiguous",
    "contiguous",
    "channels_last",
    "sliced",
    "transposed",
    "expanded",
)
TARGET_DTYPES = ("float32", "float32", "float32", "float64", "float16")
# (scale, offset) of the bulk logits: usual, none, wide, confident background, tiny boxes, saturated, narrow.
LOGITS = ((4.0, 0.0), (0.0, 0.0), (8.0, 0.0), (2.0, -12.0), (1.0, -20.0), (60.0, 0.0), (1.0, 0.0))
HYPS = (
    Hyperparameters(),
    Hyperparameters(label_smoothing=0.1),
    Hyperparameters(cls_pw=1.7, obj_pw=0.6),
    Hyperparameters(fl_gamma=1.5),
    Hyperparameters(fl_gamma=0.5),
    Hyperparameters(anchor_t=2.0),
    Hyperparameters(anchor_t=2.91),
    Hyperparameters(box=0.11, obj=1.3, cls=0.9),
    Hyperparameters(fl_gamma=0.7, label_smoothing=0.2, cls_pw=0.5, obj_pw=2.0),
    Hyperparameters(obj_pw=3.0),
    Hyperparameters(cls_pw=0.25),
)
OPTIONS = (
    Options(),
    Options(),
    Options(sort_obj_iou=True),
    Options(gr=0.5),
    Options(calls=2),
    Options(gr=0.0),
    Options(autobalance=True, calls=2),
)
ULPS = (0, 0, 0, 1, -1, 4, -4)
# Sides of a target as multiples of its anchor's, as exponents of anchor_t and factors: a fit, inside the
# limit, at the limit both ways, beyond it both ways.
RATIOS = ((0, 1.0), (0, 1.5), (0, 0.4), (1, 1.0), (-1, 1.0), (0, 2.7), (1, 1.1), (-1, 0.9))
# What is written over the logits of the cell and anchor that a target was made for.
SPOTS = ("nothing", "nothing", "nothing", "fit", "no size", "no height", "certain", "denied")
EXTREME = 60.0  # beyond it sigmoid is 0 or 1 in every dtype


class Frame(NamedTuple):
    """The structure of a case, before its targets."""

    batch: int
    classes: int
    grids: tuple[tuple[int, int], ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    anchor_t: float
    exact: bool


class Drawn(NamedTuple):
    """A target, and the layer and anchor it was made for."""

    row: Target
    layer: int
    anchor: int
    spot: str


def digits(code: int, *bases: int) -> list[int]:
    """Digits of a whole number in mixed bases, the first one fastest; code 0 gives all zeros."""
    out = []
    for base in bases:
        code, digit = divmod(code, base)
        out.append(digit)
    return out


def nudged(value: float, ulps: int) -> float:
    """The float32 so many steps from the float32 nearest to ``value``."""
    number = np.float32(value)
    for _ in range(abs(ulps)):
        number = np.nextafter(number, np.float32(math.copysign(math.inf, ulps)))
    return float(number)


def _coordinate(code: int, cells: int, exact: bool) -> float:
    """A centre in [0, 1]: inside a half cell; on or beside a grid line, half cell or edge; anywhere."""
    if exact:
        return (2 * (code % 256) + 1) / 512
    kind, half, ulp = digits(code, 3, 2 * cells + 1, len(ULPS))
    if kind == 0:
        return float(np.float32(min(half + 0.375, 2 * cells) / (2 * cells)))
    if kind == 1:
        return min(max(nudged(half / (2 * cells), ULPS[ulp]), 0.0), 1.0)
    return float(np.float32(code * 0.6180339887498949 % 1))


def _side(ratio: int, ulp: int, anchor: float, cells: int, anchor_t: float) -> float:
    """A side as a fraction of the image, a chosen multiple of an anchor's side of a layer."""
    power, factor = RATIOS[ratio]
    return nudged(anchor * anchor_t**power * factor / cells, ULPS[ulp])


def _target(codes: tuple[int, int, int, int], frame: Frame, earlier: Sequence[Drawn], crowded: bool) -> Drawn:
    who, size, x, y = codes
    # what depends on the frame comes last, so that a smaller frame leaves the rest of a target as it was
    copy, cls, image, layer = digits(who, 6, frame.classes, frame.batch, len(frame.grids))
    across, down, ulp, spot, anchor = digits(
        size, len(RATIOS), len(RATIOS), len(ULPS), len(SPOTS), len(frame.anchors[0])
    )
    rows, columns = frame.grids[layer]
    wide, high = frame.anchors[layer][anchor]
    width = _side(across, ulp, wide, columns, frame.anchor_t)
    height = _side(down, ulp, high, rows, frame.anchor_t)
    row = (
        float(image),
        float(cls),
        _coordinate(x, columns, frame.exact),
        _coordinate(y, rows, frame.exact),
        width,
        height,
    )
    if earlier and copy == 4 and not crowded:  # a duplicate row
        return earlier[-1]
    if earlier and (copy == 5 or (crowded and copy > 0)):  # the same place, another class and size: cells are shared
        first = earlier[-1].row
        row = (first[0], float(cls), first[2], first[3], width, height)
    return Drawn(row, layer, anchor, SPOTS[spot])


def _spot(drawn: Drawn, frame: Frame) -> list[Override]:
    """Logits of the cell and anchor a target was made for: a perfect fit, a vanishing box, certainty."""
    image, cls, x, y, w, h = drawn.row
    rows, columns = frame.grids[drawn.layer]
    at = (min(int(x * columns), columns - 1), min(int(y * rows), rows - 1))
    if drawn.spot == "fit":
        centre = [_logit((v * n - i + 0.5) / 2) for v, n, i in zip((x, y), (columns, rows), at, strict=True)]
        sides = zip((w, h), (columns, rows), frame.anchors[drawn.layer][drawn.anchor], strict=True)
        values = dict(enumerate((*centre, *(_logit(math.sqrt(v * n / a) / 2) for v, n, a in sides))))
    elif drawn.spot in ("no size", "no height"):
        values = {3: -EXTREME} | ({2: -EXTREME} if drawn.spot == "no size" else {})
    else:
        sure = EXTREME if drawn.spot == "certain" else -EXTREME
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


def _frame(
    shape: int, style: int, hyp: Hyperparameters, exact: bool, numbers: Sequence[int]
) -> tuple[Frame, tuple[float, ...]]:
    grid, depth, first = digits(shape, len(GRIDS), len(LAYERS), len(FIRST_STRIDES))
    classes, anchors, batch, turn = digits(style, len(numbers), len(ANCHORS), len(BATCHES), 8)
    layers = range(LAYERS[depth])
    rows, columns = GRIDS[grid]
    sides = tuple(
        tuple(
            (SIDES[(turn + 3 * i + 2 * a) % len(SIDES)], SIDES[(turn * 4 + 5 * i + 7 * a) % len(SIDES)])
            for a in range(ANCHORS[anchors])
        )
        for i in layers
    )
    frame = Frame(
        batch=BATCHES[batch],
        classes=numbers[classes],
        grids=tuple((-(-rows // 2**i), -(-columns // 2**i)) for i in layers),
        anchors=sides,
        anchor_t=hyp.anchor_t,
        exact=exact,
    )
    return frame, tuple(FIRST_STRIDES[first] * 2**i for i in layers)


_CODES = st.integers(0, 2**20 - 1)


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    min_targets: int = 0,
    max_targets: int = 6,
    dtypes: Sequence[Dtype] = DTYPES,
    layouts: Sequence[Layout] = LAYOUTS,
    hyps: Sequence[Hyperparameters] = HYPS,
    options: Sequence[Options] = OPTIONS,
    target_dtypes: Sequence[str] = TARGET_DTYPES,
    logits: Sequence[tuple[float, float]] = LOGITS,
    spots: bool = True,
    exact: bool = False,
    classes: Sequence[int] = CLASSES,
    crowded: bool = False,
) -> Case:
    """Valid cases, with every region of `regions` common; the arguments narrow what is drawn.

    ``exact``: centres are odd multiples of 1/512, on no grid line or half cell of any grid here, and scaling and
    mirroring them is exact in float32: for laws about symmetry, which rounding would blur. ``crowded``: most
    targets lie where an earlier one does, with another class and size.

    The first entry of each sequence is what a case shrinks to.
    """
    shape = draw(st.integers(0, len(GRIDS) * len(LAYERS) * len(FIRST_STRIDES) - 1))
    style = draw(st.integers(0, len(classes) * len(ANCHORS) * len(BATCHES) * 8 - 1))
    kinds = (len(logits), len(dtypes), len(layouts), len(target_dtypes))
    bulk, dtype, layout, target_dtype = digits(draw(st.integers(0, math.prod(kinds) - 1)), *kinds)
    hyp, option = digits(draw(st.integers(0, len(hyps) * len(options) - 1)), len(hyps), len(options))
    seed = draw(st.integers(0, 2**16 - 1))
    codes = draw(st.lists(st.tuples(_CODES, _CODES, _CODES, _CODES), min_size=min_targets, max_size=max_targets))

    frame, strides = _frame(shape, style, hyps[hyp], exact, classes)
    drawn: list[Drawn] = []
    for code in codes:
        drawn.append(_target(code, frame, drawn, crowded))
    case = _case(
        frame,
        strides,
        drawn,
        overrides=tuple(o for d in drawn if spots and d.spot != "nothing" for o in _spot(d, frame)),
        seed=seed,
        scale_offset=logits[bulk],
        dtype=dtypes[dtype],
        targets_dtype=target_dtypes[target_dtype],
        layout=layouts[layout],
        hyp=hyps[hyp],
        options=options[option],
    )
    for region in regions(case):
        event(region)
    return case


def _case(
    frame: Frame,
    strides: tuple[float, ...],
    drawn: Sequence[Drawn],
    overrides: tuple[Override, ...],
    seed: int,
    scale_offset: tuple[float, float],
    **rest: Any,
) -> Case:
    """Put together what was drawn."""
    if rest["options"].autobalance and 16.0 not in strides:
        strides = tuple(s * 16 / strides[0] for s in strides)
    scale, offset = scale_offset
    return Case(
        batch=frame.batch,
        classes=frame.classes,
        grids=frame.grids,
        strides=strides,
        anchors=frame.anchors,
        targets=tuple(d.row for d in drawn),
        predictions=SeededLogits(seed=seed, scale=scale, offset=offset, overrides=overrides),
        **rest,
    )
