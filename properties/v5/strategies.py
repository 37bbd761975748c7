"""Strategies for cases: inputs in which the situations where losses go wrong are common, not rare.

A case is one byte string of fixed length (`harness.cases.domain` says why): `FRAME` bytes for the structure, then
`CHUNK` bytes per target. Each byte is a choice, and 0 is the simplest one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hypothesis import strategies as st
from typing_extensions import override

from yololoss.harness.cases.case import Case as AnyCase
from yololoss.harness.cases.case import Dtype
from yololoss.harness.cases.domain import Choices, any_of, strategy
from yololoss.harness.cases.domain import Domain as AnyDomain
from yololoss.v5.hyp import Hyperparameters

from .case import Case, Layout, Options, SeededLogits, TargetsDtype
from .dialects import Dialect
from .pools import (
    ALL_OPTIONS,
    ANCHORS,
    AUTOBALANCED,
    BATCHES,
    BEYOND,
    CLASSES,
    COUNTED,
    DTYPES,
    FAR_BEYOND,
    FIRST_STRIDES,
    GRIDS,
    HYPS,
    LARGE,
    LAYERS,
    LAYOUTS,
    LOGITS,
    ONE_CALL,
    REPEATS,
    SHIFT,
    SIDES,
    TARGET_DTYPES,
    VERY_LARGE,
)
from .regions import regions
from .targets import Drawn, Frame, spot_of, target_of


def _frame(choose: Choices, hyp: Hyperparameters, domain: "Domain") -> Frame:
    rows, columns = choose.of(GRIDS)
    layers = range(choose.of(domain.layers))
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


def _enlarged(frame: Frame, what: str, domain: "Domain") -> Frame:
    """A small frame with one large part (for `VERY_LARGE`, several), more than a byte can count."""
    first = frame.anchors[0]
    classes = 2 if 2 in domain.classes else frame.classes
    small = frame._replace(batch=1, classes=classes, grids=((2, 2),), strides=frame.strides[:1], anchors=(first[:1],))
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
        "thousands of images": {"batch": 4100},
        "thousands of classes": {"classes": 4100},
        "thousands of columns": {"grids": ((2, 4100),)},
        "thousands of rows": {"grids": ((4100, 2),)},
    }
    return small._replace(**changed[what])


def _repeated(drawn: Sequence[Drawn], what: str) -> list[Drawn]:
    """The targets repeated, each time a step to the right, or down; beyond the edge they go on at the other edge."""
    found = []
    for n in range(REPEATS[what]):
        for each in drawn:
            image, cls, x, y, w, h = each.row
            x, y = (x, _stepped(y, n)) if what == "rows" else (_stepped(x, n), y)
            found.append(each._replace(row=(image, cls, x, y, w, h)))
    return found


def _last(drawn: Sequence[Drawn], column: int, frame: Frame) -> Iterator[Drawn]:
    """The targets, each with another of the last odd images, classes, columns or rows: float16 has only even ones."""
    rows, columns = frame.grids[0]
    count = (frame.batch, frame.classes, columns, rows)[column]
    for n, each in enumerate(drawn):
        row = list(each.row)
        last = count - 1.0 - 2 * n
        row[column] = last if column < CENTRE else (last + row[column] * count % 1) / count
        yield each._replace(row=tuple(row))  # type: ignore[arg-type]  # six numbers


def _one_fits(drawn: Sequence[Drawn], frame: Frame) -> list[Drawn]:
    """The targets, the first with the sides of the first anchor, so that it has rows."""
    (rows, columns), (w, h) = frame.grids[0], frame.anchors[0][0]
    first = drawn[0]
    return [first._replace(row=(*first.row[:4], w / columns, h / rows)), *drawn[1:]]


def _stepped(centre: float, steps: int) -> float:
    moved = centre + SHIFT * steps
    return moved % 1.0 if moved > 1 else moved


CENTRE = 2  # the column of targets that x is in
FRAME, CHUNK = 18, 13  # bytes
FEW = 6  # targets at most in every second case; in the others as many as there may be: they cost no more time


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
    max_targets: int = 24
    dtypes: tuple[Dtype, ...] = DTYPES
    layouts: tuple[Layout, ...] = LAYOUTS
    hyps: tuple[Hyperparameters, ...] = HYPS
    options: tuple[Options, ...] = ONE_CALL
    target_dtypes: tuple[TargetsDtype, ...] = TARGET_DTYPES
    logits: tuple[tuple[float, float], ...] = LOGITS
    spots: bool = True
    exact: bool = False
    classes: tuple[int, ...] = CLASSES
    layers: tuple[int, ...] = LAYERS
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
    def narrowed(self, dialect: Dialect) -> "Domain | None":
        classes, layers = dialect.only_classes, dialect.layers
        large = tuple(what for what in self.large if not (classes and "classes" in what))
        other_classes = classes and classes not in self.classes and self.classes != CLASSES
        if other_classes or (self.large and (layers or not large)):
            return None
        classes_left = (classes,) if classes else self.classes
        return replace(self, classes=classes_left, layers=(layers,) if layers else self.layers, large=large)

    @override
    def regions(self, case: Any) -> list[str]:
        return regions(case)

    @override
    def case(self, data: bytes) -> Case:
        choose = Choices(data)
        least, most = self.min_targets, choose.of((min(FEW, self.max_targets), self.max_targets))
        count, hyp = least + choose.index(most - least + 1), choose.of(self.hyps)
        frame = _frame(choose, hyp, self)
        what = choose.of(self.large or ("",))
        if self.large:
            frame = _enlarged(frame, what, self)
        chunks = [data[i : i + CHUNK] for i in range(FRAME, FRAME + CHUNK * count, CHUNK)]
        # A target whose first byte is 0 is left out, so shrinking can remove every target, not only the last.
        chunks.sort(key=lambda chunk: chunk[0] == 0)
        drawn: list[Drawn] = []
        for i, chunk in enumerate(chunks):
            if i < least or chunk[0] > 0:
                drawn.append(target_of(chunk, frame, drawn, self.crowded))
        spots = [each for each in drawn if self.spots and each.spot != "nothing"]
        if what in VERY_LARGE:
            drawn = _one_fits(drawn, frame)
        if what in REPEATS:
            drawn = _repeated(drawn, what)
        if what in COUNTED:
            drawn = [*_last(drawn, COUNTED[what], frame)]
        scale, offset = choose.of(self.logits)
        chosen = choose.of(self.options)
        strides = frame.strides
        if chosen.autobalance and 16.0 not in strides:
            strides = tuple(s * 16 / strides[0] for s in strides)
        dtype = choose.of(self.dtypes)
        beyond = BEYOND if dtype == "float16" else FAR_BEYOND
        overrides = tuple(override for each in spots for override in spot_of(each, frame, beyond))
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
        return (  # what differs most often comes first
            not self.large
            and isinstance(made, SeededLogits)
            and (self.spots or not made.overrides)
            and case.options in self._known_options
            and (made.scale, made.offset) in self.logits
            and case.hyp in self._known_hyps
            and case.dtype in self.dtypes
            and case.layout in self.layouts
            and self.min_targets <= len(case.targets) <= self.max_targets
            and case.classes in self.classes
            and case.layers in self.layers
            and case.targets_dtype in self.target_dtypes
            and case.batch in BATCHES
            and case.grids[0] in GRIDS
            and len(case.anchors[0]) in ANCHORS
            and case.anchors[0][0][0] in SIDES
            and (not self.exact or all(_is_exact(v) for t in case.targets for v in t[2:4]))
        )

    # Looked up by hash: a comparison of two models, field by field, takes longer than all else.
    @cached_property
    def _known_options(self) -> frozenset[Options]:
        return frozenset(self.options)

    @cached_property
    def _known_hyps(self) -> frozenset[Hyperparameters]:
        return frozenset(self.hyps)


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
# Usual sizes, and nothing on a limit: for laws that run a loss many times, and for what is compiled.
USUAL = Case(
    batch=2,
    classes=3,
    grids=((8, 6), (4, 3), (2, 2)),
    strides=(8.0, 16.0, 32.0),
    anchors=(((1.25, 1.6), (2.0, 3.75)), ((1.9, 3.8), (3.9, 2.8)), ((3.6, 2.8), (4.9, 6.2))),
    targets=((0, 1, 0.5, 0.5, 0.3, 0.4), (1, 0, 0.2, 0.3, 0.2, 0.2), (1, 2, 0.21, 0.31, 0.2, 0.2)),
    predictions=SeededLogits(seed=1),
)
