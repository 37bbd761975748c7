"""Dialects: one option for every choice that a right task-aligned loss may make. Source: FAMILIES.

A loss is held to its own choices, whatever they are. The reference, its budget and the laws follow them.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from yololoss.harness.cases.case import Count, Data, Positive


class Dialect(Data):
    """Each field is a choice; its default is what the PyPI package ultralytics 8.4.190 does."""

    # which sides of a target are enlarged for the inside-test, and to what; s1, s2: the first two strides
    small_sides: Literal["below s2 to s2", "below s1 to s2", "none"] = "below s2 to s2"
    topk: Count = 10  # if the constructor is not told
    heads: Literal["one", "YOLO26", "YOLOv10"] = "one"  # with two heads: their top-k, weights and items, SPEC 8
    alpha: Positive = 0.5
    beta: Positive = 6.0
    eps: Annotated[float, Field(ge=0)] = 1e-9  # of the scores
    contested: Literal["all candidates", "takers"] = "all candidates"  # who may win a contested anchor
    corner: Literal["dropped", "kept"] = "dropped"  # a target whose corners sum to 0 or less
    third_of_one_bin: Literal["l1", "none"] = "l1"  # the third term if R = 1
    batch: Literal["times", "plain"] = "times"  # what the total is multiplied with
    total: Literal["three", "one"] = "three"  # numbers in the total
    class_weights: Literal["used", "ignored"] = "used"
    half: Literal["own", "float32"] = "own"  # what half precision is computed in
    row_order: Literal["by image", "any"] = "by image"  # which orders of rows are accepted
    target_dtypes: Literal["float32", "any"] = "float32"
    bad_input: Literal["any", "refused"] = "any"
    few_anchors: Literal["error", "all"] = "error"  # fewer anchors than top-k
    forms: Literal["one", "both"] = "one"  # of predictions

    def but(self, **choices: Any) -> Self:
        """The dialect with other options."""
        return type(self).model_validate(dict(self) | choices)


UPSTREAM = Dialect()
_SINCE_8_4 = UPSTREAM.but(small_sides="below s1 to s2")  # 8.4.21-40 to 8.4.100
_BEFORE = UPSTREAM.but(
    small_sides="none",
    row_order="any",
    target_dtypes="any",
    class_weights="ignored",
    third_of_one_bin="none",
)
DIALECTS = {
    "upstream": UPSTREAM,
    # what the bundled loss promises beyond upstream (SPEC 9)
    "yololoss": UPSTREAM.but(
        corner="kept",
        half="float32",
        row_order="any",
        target_dtypes="any",
        bad_input="refused",
        few_anchors="all",
        forms="both",
    ),
    "ultralytics-8.4.100": _SINCE_8_4,
    "ultralytics-8.4.20": _SINCE_8_4.but(row_order="any", target_dtypes="any", class_weights="ignored"),
    "ultralytics-8.3.252": _BEFORE,
    "ultralytics-8.2.0": _BEFORE.but(total="one"),
}
