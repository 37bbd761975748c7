"""Dialects of v5 losses: one option for every choice that a right loss of the family may make.

The options that a dialect does not name are upstream's. The reference, its budget and the laws follow the dialect, so a
loss is held to its own choices, whatever they are. Source: FAMILIES, DIALECTS.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from yololoss.harness.cases.case import Data, Finite, Positive

Table = tuple[Positive, ...]


def _tables(value: Any) -> Any:
    """A number or a list stands for every number of layers."""
    if isinstance(value, dict):
        return {str(layers): tuple(table) if isinstance(table, list) else table for layers, table in value.items()}
    return {"else": tuple(value) if isinstance(value, list | tuple) else value}


class Dialect(Data):
    """One option for every choice. The defaults are upstream's."""

    neighbours: Literal["mirror", "own-half"] = Field(
        "mirror", description="right and below: by the distance to the far edge; or by the other half of the own cell"
    )
    cell: Literal["clamp", "clamp-after", "none"] = Field(
        "clamp", description="cells outside the grid: clamped, and the box taken from there; clamped after the box was "
        "taken; or not clamped, so that a centre at 1.0 is an error"
    )
    row_order: Literal["choice-anchor-target", "anchor-choice-target", "any"] = Field(
        "choice-anchor-target", description="how build_targets orders its rows"
    )
    overlap: Literal["ciou", "diou", "giou", "iou"] = Field("ciou", description="the overlap of which 1 - overlap is the box loss")
    overlap_form: Literal["2022", "2026", "6.2", "5.0", "yolov7", "3.1", "3.0"] = Field(
        "2022", description="where the overlap has its epsilon"
    )
    overlap_eps: Annotated[float, Field(ge=0, lt=1)] = Field(1e-7, description="the epsilon of the overlap")
    overlap_range: Literal["free", "clamped"] = Field("free", description="as it is; or clamped to [-1, 1]")
    layer_scale: Literal["none", "box and class", "all"] = Field("none", description="which terms have the factor 3 / layers")
    objectness_gain: Literal["none", "1.4 at 4", "1.4 from 4"] = Field(
        "none", description="a factor on objectness: at 4 layers, or from 4 layers"
    )
    balance: Annotated[dict[str, Table | Positive], BeforeValidator(_tables)] = Field(
        {"3": (4.0, 1.0, 0.4), "else": (4.0, 1.0, 0.25, 0.06, 0.02)},
        description="the weight of each layer's objectness: a list, a number, or one of them for a number of layers",
    )
    smoothing: Literal["half", "ignored", "over classes"] = Field(
        "half", description="targets of the class loss: 1 - s/2 and s/2; 1 and 0; or 1 - s + s/C and s/C"
    )
    batch: Literal["times", "plain"] = Field("times", description="the total is the sum times the batch size; or the sum")
    shared_cells: Literal["last", "largest"] = Field("last", description="which row's overlap a shared cell takes")
    positive_weights: Literal["heeded", "ignored"] = Field("heeded", description="cls_pw and obj_pw")
    focal: Literal["heeded", "ignored"] = Field("heeded", description="fl_gamma")
    target_dtype: Literal["float32", "own"] = Field(
        "own", description="float64 targets are assigned in float32; or in their own dtype, by torch's type promotion"
    )
    class_weights: tuple[Finite, ...] = Field((), description="a weight for each class in the class loss")

    def balance_of(self, layers: int) -> tuple[float, ...]:
        """The table for a loss of so many layers."""
        table = self.balance.get(str(layers), self.balance.get("else", 1.0))
        return table if isinstance(table, tuple) else (table,) * layers

    @property
    def edges(self) -> bool:
        """Whether sides are differences of edges, in float32: then a tiny box has no digit left."""
        return self.overlap_form not in ("2022", "2026", "6.2")

    @property
    def sides(self) -> float:
        """What is added to a height where an area is computed, in epsilons."""
        return 1.0 if self.overlap_form in ("5.0", "yolov7", "3.1") else 0.0

    @property
    def angle(self) -> float:
        """What is added to a height where an angle is computed, in epsilons."""
        return {"6.2": 1.0, "5.0": 1.0, "3.1": 1.0, "yolov7": 2.0}.get(self.overlap_form, 0.0)


UPSTREAM = Dialect()
OLD_TABLE = {"3": (4.0, 1.0, 0.4), "else": (4.0, 1.0, 0.4, 0.1)}
YOLOR_TABLE = {**OLD_TABLE, "5": (4.0, 1.0, 0.5, 0.4, 0.1)}
_V31: dict[str, Any] = {
    "overlap_form": "3.1",
    "overlap_eps": 1e-9,
    "balance": OLD_TABLE,
    "layer_scale": "all",
    "objectness_gain": "1.4 at 4",
    "smoothing": "ignored",
    "cell": "none",
}
_V20 = {**_V31, "neighbours": "own-half", "overlap": "giou", "overlap_form": "3.0", "overlap_eps": 1e-16}
_YOLOR = {**_V31, "neighbours": "own-half", "cell": "clamp", "balance": YOLOR_TABLE, "objectness_gain": "1.4 from 4"}
PRESETS: dict[str, Dialect] = {
    "upstream": UPSTREAM,
    "yolov5-master": Dialect(overlap_form="2026"),
    "yolov5-6.2": Dialect(overlap_form="6.2"),
    "yolov5-6.1": Dialect(overlap_form="5.0"),
    "yolov5-5.0": Dialect(overlap_form="5.0"),
    "tph-yolov5": Dialect(overlap_form="5.0", shared_cells="largest"),
    "yolov7": Dialect(overlap_form="yolov7"),
    "yolov5-4.0": Dialect(
        overlap_form="3.1", overlap_eps=1e-9, balance=(4.0, 1.0, 0.3, 0.1, 0.03), layer_scale="box and class", smoothing="ignored"
    ),
    "yolov5-3.1": Dialect(**_V31),
    "yolov5-3.0": Dialect(**_V31 | {"overlap_form": "3.0", "overlap_eps": 1e-16}),
    "yolov5-2.0": Dialect(**_V20),
    "yolov5-1.0": Dialect(**_V20 | {"balance": 1.0, "layer_scale": "none", "objectness_gain": "none"}),
    "yolor": Dialect(**_YOLOR),
    "scaledyolov4-csp": Dialect(**_YOLOR),
}
# The choices that a law may assume: what upstream does; else what other dialects do.
CHOICES = {
    "grid lines": "a centre on a grid line has up to 5 rows; else the right and below rules use the own cell's half",
    "far edge": "the cell is clamped, so a centre at 1.0 lies in the last cell; else such a target is an error",
    "row order": "rows are ordered by choice, anchor, target",
    "iou": "CIoU, not clamped; else GIoU, or CIoU clamped to [-1, 1]",
    "label smoothing": "label smoothing is applied",
    "balance": "the objectness weights of the layers are 4, 1, 0.4 or 4, 1, 0.25, 0.06, 0.02",
    "batch": "the total is multiplied by the batch size",
    "shared cells": "the last row wins a shared cell unless sort_obj_iou",
    "target dtype": "float64 targets are assigned in float32; else in float64, by torch's type promotion",
    "drop-in": "built from a model that may be wrapped for several devices, whose hyp may lack label_smoothing",
    "interface": "autobalance, sort_obj_iou, gr and build_targets exist; else laws about them do not apply",
    "bad input": "invalid input is refused with a ValueError or TypeError; else what happens is only noted",
}

_OTHERS: dict[str, frozenset[str]] = {
    "upstream": frozenset(),
    "yolov5-1.0": frozenset({"drop-in", "grid lines", "far edge", "iou", "label smoothing", "balance"}),
    "yolov5-2.0": frozenset({"drop-in", "grid lines", "far edge", "iou", "label smoothing", "balance"}),
    "yolov5-3": frozenset({"drop-in", "far edge", "label smoothing", "balance"}),
    "yolov5-4.0": frozenset({"drop-in", "label smoothing", "balance"}),
    "yolor": frozenset({"drop-in", "grid lines", "label smoothing", "balance"}),
    "scaledyolov4": frozenset({"drop-in", "grid lines", "label smoothing"}),
    "yolop": frozenset({"drop-in", "label smoothing", "batch"}),
    "yolov5-face": frozenset({"drop-in", "label smoothing"}),
    "mmyolo": frozenset({"drop-in", "far edge", "iou", "label smoothing"}),
    "okery": frozenset({"drop-in", "grid lines", "far edge", "iou", "batch"}),
    "tph-yolov5": frozenset({"shared cells"}),
    "giou": frozenset({"iou"}),  # as upstream, except for the overlap
    "own-order": frozenset({"row order"}),  # as upstream, except for the row order of build_targets
    "any": frozenset(CHOICES),  # only laws that assume no choice
}

# What the bundled loss promises beyond upstream. No other dialect has to.
BEYOND = frozenset({"bad input", "interface", "target dtype"})
DIALECTS = {"yololoss": frozenset[str](), **{name: chosen | BEYOND for name, chosen in _OTHERS.items()}}
