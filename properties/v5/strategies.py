"""Strategies for cases: inputs in which the situations where losses go wrong are common, not rare.

A case is drawn as one byte string of fixed length: `FRAME` bytes for the structure, then `CHUNK` bytes per target. Each
byte is a choice, and 0 is the simplest one. One draw is fast, and uniform; for wide integers, Hypothesis prefers values
near 0. Hypothesis also cannot vary a single draw by copying parts of it, which would use up five of six cases. Bytes
shrink one by one, to a case that a person can check.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from typing_extensions import override

from yololoss.harness.cases.case import Case as AnyCase
from yololoss.harness.cases.case import Dtype
from yololoss.harness.cases.domain import Choices, any_of, strategy
from yololoss.harness.cases.domain import Domain as AnyDomain
from yololoss.v5.hyp import Hyperparameters

from .case import Case, Layout, Options, Override, SeededLogits, TargetsDtype
from .regions import regions

Target = tuple[float, float, float, float, float, float]

# First-layer grids (rows, columns); deeper layers halve them, rounding up. Square, wide, tall, odd, single.
GRIDS = ((2, 2), (4, 4), (1, 1), (3, 5), (8, 8), (6, 2), (2, 7), (5, 5), (1, 4), (10, 6), (13, 13), (16, 12))
LAYERS = (1, 3, 2, 3, 4, 3, 5)
FIRST_STRIDES = (8.0, 16.0, 4.0)
BATCHES = (1, 2, 3)
CLASSES = (2, 1, 3, 5, 20)
ANCHORS = (1, 3, 2, 3, 5)
# Anchors' sides in cells: exact in every dtype, in none, tiny.
SIDES = (1.0, 2.0, 1.3, 3.75, 0.5, 4.125, 0.25, 1.7, 2.875, 6.1875, 0.06, 0.86297)
DTYPES: tuple[Dtype, ...] = ("float32", "float32", "float32", "float32", "float16", "bfloat16", "float64")
LAYOUTS: tuple[Layout, ...] = (
    "contiguous",
    "contiguous",
    "channels_last",
    "sliced",
    "transposed",
    "expanded",
)
TARGET_DTYPES: tuple[TargetsDtype, ...] = ("float32", "float32", "float32", "float64", "float16")
# (scale, offset) of the bulk logits: usual, all 0, wide, confident background, tiny boxes, saturated, narrow, and so
# large that an exponential overflows (in float16, three times as much is still finite, for positive weights).
LOGITS = ((4.0, 0.0), (0.0, 0.0), (8.0, 0.0), (2.0, -12.0), (1.0, -20.0), (60.0, 0.0), (1.0, 0.0), (16000.0, 0.0))
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
    Hyperparameters(fl_gamma=2.0, cls_pw=2.5, obj_pw=3.0),
    Hyperparameters(fl_gamma=0.2, label_smoothing=0.05),
    Hyperparameters(box=7.5, obj=4.0, cls=2.5),
    Hyperparameters(label_smoothing=0.15, cls_pw=1.7),
    Hyperparameters(anchor_t=3.3),  # float32 rounds it down, and 2.91 up
    Hyperparameters(anchor_t=8.0, fl_gamma=1.0),
    Hyperparameters(anchor_t=1.2, fl_gamma=3.0),
)
LIMITS = tuple(Hyperparameters(anchor_t=limit) for limit in (4.0, 3.3, 4.2, 2.91, 8.0, 1.2))
# Only laws about several calls get several calls. So a fault of the second call breaks one of these laws.
ONE_CALL = (
    Options(),
    Options(),
    Options(sort_obj_iou=True),
    Options(gr=0.5),
    Options(gr=0.0),
    Options(sort_obj_iou=True, gr=0.25),
)
AUTOBALANCED = (Options(autobalance=True, calls=2), Options(autobalance=True, sort_obj_iou=True, gr=0.7, calls=3))
ALL_OPTIONS = (*ONE_CALL, Options(calls=2), AUTOBALANCED[0])
ULPS = (0, 0, 0, 1, -1, 4, -4)
# A case that is large in one respect is small in all others.
LARGE = ("targets", "images", "classes", "anchors", "sides", "columns", "rows")
SMALL = ("specks",)
VERY_LARGE = ("cells", "crowd")  # sizes beyond 16 bits, or beyond float16; beyond 24 bits in total
# How often targets are repeated, and the step to the right of each repetition.
REPEATS, SHIFT = {"targets": 25, "cells": 50, "crowd": 300}, 0.0390625
# Sides of a target as multiples of its anchor's, as exponents of anchor_t and factors: a fit, inside the
# limit, at the limit both ways, beyond it both ways.
RATIOS = ((0, 1.0), (0, 1.5), (0, 0.4), (1, 1.0), (-1, 1.0), (0, 2.7), (1, 1.1), (-1, 0.9))
AT_EDGE = ((0, 1.0), (0, 1.0), (1, 1.0), (-1, 1.0))
# What replaces the logits of the cell and anchor that a target is drawn for. An exact fit also moves the target so that
# logits of 0 predict it without rounding: to the cell's centre, with the anchor's size.
SPOTS = (
    "nothing",
    "nothing",
    "nothing",
    "fit",
    "no size",
    "no height",
    "certain",
    "denied",
    "beyond certain",
    "beyond denied",
    "exact fit",
    "far off",
    "gone",
)
EXTREME = 60.0  # beyond it sigmoid is 0 or 1 in every dtype
BEYOND = 1e4
FAR_BEYOND = 1e6  # too large for float16


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


def _target(chunk: bytes, frame: Frame, earlier: Sequence[Drawn], crowded: bool) -> Drawn:
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
        column, line = _cell(*centre, (rows, columns))
        centre = ((column + 0.5) / columns, (line + 0.5) / rows)
        width, height = wide / columns, high / rows
    row = (float(image), float(cls), *centre, width, height)
    if earlier and copy == 4 and not crowded:  # a duplicate row
        return earlier[-1]
    if earlier and (copy == 5 or (crowded and copy > 0)):  # the same centre, another class and size
        first = earlier[-1].row
        row = (first[0], float(cls), first[2], first[3], width, height)
    return Drawn(row, layer, anchor, spot)


def _cell(x: float, y: float, grid: tuple[int, int]) -> tuple[int, int]:
    """Column and row of the cell that contains a centre; on the far edge, the last ones."""
    rows, columns = grid
    return min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)


def _spot(drawn: Drawn, frame: Frame, beyond: float) -> list[Override]:
    """Logits for the cell and anchor that a target is drawn for: a perfect fit, a box of size 0, saturation."""
    image, cls, x, y, w, h = drawn.row
    rows, columns = frame.grids[drawn.layer]
    at = _cell(x, y, frame.grids[drawn.layer])
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


def _frame(choose: Choices, hyp: Hyperparameters, domain: "Domain") -> Frame:
    rows, columns = choose.of(GRIDS)
    layers = range(choose.of(LAYERS))
    first, classes, anchors, batch, turn = (
        choose.of(FIRST_STRIDES),
        choose.of(domain.classes),
        choose.of(ANCHORS),
        choose.of(BATCHES),
        choose.index(len(SIDES)),
    )
    sides = tuple(
        tuple(
            (SIDES[(turn + 3 * i + 2 * a) % len(SIDES)], SIDES[(turn * 4 + 5 * i + 7 * a) % len(SIDES)])
            for a in range(anchors)
        )
        for i in layers
    )
    return Frame(
        batch=batch,
        classes=classes,
        grids=tuple((-(-rows // 2**i), -(-columns // 2**i)) for i in layers),
        strides=tuple(first * 2**i for i in layers),
        anchors=sides,
        anchor_t=hyp.anchor_t,
        exact=domain.exact,
        edges=domain.edges,
    )


def _enlarged(frame: Frame, what: str) -> Frame:
    """A small frame with one large part (for `VERY_LARGE`, several), more than a byte can count."""
    first = frame.anchors[0]
    small = frame._replace(batch=1, classes=2, grids=((2, 2),), strides=frame.strides[:1], anchors=(first[:1],))
    changed: dict[str, dict[str, Any]] = {
        "targets": {"grids": ((8, 8),), "anchors": (first,)},
        "images": {"batch": 300},
        "classes": {"classes": 300},
        "anchors": {"anchors": (tuple((w, h) for w in SIDES[:4] for h in SIDES[:3]),)},
        "sides": {"anchors": (((46.5, 31.0),),)},
        "specks": {"anchors": (((1e-4, 1.5e-4),),)},  # so small that the eps of CIoU matters
        "columns": {"grids": ((2, 300),)},
        "rows": {"grids": ((300, 2),)},
        "cells": {"batch": 3, "grids": ((131, 131),), "anchors": (tuple((w, 2.0) for w in SIDES[:3]),)},
        "crowd": {"grids": ((8, 8),), "anchors": (first,)},
    }
    return small._replace(**changed[what])


def _repeated(drawn: Sequence[Drawn], times: int) -> list[Drawn]:
    """The targets repeated, each time a step to the right; beyond the right edge they continue at the left edge."""
    rows = [(d, d.row[2] + SHIFT * n) for n in range(times) for d in drawn]
    return [d._replace(row=(*d.row[:2], x % 1.0 if x > 1 else x, *d.row[3:])) for d, x in rows]


FRAME, CHUNK = 17, 13  # bytes


@dataclass(frozen=True)
class Domain(AnyDomain):
    """The valid cases that a law applies to, as data: makes a case from bytes, and checks whether a case belongs here.

    ``exact``: centres are odd multiples of 1/512. They lie on no grid line or half cell of any grid here, and float32
    scales and mirrors them exactly, so rounding does not disturb the laws about symmetry. ``crowded``: most targets
    have the centre of an earlier target, with another class and size. ``edges``: all centres lie on grid lines and half
    cells, or a few ulps away, and all sizes fit an anchor or are at the limit. ``large``: one of these names of
    `LARGE`, `VERY_LARGE` or `SMALL` is large (or small) in each case.

    A case shrinks to the first entry of each tuple.
    """

    min_targets: int = 0
    max_targets: int = 6
    dtypes: tuple[Dtype, ...] = DTYPES
    layouts: tuple[Layout, ...] = LAYOUTS
    hyps: tuple[Hyperparameters, ...] = HYPS
    options: tuple[Options, ...] = ONE_CALL
    target_dtypes: tuple[TargetsDtype, ...] = TARGET_DTYPES
    logits: tuple[tuple[float, float], ...] = LOGITS
    spots: bool = True
    exact: bool = False
    classes: tuple[int, ...] = CLASSES
    crowded: bool = False
    edges: bool = False
    large: tuple[str, ...] = ()

    @property
    @override
    def size(self) -> int:
        return FRAME + CHUNK * self.max_targets

    @property
    @override
    def only_own(self) -> bool:
        return bool(self.large)

    @override
    def regions(self, case: Any) -> list[str]:
        return regions(case)

    @override
    def case(self, data: bytes) -> Case:
        choose = Choices(data)
        least, most = self.min_targets, self.max_targets
        count, hyp = least + choose.index(most - least + 1), choose.of(self.hyps)
        frame = _frame(choose, hyp, self)
        what = choose.of(self.large or ("",))
        if self.large:
            frame = _enlarged(frame, what)
        chunks = [data[i : i + CHUNK] for i in range(FRAME, FRAME + CHUNK * count, CHUNK)]
        # A target whose first byte is 0 is left out, so shrinking can remove every target, not only the last.
        chunks.sort(key=lambda chunk: chunk[0] == 0)
        drawn: list[Drawn] = []
        for i, chunk in enumerate(chunks):
            if i < least or chunk[0] > 0:
                drawn.append(_target(chunk, frame, drawn, self.crowded))
        spots = [each for each in drawn if self.spots and each.spot != "nothing"]
        if what in REPEATS:
            drawn = _repeated(drawn, REPEATS[what])
        scale, offset = choose.of(self.logits)
        chosen = choose.of(self.options)
        strides = frame.strides
        if chosen.autobalance and 16.0 not in strides:
            strides = tuple(s * 16 / strides[0] for s in strides)
        dtype = choose.of(self.dtypes)
        beyond = BEYOND if dtype == "float16" else FAR_BEYOND
        overrides = tuple(override for each in spots for override in _spot(each, frame, beyond))
        return Case(
            batch=frame.batch,
            classes=frame.classes,
            grids=frame.grids,
            strides=strides,
            anchors=frame.anchors,
            targets=tuple(d.row for d in drawn),
            dtype=dtype,
            layout=choose.of(self.layouts),
            targets_dtype=choose.of(self.target_dtypes),
            hyp=hyp,
            options=chosen,
            predictions=SeededLogits(seed=choose.wide(), scale=scale, offset=offset, overrides=overrides),
        )

    @override
    def holds(self, case: AnyCase) -> bool:
        """Whether a case of another domain also belongs to this one. A large case belongs to no other domain."""
        if not isinstance(case, Case):
            return False
        made = case.predictions
        return (
            isinstance(made, SeededLogits)
            and not self.large
            and self.min_targets <= len(case.targets) <= self.max_targets
            and case.batch in BATCHES
            and case.classes in self.classes
            and case.grids[0] in GRIDS
            and len(case.anchors[0]) in ANCHORS
            and case.anchors[0][0][0] in SIDES
            and case.dtype in self.dtypes
            and case.layout in self.layouts
            and case.hyp in self.hyps
            and case.options in self.options
            and case.targets_dtype in self.target_dtypes
            and (made.scale, made.offset) in self.logits
            and (self.spots or not made.overrides)
            and (not self.exact or all(_is_exact(v) for t in case.targets for v in t[2:4]))
        )


def _is_exact(centre: float) -> bool:
    return (centre * 512) % 2 == 1


def cases(**narrowing: Any) -> st.SearchStrategy[Case]:
    """Valid cases, in which every region of `regions` is common. The arguments, those of `Domain`, narrow them."""
    listed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, Sequence) else value for name, value in narrowing.items()
    }
    return strategy(Domain(**listed))


ANY = cases(options=ALL_OPTIONS)  # for laws about everything that a loss may be asked for
# Where a loss raises, all other laws have nothing to judge, so the law about that sees every kind of case.
EVERY_KIND = any_of(
    ANY,
    cases(crowded=True, min_targets=2, options=ALL_OPTIONS),
    cases(large=LARGE, min_targets=1),
    cases(options=AUTOBALANCED, logits=((4.0, 0.0), (1.0, -20.0))),
)
CROWDED = cases(crowded=True, min_targets=2, options=ALL_OPTIONS)
WITH_TARGETS = cases(min_targets=1, options=ALL_OPTIONS)
