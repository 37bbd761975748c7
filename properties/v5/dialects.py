"""Dialects of v5 losses: one option for every choice that a right loss of the family may make.

The options that a dialect does not name are upstream's. The reference, its budget and the laws follow the dialect, so a
loss is held to its own choices, whatever they are. Source: FAMILIES, DIALECTS.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from yololoss.harness.cases.case import Data, Positive

Table = tuple[Positive, ...]
Tables = dict[str, Table | Positive]  # by number of layers; "else"
# Overlaps by name that are taken from the loss, and compared with their formulas. The numbers of each, unless a dialect
# names others: the power of the IoU; all powers; the share to which both boxes are shrunk; the squared diagonal of the
# image, in cells, or that of each layer's grid; the length C, in cells, and its share beside CIoU.
NUMBERS: dict[str, tuple[float, ...]] = {
    "eiou": (),
    "focal-eiou": (0.5,),
    "alpha-iou": (3.0,),
    "siou": (),
    "mpdiou": (),
    "inner-iou": (0.75,),
    "inner-diou": (0.75,),
    "wise-iou": (),
    "nwd": (12.8, 1.0),
}
EXACTLY_KNOWN = ("ciou", "diou", "giou", "iou")  # with their epsilons, on boxes of any size
_UPSTREAM_TABLE: Tables = {"3": (4.0, 1.0, 0.4), "else": (4.0, 1.0, 0.25, 0.06, 0.02)}


class Dialect(Data):
    """One option for every choice. The defaults are upstream's."""

    neighbours: Literal["mirror", "own-half"] = Field(
        "mirror", description="right and below: by the distance to the far edge; or by the other half of the own cell"
    )
    cell: Literal["clamp", "clamp-after", "none"] = Field(
        "clamp",
        description="cells outside the grid: clamped, and the box taken from there; clamped after the box was "
        "taken; or not clamped, so that a centre at 1.0 is an error",
    )
    row_order: Literal["choice-anchor-target", "anchor-choice-target", "any"] = Field(
        "choice-anchor-target", description="how build_targets orders its rows"
    )
    overlap: Literal[
        "ciou",
        "diou",
        "giou",
        "iou",
        "eiou",
        "focal-eiou",
        "alpha-iou",
        "siou",
        "mpdiou",
        "inner-iou",
        "inner-diou",
        "wise-iou",
        "nwd",
        "own",
    ] = Field(
        "ciou",
        description="the overlap of which 1 - overlap is the box loss; own: no known one, so that it is taken from the "
        "loss itself",
    )
    overlap_numbers: Table = Field(
        (),
        description="those of its formula: the power of alpha-iou and focal-eiou, the ratio of inner-iou and "
        "inner-diou, the squared diagonal of mpdiou in cells, the length of nwd in cells and its share beside ciou",
    )
    overlap_form: Literal[
        "yolov5-7.0", "yolov5-master", "yolov5-6.2", "yolov5-5.0", "yolov7", "yolov5-3.1", "yolov5-3.0"
    ] = Field("yolov5-7.0", description="where the overlap has its epsilon")
    overlap_eps: Annotated[float, Field(ge=0, lt=1)] = Field(1e-7, description="the epsilon of the overlap")
    overlap_range: Literal["free", "clamped"] = Field("free", description="as it is; or clamped to [-1, 1]")
    layer_scale: Literal["none", "box and class", "all"] = Field(
        "none", description="which terms have the factor 3 / layers"
    )
    objectness_gain: Literal["none", "1.4 at 4", "1.4 from 4"] = Field(
        "none", description="a factor on objectness: at 4 layers, or from 4 layers"
    )
    balance: Table | Positive | Tables = Field(
        default_factory=lambda: _UPSTREAM_TABLE,
        description="the weight of each layer's objectness: a list, a number, or one of them for a number of layers",
    )
    smoothing: Literal["half", "ignored", "over classes"] = Field(
        "half", description="targets of the class loss: 1 - s/2 and s/2; 1 and 0; or 1 - s + s/C and s/C"
    )
    batch: Literal["times", "plain"] = Field(
        "times", description="the total is the sum times the batch size; or the sum"
    )
    shared_cells: Literal["last", "largest"] = Field("last", description="which row's overlap a shared cell takes")
    positive_weights: Literal["heeded", "ignored"] = Field("heeded", description="cls_pw and obj_pw")
    focal: Literal["heeded", "ignored"] = Field("heeded", description="fl_gamma")
    item_order: Literal["box first", "classes first"] = Field(
        "box first", description="(box, objectness, class), or (class, objectness, box)"
    )
    target_dtype: Literal["float32", "own"] = Field(
        "own", description="float64 targets are assigned in float32; or in their own dtype, by torch's type promotion"
    )
    drop_in: Literal["yes", "no"] = Field(
        "yes", description="whether it is built from a model that may be wrapped, whose hyp may lack label_smoothing"
    )
    box_gain: Literal["box", "giou"] = Field("box", description="the name of the box gain in hyp")
    interface: Literal["whole", "partly"] = Field(
        "partly", description="whether it must have autobalance, sort_obj_iou, gr and build_targets; else it may"
    )
    bad_input: Literal["refused", "noted"] = Field(
        "noted", description="whether invalid input must raise a ValueError or TypeError; else what it does is noted"
    )
    float64: Literal["exact", "any"] = Field(
        "any", description="whether float64 predictions have a gradient of that precision; else float32 is enough"
    )
    class_weights: Table = Field((), description="a weight for each class in the class loss")
    classes: Annotated[int, Field(ge=0)] = Field(0, description="the number of classes, of a loss that takes one alone")
    layers: Annotated[int, Field(ge=0)] = Field(0, description="the number of layers, of a loss that takes one alone")
    added_term: Literal["none", "in the box item", "an item"] = Field(
        "none",
        description="a term that nobody named, on the boxes of rows: in the box item, or in an item of its own; its "
        "value is taken from the loss, and its gradient is not judged",
    )

    @field_validator("overlap_numbers")
    @classmethod
    def _are_its_own(cls, numbers: Table, others: ValidationInfo) -> Table:
        kind = others.data.get("overlap", "own")
        counts = {0, len(NUMBERS.get(kind, ())), 1 if kind == "mpdiou" else 0}
        if len(numbers) not in counts:
            raise ValueError(f"{kind} has {' or '.join(map(str, sorted(counts - {0}))) or 'no'} numbers")
        return numbers

    def __hash__(self) -> int:
        return hash(repr(self))  # a table has no hash

    def but(self, **changes: Any) -> "Dialect":
        """The dialect with other options. Another overlap has its own numbers."""
        fresh = {"overlap_numbers": ()} if "overlap" in changes else {}
        return Dialect(**dict(self) | fresh | changes)

    def balance_of(self, layers: int) -> tuple[float, ...]:
        """The table for a loss of so many layers."""
        table = self.balance
        if isinstance(table, dict):
            table = table.get(str(layers), table.get("else", 1.0))
        return table if isinstance(table, tuple) else (table,) * layers

    @property
    def only_classes(self) -> int:
        """The only number of classes that losses of the dialect take; 0 if they take any."""
        return self.classes or len(self.class_weights)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers of the overlap's formula."""
        return self.overlap_numbers or NUMBERS.get(self.overlap, ())

    @property
    def taken(self) -> bool:
        """Whether the overlap is taken from the loss itself, though it may have a name."""
        return self.overlap not in EXACTLY_KNOWN

    @property
    def edges(self) -> bool:
        """Whether sides are differences of edges, in float32: then a tiny box has no digit left."""
        return self.overlap_form not in ("yolov5-7.0", "yolov5-master", "yolov5-6.2")

    @property
    def taller_in_area(self) -> float:
        """What is added to a height where an area is computed, in cells."""
        return self.overlap_eps if self.overlap_form in ("yolov5-5.0", "yolov7", "yolov5-3.1") else 0.0

    @property
    def taller_in_angle(self) -> float:
        """What is added to a height where an angle is computed, in cells."""
        times = {"yolov5-6.2": 1, "yolov5-5.0": 1, "yolov5-3.1": 1, "yolov7": 2}.get(self.overlap_form, 0)
        return times * self.overlap_eps


UPSTREAM = Dialect()
_OLD_TABLE = {"3": (4.0, 1.0, 0.4), "else": (4.0, 1.0, 0.4, 0.1)}
_IGNORED = {"smoothing": "ignored", "positive_weights": "ignored", "focal": "ignored"}


_V31 = UPSTREAM.but(
    drop_in="no",
    cell="none",
    overlap_form="yolov5-3.1",
    overlap_eps=1e-9,
    layer_scale="all",
    objectness_gain="1.4 at 4",
    balance=_OLD_TABLE,
    smoothing="ignored",
)
_V30 = _V31.but(overlap_form="yolov5-3.0", overlap_eps=1e-16, box_gain="giou")
_V20 = _V30.but(neighbours="own-half", overlap="giou")
_YOLOR = _V31.but(
    neighbours="own-half",
    cell="clamp",
    objectness_gain="1.4 from 4",
    balance={**_OLD_TABLE, "5": (4.0, 1.0, 0.5, 0.4, 0.1)},
)
DIALECTS = {
    "upstream": UPSTREAM,
    # what the bundled loss promises beyond upstream; no other dialect has to
    "yololoss": Dialect(
        overlap_form="yolov5-master", target_dtype="float32", interface="whole", bad_input="refused", float64="exact"
    ),
    "yolov5-master": Dialect(overlap_form="yolov5-master"),
    "yolov5-6.2": Dialect(overlap_form="yolov5-6.2"),
    "yolov5-6.1": Dialect(overlap_form="yolov5-5.0"),
    "yolov5-5.0": Dialect(overlap_form="yolov5-5.0"),
    "yolov5-4.0": _V31.but(
        cell="clamp", layer_scale="box and class", objectness_gain="none", balance=(4.0, 1.0, 0.3, 0.1, 0.03)
    ),
    "yolov5-3.1": _V31,
    "yolov5-3.0": _V30,
    "yolov5-2.0": _V20,
    "yolov5-1.0": _V20.but(layer_scale="none", objectness_gain="none", balance=1.0),
    "yolov7": Dialect(overlap_form="yolov7"),
    "tph-yolov5": Dialect(overlap_form="yolov5-5.0", shared_cells="largest"),
    "yolor": _YOLOR,
    "scaledyolov4-csp": _YOLOR,
    "scaledyolov4-large": _YOLOR.but(
        neighbours="mirror", cell="none", overlap_form="yolov5-3.0", overlap_eps=1e-16, box_gain="giou"
    ),
    "yolop": _V31.but(cell="clamp", batch="plain"),
    "yolov5-face": _V31.but(cell="clamp"),
    "mmyolo": UPSTREAM.but(drop_in="no", cell="none", overlap_range="clamped", **_IGNORED),
    "okery": UPSTREAM.but(
        drop_in="no",
        neighbours="own-half",
        cell="none",
        overlap="giou",
        overlap_eps=0.0,
        balance=1.0,
        batch="plain",
        **_IGNORED,
    ),
}
