"""Strategies for cases: inputs in which the situations where assigners go wrong are common, not rare.

A case is one byte string of fixed length (`harness.cases.domain` says why): `FRAME` bytes for the structure, then
`CHUNK` bytes per target. Each byte is a choice, and 0 is the simplest one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hypothesis import strategies as st
from typing_extensions import override

from yololoss.harness.cases.case import Case as AnyCase
from yololoss.harness.cases.case import Dtype
from yololoss.harness.cases.domain import Choices, any_of, strategy
from yololoss.harness.cases.domain import Domain as AnyDomain

from .case import Case, Form, Gains, Head, Layout, SeededLogits, TargetsDtype
from .dialects import Dialect

FRAME, CHUNK = 24, 8  # bytes
FEW = 4  # targets at most in every second case

GRIDS = ((4, 4), (4, 8), (3, 5), (8, 4), (6, 4), (5, 5), (2, 4), (6, 6), (2, 2), (1, 1), (1, 4), (8, 2))
FIRST_STRIDES = (8.0, 4.0, 16.0, 32.0, 10.0, 7.0)
POWERS = FIRST_STRIDES[:4]  # by which float32 multiplies exactly
LEVELS = (1, 2, 3, 4)
CLASSES = (3, 1, 2, 5, 20)
BATCHES = (1, 2, 3)
BINS = (4, 16, 1, 8, 2)
TOPKS = (None, 3, 1, 2, 5, 13)
TOPKS2 = (None, None, 1, 2)
HEADS = tuple(
    Head(name=name, updates=updates, epochs=epochs)
    for updates, epochs in ((0, 100), (3, 8), (9, 10), (1, 1))  # the weights: first, equal, last, last at once
    for name in ("one2one", "one2many")
)
GAINS = (Gains(), Gains(box=3.0, cls=1.25, dfl=0.5), Gains(box=0.05, cls=0.5, dfl=2.0))
TARGET_DTYPES: tuple[TargetsDtype, ...] = ("float32", "float32", "float32", "float64", "float16")
DTYPES: tuple[Dtype, ...] = ("float32", "float32", "float64", "float16", "bfloat16")
SCALES = (1.0, 0.5, 2.0, 0.125)
SHARP = (1.5, 3.0, 0.5, 8.0)
CLASS_LOGITS = ((2.0, -2.0), (1.0, 0.0), (4.0, 1.0), (2.0, -6.0), (30.0, 0.0), (0.0, -2.0))
USUAL_CLASS_LOGITS = CLASS_LOGITS[:4]
WEIGHTS = (0.5, 2.5, 1.0, 4.0, 0.25)
# Where the anchors' boxes are: around targets, of some size, or anywhere.
AIMS = ("aim", "peak", "nothing", "large")
# What is particular about a target.
SPOTS = ("any", "fine", "small", "border", "on anchors", "same centre", "same box", "whole", "at threshold", "tiny")
CROWDED = ("same centre", "any", "same centre", "any", "same box")
EXACT = ("at threshold", "on anchors")  # where float32 is exact if the grid has a power of two of cells
SIMPLE = ("any", "fine", "border", "whole", "same centre")


class Frame(NamedTuple):
    """What the targets of a case are drawn for."""

    batch: int
    classes: int
    grids: tuple[tuple[int, int], ...]
    strides: tuple[float, ...]
    sides: tuple[float, float]  # width and height of the image in pixels

    @property
    def second(self) -> float:
        """The small side of most dialects: the second stride, or the only one."""
        return self.strides[min(1, len(self.strides) - 1)]

    @property
    def rounds(self) -> bool:
        """Whether a cell is no exact share of the image."""
        return any(cells & (cells - 1) for cells in self.grids[0])


Row = tuple[float, float, float, float, float, float]


def _frame(choose: Choices, domain: "Domain") -> Frame:
    rows, columns = choose.of(domain.grids)
    levels, first = range(choose.of(domain.levels)), choose.of(domain.first_strides)
    grids = tuple((-(-rows // 2**i), -(-columns // 2**i)) for i in levels)
    return Frame(
        classes=choose.of(domain.classes),
        batch=choose.of(BATCHES),
        grids=grids,
        strides=tuple(first * 2**i for i in levels),
        sides=(columns * first, rows * first),
    )


def _target(data: bytes, frame: Frame, drawn: Sequence[Row], spots: Sequence[str]) -> Row:
    """A target made of `CHUNK` bytes; the first byte says whether it is there at all."""
    choose = Choices(data[1:])
    spot, cls, image = choose.of(spots), choose.index(frame.classes), choose.index(frame.batch)
    x, y, w, h = (choose.index(256) for _ in range(4))
    # few bits, so that float32 computes edges exactly
    row = (image, cls, (x + 0.5) / 256, (y + 0.5) / 256, (16 + w * 7 / 8) / 256, (16 + h * 7 / 8) / 256)
    return _placed(row, spot, (x, y, w, h), frame, drawn)


def _placed(row: Row, spot: str, chosen: tuple[int, ...], frame: Frame, drawn: Sequence[Row]) -> Row:
    image, cls, *box = row
    if spot in BOXES and not (spot in EXACT and frame.rounds):
        x, y, w, h = BOXES[spot](chosen, frame, tuple(box))
        return image, cls, x, y, w, h
    if spot not in ("same centre", "same box") or not drawn:
        return row
    before = drawn[chosen[0] % len(drawn)]
    w, h = before[4:] if spot == "same box" else row[4:]
    return before[0], cls, before[2], before[3], w, h


def _sized(chosen: tuple[float, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """The box with these sides in pixels, at most the image's."""
    return [*box[:2], *(min(side / whole, 1.0) for side, whole in zip(chosen, frame.sides, strict=True))]


def _small(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """Sides up to the small side, in steps of a sixteenth."""
    return _sized(tuple((1 + n % 16) / 16 * frame.second for n in chosen[2:]), frame, box)


def _at_threshold(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """Each side is the first stride or the second."""
    return _sized(tuple((frame.strides[0], frame.second)[n % 2] for n in chosen[2:]), frame, box)


def _tiny(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """Sides of a pixel or less."""
    return _sized(tuple((1 + n % 8) / 8 for n in chosen[2:]), frame, box)


def _border(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """The centre is on the edge of the image, or in its corner, where a dialect drops the target."""
    centre = [(0.0, 1.0, place, 1 / 256)[n % 4] for n, place in zip(chosen[:2], box[:2], strict=True)]
    return [*centre, *box[2:]]


def _on_anchors(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """Edges run through anchor points of the first level."""
    starts, sizes = [n % 4 + 0.5 for n in chosen[:2]], [1.0 + n % 4 for n in chosen[2:]]
    cells = [whole / frame.strides[0] for whole in frame.sides]
    centres = [min((start + size / 2) / whole, 1.0) for start, size, whole in zip(starts, sizes, cells, strict=True)]
    return [*centres, *(size / whole for size, whole in zip(sizes, cells, strict=True))]


def _fine(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """Coordinates with as many bits as float32 has."""
    return [place * (1 - (n + 1) / 2**17) for place, n in zip(box, chosen, strict=True)]


def _whole(chosen: tuple[int, ...], frame: Frame, box: tuple[float, ...]) -> list[float]:
    """The whole image, or more of it in height."""
    return [0.5, 0.5, 1.0, 1.0 + (chosen[0] % 2) / 2]


BOXES = {
    "fine": _fine,
    "small": _small,
    "at threshold": _at_threshold,
    "tiny": _tiny,
    "border": _border,
    "on anchors": _on_anchors,
    "whole": _whole,
}


def _logits(choose: Choices, domain: "Domain", frame: Frame) -> SeededLogits:
    seed, aim, turn = choose.wide(), choose.of(domain.aims), choose.index(8)
    scale, sharp, (cls_scale, cls_offset) = choose.of(domain.scales), choose.of(SHARP), choose.of(domain.class_logits)
    if domain.ties:
        scale = cls_scale = 0.0
    sizes = (1.0, 0.75, 1.5, 2.25, 0.5, 1.25, 3.0, 0.875)
    factor = 4.0 if aim == "large" else 1.0
    peak = tuple(
        tuple(factor * sizes[(turn * (side + 1) + i + side) % 8] for side in range(4)) for i in range(len(frame.grids))
    )
    return SeededLogits(
        seed=seed,
        box_scale=scale,
        cls_scale=cls_scale,
        cls_offset=cls_offset,
        peak=peak if aim in ("peak", "large") else None,  # type: ignore[arg-type]  # of four sides
        sharp=sharp,
        aim=aim == "aim",
    )


@dataclass(frozen=True)
class Domain(AnyDomain):
    """The valid cases that a law applies to, as data: makes a case from bytes, and checks whether a case belongs here.

    ``spots``: what is particular about targets. ``ties``: all anchors have the same logits, but for ``aims``. A case
    shrinks to the first entry of each tuple.
    """

    min_targets: int = 0
    max_targets: int = 12
    spots: tuple[str, ...] = SPOTS
    dtypes: tuple[Dtype, ...] = DTYPES
    target_dtypes: tuple[TargetsDtype, ...] = TARGET_DTYPES
    forms: tuple[Form, ...] = ("levels", "mapping")
    layouts: tuple[Layout, ...] = ("contiguous", "channels_last")
    grids: tuple[tuple[int, int], ...] = GRIDS
    levels: tuple[int, ...] = LEVELS
    classes: tuple[int, ...] = CLASSES
    bins: tuple[int, ...] = BINS
    topks: tuple[int | None, ...] = TOPKS
    topks2: tuple[int | None, ...] = TOPKS2
    heads: tuple[Head | None, ...] = (None,)
    first_strides: tuple[float, ...] = FIRST_STRIDES
    scales: tuple[float, ...] = SCALES
    class_logits: tuple[tuple[float, float], ...] = CLASS_LOGITS
    aims: tuple[str, ...] = AIMS
    ties: bool = False

    @property
    def frame(self) -> int:
        """The bytes for the structure: one more for a loss with two heads, so that other losses keep their cases."""
        return FRAME + (len(self.heads) > 1)

    @property
    @override
    def size(self) -> int:
        return self.frame + CHUNK * self.max_targets

    @override
    def narrowed(self, dialect: Dialect) -> "Domain":
        return self if dialect.heads == "one" else replace(self, topks=(None,), topks2=(None,), heads=HEADS)

    @override
    def case(self, data: bytes) -> Case:
        choose = Choices(data[: self.frame])
        least, most = self.min_targets, choose.of((min(FEW, self.max_targets), self.max_targets))
        count, frame = least + choose.index(most - least + 1), _frame(choose, self)
        topk, topk2 = choose.of(self.topks), choose.of(self.topks2)
        weights = WEIGHTS if choose.index(4) == 3 else ()
        return Case(
            batch=frame.batch,
            classes=frame.classes,
            reg_max=choose.of(self.bins),
            grids=frame.grids,
            strides=frame.strides,
            dtype=choose.of(self.dtypes),
            form=choose.of(self.forms),
            layout=choose.of(self.layouts),
            topk=topk,
            topk2=topk2,
            gains=choose.of(GAINS),
            class_weights=tuple(WEIGHTS[c % len(weights)] for c in range(frame.classes)) if weights else None,
            predictions=_logits(choose, self, frame),
            targets_dtype=choose.of(self.target_dtypes),
            targets=self._targets(data[self.frame :], count, frame, in_order=choose.index(4) < 3),
            head=choose.of(self.heads) if len(self.heads) > 1 else self.heads[0],
        )

    def _targets(self, data: bytes, count: int, frame: Frame, *, in_order: bool) -> tuple[Row, ...]:
        chunks = [data[i : i + CHUNK] for i in range(0, CHUNK * count, CHUNK)]
        # A target whose first byte is 0 is left out, so shrinking can remove every target, not only the last.
        chunks.sort(key=lambda chunk: chunk[0] == 0)
        drawn: list[Row] = []
        for i, chunk in enumerate(chunks):
            if i < self.min_targets or chunk[0] > 0:
                drawn.append(_target(chunk, frame, drawn, self.spots))
        return tuple(sorted(drawn, key=lambda row: row[0]) if in_order else drawn)

    @override
    def holds(self, case: AnyCase) -> bool:
        """Whether a case of another domain also belongs to this one."""
        if not isinstance(case, Case) or not isinstance(case.predictions, SeededLogits):
            return False
        made = case.predictions
        return (
            self.min_targets <= len(case.targets) <= self.max_targets
            and case.dtype in self.dtypes
            and case.targets_dtype in self.target_dtypes
            and case.grids[0] in self.grids
            and case.levels in self.levels
            and case.strides[0] in self.first_strides
            and case.form in self.forms
            and case.layout in self.layouts
            and case.reg_max in self.bins
            and case.classes in self.classes
            and case.topk2 in self.topks2
            and case.head in self.heads
            and (self.ties == (made.box_scale == made.cls_scale == 0))
            and (self.ties or (made.cls_scale, made.cls_offset) in self.class_logits)
            and (self.ties or made.box_scale in self.scales)
            and (("aim" if made.aim else "peak" if made.peak else "nothing") in self.aims)
        )


def cases(**narrowing: Any) -> st.SearchStrategy[Case]:
    """Valid cases. The arguments, those of `Domain`, narrow them."""
    return strategy(Domain(**narrowing))


ANY = cases()
WITH_TARGETS = cases(min_targets=1)
CROWD = cases(min_targets=2, spots=CROWDED, aims=("aim", "peak"))
TIES = cases(min_targets=1, ties=True)
EVERY_KIND = any_of(ANY, CROWD, TIES)
# Terms, and sums of them, that float16 cannot hold: its largest number is 65,504 (SPEC 9).
HUGE = cases(
    min_targets=1,
    max_targets=4,
    dtypes=("float16", "float16", "float32", "bfloat16"),
    grids=((8, 4), (6, 6)),
    levels=(2, 3, 4),
    classes=(20, 3),
    bins=(4, 1),
    scales=(40000.0, 1.0),
    class_logits=((2.0, -2.0), (8.0, 60.0)),
    aims=("aim", "nothing"),
)
WITH_HUGE = any_of(EVERY_KIND, HUGE)
# On which two correct losses agree.
STANDARD = cases(spots=SIMPLE, aims=("aim", "peak"), class_logits=USUAL_CLASS_LOGITS)
# On which losses of different dialects differ: small sides, contested anchors, more candidates than top-k.
CASES_OF_CHOICES = Domain(
    min_targets=2,
    max_targets=5,
    spots=("any", "small", "same centre"),
    dtypes=("float32",),
    aims=("aim", "peak"),
    class_logits=USUAL_CLASS_LOGITS[:2],
    levels=(2, 3),
    bins=(4, 1),
    grids=GRIDS[:4],
)
# On which anchors are contested by targets that did not all take them.
CASES_OF_CONTEST = Domain(
    min_targets=2,
    max_targets=4,
    spots=("same centre", "any"),
    dtypes=("float32",),
    aims=("aim", "peak"),
    levels=(1, 2),
    bins=(4,),
    grids=GRIDS[:2],
)
# Usual sizes, and nothing on a limit: for laws that run a loss many times.
USUAL = Case(
    batch=2,
    classes=3,
    reg_max=8,
    grids=((6, 4), (3, 2)),
    strides=(8.0, 16.0),
    targets=((0, 1, 0.5, 0.5, 0.75, 0.5), (1, 0, 0.3125, 0.40625, 0.5, 0.75), (1, 2, 0.625, 0.6875, 0.625, 0.5)),
    predictions=SeededLogits(seed=1, aim=True),
)


def _spread(k: int) -> tuple[float, float, float, float]:
    """The k-th of many boxes: neither their edges nor their sides are alike."""
    x, y, w, h = (k * math.sqrt(n) % 1 for n in (2, 3, 5, 7))
    return 0.1 + 0.8 * x, 0.1 + 0.8 * y, 0.05 + 0.2 * w, 0.05 + 0.2 * h


# More pairs of a target and an anchor than a loss may look at together: 40 x 8,400, at the size of usual images.
MANY = USUAL.changed(
    classes=2,
    reg_max=1,
    grids=((80, 80), (40, 40), (20, 20)),
    strides=(8.0, 16.0, 32.0),
    targets=tuple((float(k // 20), float(k % 2), *_spread(k + 1)) for k in range(40)),
    predictions=SeededLogits(seed=1, peak=tuple(4 * (cells,) for cells in (5.0, 3.0, 2.0))),
)
