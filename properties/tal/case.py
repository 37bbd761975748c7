"""A case of the task-aligned loss: one call, complete, as data."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self, override

from yololoss.harness.cases.case import DTYPES, Count, Data, Dtype, Finite, Index, Number, Positive
from yololoss.harness.cases.case import Case as AnyCase

from ..shared.noise import noise
from ..shared.steps import not_finite
from ..shared.tables import target_table
from .packed import PackedLogits

SIDES = 4  # left, top, right, bottom
LARGEST = 2**27  # most logits of a case
LEVELS = 64  # most levels; no detector has ten
PAIRS = 2**24  # most pairs of a target and an anchor
Form = Literal["levels", "mapping"]
Layout = Literal["contiguous", "channels_last"]
TargetsDtype = Literal["float16", "float32", "float64"]
Reals = NDArray[np.float64]


class Override(Data):
    """One logit that is set by hand: its level, its flat C-order index in the level's tensor, and its value."""

    level: Index
    at: Index
    value: Number


class SeededLogits(Data):
    """Logits by a formula, in float64, then cast to the case's dtype.

    n: `properties.shared.noise` of the seed, the level, and the flat index in the level's tensor. A class channel is
    n cls_scale + cls_offset. A box channel is n box_scale + box_offset, and - sharp |bin - peak| if R > 1, + peak if
    R = 1. ``peak``: a distance in cells for each level and side; with ``aim`` instead that of the anchor to the side of
    a target: of the (j mod n)-th of the n targets of its image, for the j-th anchor of its level. It is then cut off at
    0 and R - 1 if R > 1. Last, ``overrides`` set single logits.
    """

    kind: Literal["seed"] = "seed"
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    box_scale: Finite = 1.0
    box_offset: Finite = 0.0
    cls_scale: Finite = 2.0
    cls_offset: Finite = -2.0
    peak: tuple[tuple[Finite, Finite, Finite, Finite], ...] | None = None
    sharp: Finite = 1.5
    aim: bool = False
    overrides: tuple[Override, ...] = ()

    def level(self, level: int, case: "Case") -> Reals:
        """The logits of a level, (B, 4 R + C, H, W)."""
        shape, bins = case.shape(level), case.reg_max
        n = noise(self.seed, level, math.prod(shape)).reshape(shape)
        box = n[:, : SIDES * bins] * self.box_scale + self.box_offset + self._bump(level, case)
        logits = np.concatenate((box, n[:, SIDES * bins :] * self.cls_scale + self.cls_offset), axis=1)
        for each in self.overrides:
            if each.level == level:
                logits.reshape(-1)[each.at] = each.value
        return logits

    def _bump(self, level: int, case: "Case") -> Reals:
        """What the peak adds to the box channels, (B or 1, 4 R, H or 1, W or 1)."""
        if not self.aim and self.peak is None:
            return np.zeros((1, 1, 1, 1))
        bins = case.reg_max
        peak = aimed(case, level) if self.aim else np.array((self.peak or ())[level]).reshape(1, SIDES, 1, 1)
        if bins == 1:
            return np.asarray(peak, dtype=np.float64)
        away = abs(np.arange(bins)[:, None, None] - np.clip(peak, 0, bins - 1)[:, :, None])
        return np.asarray(-self.sharp * away.reshape(len(peak), SIDES * bins, *peak.shape[2:]))


class GivenLogits(Data):
    """Every logit, as a flat C-order list for each level."""

    kind: Literal["values"] = "values"
    layers: tuple[tuple[Number, ...], ...]

    def level(self, level: int, case: "Case") -> Reals:
        """The logits of a level, (B, 4 R + C, H, W)."""
        return np.array(self.layers[level], dtype=np.float64).reshape(case.shape(level))


Logits = Annotated[SeededLogits | GivenLogits | PackedLogits, Field(discriminator="kind")]


class Gains(Data):
    """The factors of the three terms."""

    box: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 7.5
    cls: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    dfl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5

    @property
    def values(self) -> tuple[float, float, float]:
        """In the order of the items."""
        return self.box, self.cls, self.dfl


class Head(Data):
    """Of a loss with two heads (SPEC 8): the one that has the case's predictions.

    ``updates``: how often ``update`` was called before, in a training of so many ``epochs``.
    """

    name: Literal["one2many", "one2one"] = "one2one"
    updates: Index = 0
    epochs: Count = 100


class Case(AnyCase):
    """One call of a task-aligned loss, complete: enough to make its tensors, its model and its options.

    ``targets``: rows of image, class, x, y, w, h, the last four as fractions of the image. They may have any values,
    since invalid targets are cases too. ``reg_max``: R, the bins of a side. ``strides``: pixels per cell. ``form``: the
    predictions as a list of levels, or as a mapping of boxes, scores and feats. ``topk``, ``topk2``: None for those
    that the loss has by itself. ``head``: for a loss with two heads, the one that has these predictions. Raises
    ``pydantic.ValidationError`` if the parts do not fit together.
    """

    family: ClassVar[str] = "tal"
    batch: Count
    classes: Count
    reg_max: Count = 16
    grids: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1, max_length=LEVELS)]  # rows, columns
    strides: tuple[Positive, ...]
    targets: tuple[tuple[Number, Number, Number, Number, Number, Number], ...]
    dtype: Dtype = "float32"
    targets_dtype: TargetsDtype = "float32"
    form: Form = "levels"
    layout: Layout = "contiguous"
    topk: Count | None = None
    topk2: Count | None = None
    gains: Gains = Gains()
    class_weights: tuple[Finite, ...] | None = None
    head: Head | None = None
    predictions: Logits

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        levels = len(self.grids)
        if len(self.strides) != levels:
            raise ValueError(f"grids, strides: expected one entry per level, got {levels}, {len(self.strides)}")
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise ValueError(f"class_weights: expected {self.classes} numbers, got {len(self.class_weights)}")
        if self.numbers > LARGEST:
            raise ValueError(f"batch, grids, classes, reg_max: {self.numbers} logits, expected {LARGEST} at most")
        if len(self.targets) * self.anchors > PAIRS:
            raise ValueError(f"targets: {len(self.targets) * self.anchors} pairs with an anchor, expected {PAIRS}")
        self._logits_fill(levels)
        return self

    def _logits_fill(self, levels: int) -> None:
        """Raise ValueError if the predictions do not fit the shapes of the levels."""
        made, sizes = self.predictions, [math.prod(self.shape(i)) for i in range(levels)]
        if isinstance(made, GivenLogits):
            given = [len(values) for values in made.layers]
            if given != sizes:
                raise ValueError(f"predictions: levels of {given} values do not fill {sizes}")
            return
        if isinstance(made, PackedLogits):
            if len(made.levels) != levels:
                raise ValueError(f"predictions: expected {levels} levels, got {len(made.levels)}")
            for n in range(levels):
                made.level(n, self)
            return
        if made.peak is not None and len(made.peak) != levels:
            raise ValueError(f"predictions.peak: expected one entry per level, got {len(made.peak)}")
        if any(o.level >= levels or o.at >= sizes[o.level] for o in made.overrides):
            raise ValueError("predictions.overrides: outside their level")

    @property
    def levels(self) -> int:
        """The number of detection levels."""
        return len(self.grids)

    @property
    def channels(self) -> int:
        """4 R + C."""
        return SIDES * self.reg_max + self.classes

    @property
    def anchors(self) -> int:
        """The anchors of all levels."""
        return sum(rows * columns for rows, columns in self.grids)

    def shape(self, level: int) -> tuple[int, int, int, int]:
        """(B, 4 R + C, H, W) of a level's predictions."""
        return (self.batch, self.channels, *self.grids[level])

    @property
    def image_size(self) -> tuple[float, float]:
        """Height and width in pixels."""
        rows, columns = self.grids[0]
        return rows * self.strides[0], columns * self.strides[0]

    @cached_property
    def logits(self) -> tuple[Tensor, ...]:
        """The predictions, cast to the case's dtype, contiguous, on the CPU. Do not write to them."""
        levels = (self.predictions.level(i, self) for i in range(self.levels))
        return tuple(torch.from_numpy(values).to(DTYPES[self.dtype]) for values in levels)

    @cached_property
    def target_rows(self) -> Tensor:
        """The targets, (T, 6), cast to their dtype, on the CPU. Do not write to them."""
        rows = torch.tensor(self.targets, dtype=torch.float64).reshape(-1, 6)
        return rows.to(DTYPES[self.targets_dtype])

    def with_logits(self, logits: Sequence[Tensor], **fields: Any) -> Self:
        """A copy whose logits are these tensors, whatever its ``predictions`` say. Such a copy cannot be saved."""
        kept = tuple(logits)
        empty = {} if isinstance(self.predictions, SeededLogits) else {"predictions": SeededLogits(seed=0)}
        copy = self.changed(**empty | fields)
        # cached_property stores values here; the key makes the copy different from every other case
        copy.__dict__.update(logits=kept, key=f"derived {id(kept)}")
        return copy

    @cached_property
    @override
    def invalid(self) -> str | None:
        rows = self.target_rows.double().numpy()
        least = np.array((0, 0, 0, 0, 2.0**-126, 2.0**-126))
        most = np.array((self.batch - 1, self.classes - 1, 1, 1, np.inf, np.inf))
        good = np.isfinite(rows) & (rows >= least) & (rows <= most)
        good[:, :2] &= rows[:, :2] == np.trunc(np.where(np.isfinite(rows[:, :2]), rows[:, :2], 0))
        bad = np.argwhere(~good).tolist()
        if bad:
            return f"targets[{bad[0][0]}, {bad[0][1]}] = {rows[tuple(bad[0])]:g}"
        spoilt = not_finite(self.logits)
        return f"{spoilt} logits are not finite" if spoilt else None

    @property
    @override
    def numbers(self) -> int:
        return sum(math.prod(self.shape(i)) for i in range(self.levels))

    @property
    @override
    def size(self) -> tuple[int, int, str]:
        return len(self.targets), len(self.key), self.key

    @property
    @override
    def clearer(self) -> tuple["Case", ...]:
        # terms of saturated logits may be so large that nothing else is seen beside them
        usual = SeededLogits(seed=1, aim=True)
        return self.changed(dtype="float64"), self.changed(dtype="float64", predictions=usual)

    @property
    @override
    def simpler(self) -> dict[str, "Case"]:
        plain = type(self).model_fields
        names = ("dtype", "targets_dtype", "form", "layout", "topk", "topk2", "gains", "class_weights", "head")
        usual = {name: Gains() if name == "gains" else plain[name].default for name in names}
        return {name: self.changed(**{name: value}) for name, value in usual.items() if value != getattr(self, name)}

    @override
    def inputs(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The levels as a head returns them (not leaves), in the case's layout, and the targets; new copies."""
        p = [_laid_out(x.to(device, copy=True).requires_grad_(), self.layout) for x in self.logits]
        return p, self.target_rows.to(device, copy=True)

    @override
    def __str__(self) -> str:
        return describe(self)


def aimed(case: Case, level: int) -> Reals:
    """The distances of each anchor to the sides of a target of its image, in cells, (B, 4, H, W); 1 without targets."""
    rows, columns = case.grids[level]
    height, width = (side / case.strides[level] for side in case.image_size)
    y, x = (axis + 0.5 for axis in np.mgrid[:rows, :columns].astype(np.float64))
    found = np.ones((case.batch, SIDES, rows, columns))
    for image in range(case.batch):
        mine = (t[2:] for t in case.targets if t[0] == image and np.isfinite(t[2:]).all())
        boxes = np.array(list(mine), dtype=np.float64)
        if len(boxes):
            cx, cy, w, h = boxes[np.arange(rows * columns) % len(boxes)].T.reshape(SIDES, rows, columns)
            left, top = x - (cx - w / 2) * width, y - (cy - h / 2) * height
            found[image] = left, top, w * width - left, h * height - top
    return found


def _laid_out(leaf: Tensor, layout: Layout) -> Tensor:
    """The leaf's values in another memory layout. The shape is always (B, 4 R + C, H, W)."""
    if layout == "channels_last":  # as a convolution in that format returns them
        return leaf.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return leaf.clone()


def describe(case: Case) -> str:
    """The case as a small table that can be checked by hand."""
    lines = [f"{case.batch} image(s), {case.classes} class(es), {case.reg_max} bins a side, {case.dtype} {case.form}"]
    if case.layout != "contiguous":
        lines[0] += f", {case.layout}"
    if case.targets_dtype != "float32":
        lines[0] += f", {case.targets_dtype} targets"
    for i, ((rows, columns), stride) in enumerate(zip(case.grids, case.strides, strict=True)):
        lines.append(f"level {i}: {rows} rows x {columns} columns, stride {stride:g}")
    lines.extend(target_table(case.targets))
    if case.head is not None:
        lines.append(f"predictions of {case.head.name}, after {case.head.updates} updates of {case.head.epochs} epochs")
    for name in ("topk", "topk2", "class_weights"):
        value = getattr(case, name)
        lines.extend([] if value is None else [f"{name} = {value!r}"])
    lines.extend(f"gains.{name} = {value:g}" for name, value in case.gains if value != getattr(Gains(), name))
    return "\n".join((*lines, _describe_logits(case.predictions)))


def _describe_logits(logits: Any) -> str:
    if isinstance(logits, GivenLogits):
        return f"logits: {sum(map(len, logits.layers))} given values"
    if isinstance(logits, PackedLogits):
        return "logits: those of a training step"
    around = "around distances to targets" if logits.aim else f"around distances {logits.peak}" if logits.peak else ""
    return (
        f"logits: seed {logits.seed}, box {logits.box_scale:g} n + {logits.box_offset:g} {around} "
        f"(sharp {logits.sharp:g}), class {logits.cls_scale:g} n + {logits.cls_offset:g}"
    )
