"""A v5 case: one call of a YOLOv5 loss, complete, as data."""

import math
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import Self, override

from yololoss.harness.cases.case import DTYPES, Count, Data, Dtype, Finite, Index, Number, Positive
from yololoss.harness.cases.case import Case as AnyCase
from yololoss.v5.hyp import Hyperparameters

from ..shared.noise import noise
from ..shared.steps import not_finite
from ..shared.tables import target_table
from .packed import PackedLogits

LARGEST = 2**27  # most logits of a case: four times a batch of 16 images of 640 x 640 and 80 classes
LAYERS = 64  # most layers; no detector has ten
# Most pairs of a target and an anchor: 113 targets on each of 64 images, with 9 anchors. Each may give 5 rows.
PAIRS = 2**16
Factor = Annotated[int, Field(gt=-(2**20), lt=2**20)]  # its product with the largest number of logits fits in 64 bits
TargetsDtype = Literal["float16", "float32", "float64", "int64"]
Layout = Literal["contiguous", "channels_last", "sliced", "expanded", "transposed"]


class Override(Data):
    """One logit that is set by hand: its place, and its value."""

    layer: Index
    image: Index
    anchor: Index
    row: Index
    column: Index
    channel: Index
    value: Number


class _Generated(Data):
    overrides: tuple[Override, ...] = ()

    def bulk(self, layer: int, size: int) -> NDArray[np.float64]:
        """The first ``size`` values of a layer, before overrides."""
        raise NotImplementedError

    def layer(self, layer: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The values of a layer of this shape."""
        values = self.bulk(layer, math.prod(shape)).reshape(shape)
        for o in self.overrides:
            if o.layer == layer:
                values[o.image, o.anchor, o.row, o.column, o.channel] = o.value
        return values


class FormulaLogits(_Generated):
    """((((k + 1) multiplier + (layer + 1) increment) mod 1024) / 128 - 4) scale + offset.

    k: flat C-order index in the layer's tensor; layers count from 0. Computed in float64, then cast to
    the case's dtype; exact in float32 for the recorded values.
    """

    kind: Literal["formula"] = "formula"
    multiplier: Factor
    increment: Factor
    scale: Finite = 1.0
    offset: Finite = 0.0

    @override
    def bulk(self, layer: int, size: int) -> NDArray[np.float64]:
        k = np.arange(1, size + 1, dtype=np.int64)
        steps = (k * self.multiplier + (layer + 1) * self.increment) % 1024
        return (steps / 128 - 4) * self.scale + self.offset


class SeededLogits(_Generated):
    """(top 24 bits of splitmix64(seed 2^32 + layer 2^28 + k) / 2^23 - 1) scale + offset.

    splitmix64(n), in unsigned 64-bit arithmetic: z = (n + 1) 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) 0x94D049BB133111EB; z ^ z >> 31. k as in
    FormulaLogits. Computed in float64, then cast to the case's dtype.
    """

    kind: Literal["seed"] = "seed"
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    scale: Finite = 4.0
    offset: Finite = 0.0

    @override
    def bulk(self, layer: int, size: int) -> NDArray[np.float64]:
        return noise(self.seed, layer, size) * self.scale + self.offset


class GivenLogits(Data):
    """Every logit, as a flat C-order list for each layer."""

    kind: Literal["values"] = "values"
    layers: tuple[tuple[Number, ...], ...]

    def layer(self, layer: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The values of a layer of this shape."""
        return np.array(self.layers[layer], dtype=np.float64).reshape(shape)


Logits = Annotated[FormulaLogits | SeededLogits | GivenLogits | PackedLogits, Field(discriminator="kind")]


class Options(Data):
    """Switches of the loss, how often it is called on the same inputs, and its balance if that was moved before."""

    autobalance: bool = False
    sort_obj_iou: bool = False
    gr: Annotated[float, Field(ge=0, le=1)] = 1.0
    calls: Annotated[int, Field(ge=1, le=1000)] = 1
    balance: Annotated[tuple[Finite, ...], Field(max_length=LAYERS)] | None = None  # None: that of a new loss


class Case(AnyCase):
    """One call of a loss, complete: enough to make its tensors, its model and its options.

    ``targets``: rows of image, class, x, y, w, h, the last four as fractions of the image. They may have any values,
    since invalid targets are cases too. ``anchors``: width and height, in cells of their layer. ``strides``: pixels per
    cell. ``options``: switches, and how often the loss is called. Immutable. It is written to JSON and read from it bit
    for bit. Raises ``pydantic.ValidationError`` if the parts do not fit together.
    """

    family: ClassVar[str] = "v5"
    batch: Count
    classes: Count
    grids: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1, max_length=LAYERS)]  # rows, columns
    strides: tuple[Positive, ...]
    anchors: tuple[tuple[tuple[Positive, Positive], ...], ...]
    targets: tuple[tuple[Number, Number, Number, Number, Number, Number], ...]
    dtype: Dtype = "float32"
    targets_dtype: TargetsDtype = "float32"
    layout: Layout = "contiguous"
    hyp: Hyperparameters = Hyperparameters()
    options: Options = Options()
    predictions: Logits

    @model_validator(mode="after")
    def _layers_agree(self) -> Self:
        layers = len(self.grids)
        if not len(self.strides) == len(self.anchors) == layers:
            raise ValueError(
                f"grids, strides, anchors: expected one entry per layer, "
                f"got {layers}, {len(self.strides)}, {len(self.anchors)}"
            )
        if self.options.balance is not None and len(self.options.balance) < layers:
            raise ValueError(f"options.balance: expected {layers} numbers or more, got {len(self.options.balance)}")
        if len({len(a) for a in self.anchors}) != 1 or not self.anchors[0]:
            raise ValueError("anchors: expected the same number, 1 or more, on every layer")
        pairs = len(self.targets) * sum(map(len, self.anchors))
        if pairs > PAIRS:
            raise ValueError(f"targets, anchors: {pairs} pairs of a target and an anchor, expected {PAIRS} at most")
        if self.numbers > LARGEST:
            raise ValueError(f"batch, grids, anchors, classes: {self.numbers} logits, expected {LARGEST} at most")
        self._logits_fill(layers)
        return self

    def _logits_fill(self, layers: int) -> None:
        """Raise ValueError if the predictions do not fit the shapes of the layers."""
        if isinstance(self.predictions, GivenLogits):
            sizes = [len(values) for values in self.predictions.layers]
            if sizes != [math.prod(self.shape(i)) for i in range(layers)]:
                raise ValueError(f"predictions: layers of {sizes} values do not fill the shapes")
        elif isinstance(self.predictions, PackedLogits):
            if len(self.predictions.layers) != layers:
                raise ValueError(f"predictions: {len(self.predictions.layers)} packed layers, expected {layers}")
            for i in range(layers):
                self.predictions.unpacked(i, self.shape(i))
        else:
            for o in self.predictions.overrides:
                at = (o.image, o.anchor, o.row, o.column, o.channel)
                if o.layer >= layers or any(np.greater_equal(at, self.shape(o.layer))):
                    raise ValueError(f"predictions: override {at} of layer {o.layer} is outside its shape")

    @property
    def layers(self) -> int:
        """The number of detection layers."""
        return len(self.grids)

    def shape(self, layer: int) -> tuple[int, int, int, int, int]:
        """(B, A, H, W, 5 + C) of a layer's predictions."""
        return (self.batch, len(self.anchors[layer]), *self.grids[layer], 5 + self.classes)

    @cached_property
    def logits(self) -> tuple[Tensor, ...]:
        """The predictions, cast to the case's dtype, contiguous, on the CPU. Do not write to them.

        In the layout "expanded" all images share the memory of the first, so all have its logits.
        """
        layers = (self.predictions.layer(i, self.shape(i)) for i in range(self.layers))
        if self.layout == "expanded":
            layers = (np.repeat(values[:1], self.batch, axis=0) for values in layers)
        return tuple(torch.from_numpy(values).to(DTYPES[self.dtype]) for values in layers)

    @cached_property
    @override
    def invalid(self) -> str | None:
        rows = self.target_rows.double().numpy()
        good = np.isfinite(rows)
        good[:, :2] &= (rows[:, :2] >= 0) & (rows[:, :2] < (self.batch, self.classes))
        bad = np.argwhere(~good).tolist()
        if bad:
            return f"targets[{bad[0][0]}, {bad[0][1]}] = {rows[tuple(bad[0])]:g}"
        given = isinstance(self.predictions, GivenLogits | PackedLogits)  # others are finite
        spoilt = not_finite(self.logits) if given else 0
        return f"{spoilt} logits are not finite" if spoilt else None

    @cached_property
    def target_rows(self) -> Tensor:
        """The targets, (N, 6), cast to their dtype, on the CPU. Do not write to them."""
        rows = torch.tensor(self.targets, dtype=torch.float64).reshape(-1, 6)
        return rows.to(DTYPES[self.targets_dtype])

    def with_logits(self, logits: tuple[Tensor, ...], **fields: Any) -> Self:
        """A copy whose logits are these tensors, whatever its ``predictions`` say. Such a copy cannot be saved.

        The layout "expanded", in which all images share memory, becomes "contiguous".
        """
        if self.layout == "expanded":
            fields.setdefault("layout", "contiguous")
        copy = self.changed(**fields)
        # cached_property stores values here; the key makes the copy different from every other case
        copy.__dict__.update(logits=logits, key=f"derived {id(logits)}")
        return copy

    @property
    @override
    def calls(self) -> int:
        return self.options.calls

    @override
    def called(self, calls: int) -> Self:
        return self.changed(options=self.options.model_copy(update={"calls": calls}))

    @property
    @override
    def numbers(self) -> int:
        return sum(math.prod(self.shape(i)) for i in range(self.layers))

    @property
    @override
    def size(self) -> tuple[int, int, str]:
        return len(self.targets), len(self.key), self.key

    @property
    @override
    def clearer(self) -> tuple["Case", ...]:
        # a term of saturated logits may be so small, or so large, that nothing else is seen beside it
        usual = SeededLogits(seed=1, scale=4.0, offset=0.0)
        # of several calls, the first is like a single one
        once = (self.called(1),) if self.calls > 1 else ()
        return *once, self.changed(dtype="float64"), self.changed(dtype="float64", predictions=usual)

    @property
    @override
    def simpler(self) -> dict[str, "Case"]:
        found: dict[str, dict[str, Any]] = {}
        for part in ("hyp", "options"):
            usual, own = type(self).model_fields[part].default, getattr(self, part)
            other = {name: value for name, value in usual if value != getattr(own, name)}
            found |= {name: {part: own.model_copy(update={name: value})} for name, value in other.items()}
        for name in ("dtype", "targets_dtype", "layout"):
            usual = type(self).model_fields[name].default
            found |= {name: {name: usual}} if getattr(self, name) != usual else {}
        return {name: self.changed(**fields) for name, fields in found.items()}

    @override
    def inputs(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Predictions as a head returns them (not leaves), and targets, in the case's layout; new copies."""
        p = [_laid_out(x.to(device, copy=True).requires_grad_(), self.layout) for x in self.logits]
        targets = self.target_rows.to(device, copy=True)
        return p, pad(targets, (1, 1), value=7)[:, 1:-1] if self.layout == "sliced" else targets

    @override
    def __str__(self) -> str:
        return describe(self)


def _laid_out(leaf: Tensor, layout: Layout) -> Tensor:
    """The leaf's values in another memory layout. The shape is always (B, A, H, W, 5 + C)."""
    if layout == "channels_last":  # the convolution's order, before the head's .contiguous()
        return leaf.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    if layout == "transposed":
        return leaf.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        return pad(leaf, (1, 1, 1, 1), value=7)[..., 1:-1, 1:-1]
    if layout == "expanded":
        return leaf[:1].expand_as(leaf)
    return leaf.clone()


def describe(case: Case) -> str:
    """The case as a small table that can be checked by hand."""
    lines = [f"{case.batch} image(s), {case.classes} class(es), {case.dtype} predictions, {case.layout}"]
    if case.targets_dtype != "float32":
        lines[0] += f", {case.targets_dtype} targets"
    for i, ((rows, columns), stride, anchors) in enumerate(zip(case.grids, case.strides, case.anchors, strict=True)):
        sides = ", ".join(f"{w:.9g} x {h:.9g}" for w, h in anchors)
        lines.append(f"layer {i}: {rows} rows x {columns} columns, stride {stride:g}, anchors {sides} cells")
    lines.extend(target_table(case.targets))
    plain = Case.model_fields
    for name, value, usual in (
        *((n, v, getattr(plain["hyp"].default, n)) for n, v in case.hyp),
        *((n, v, getattr(plain["options"].default, n)) for n, v in case.options),
    ):
        if value != usual:
            lines.append(f"{name} = {value!r}")
    return "\n".join((*lines, _describe_logits(case.predictions)))


def _describe_logits(logits: Logits) -> str:
    if isinstance(logits, PackedLogits):
        return "logits: of a training step"
    if isinstance(logits, GivenLogits):
        return f"logits: {sum(map(len, logits.layers))} given values"
    if logits.scale == 0:
        text = f"logits: {logits.offset:g} everywhere"
    elif isinstance(logits, SeededLogits):
        low, high = logits.offset - logits.scale, logits.offset + logits.scale
        text = f"logits: from {low:g} to {high:g}, seed {logits.seed}"
    else:
        text = f"logits: by formula, scale {logits.scale:g}, offset {logits.offset:g}"
    spots = (
        f"\n  layer {o.layer}, image {o.image}, anchor {o.anchor}, row {o.row}, column {o.column}, "
        f"channel {o.channel}: {o.value:.9g}"
        for o in logits.overrides
    )
    return text + "".join(spots)
