"""Dialects: one option for every choice that a right task-aligned loss may make. Source: FAMILIES.

A loss is held to its own choices, whatever they are. The reference, its budget and the laws follow them.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import Self

from yololoss.harness.cases.case import Count, Data, Positive


class Dialect(Data):
    """Each field is a choice; its default is what the PyPI package ultralytics 8.4.190 does."""

    small_sides: Literal["below s2 to s2", "below s1 to s2", "none"] = Field(
        "below s2 to s2",
        description="in the inside-test, sides below the second stride s2, or below the first one s1, count as s2",
    )
    topk: Count = Field(10, description="how many anchors a target takes, if the constructor is not told")
    heads: Literal["one", "YOLO26", "YOLOv10"] = Field(
        "one", description="with two heads: their top-k, weights and items"
    )
    alpha: Positive = Field(0.5, description="the metric is score^alpha overlap^beta")
    beta: Positive = Field(6.0, description="the second power of that metric")
    eps: Annotated[float, Field(ge=0)] = Field(
        1e-9, description="that of the scores: metric largest-overlap / (largest-metric + eps)"
    )
    contested: Literal["all candidates", "takers"] = Field(
        "all candidates", description="among whom the largest overlap wins an anchor that several targets took"
    )
    corner: Literal["dropped", "kept"] = Field("dropped", description="a target whose corners sum to 0 or less")
    third_of_one_bin: Literal["l1", "none"] = Field("l1", description="the third term if reg_max = 1")
    batch: Literal["times", "plain"] = Field(
        "times", description="the total is the sum times the batch size; or the sum"
    )
    total: Literal["three", "one"] = Field("three", description="numbers in the total")
    class_weights: Literal["used", "ignored"] = Field("used", description="those of the model")
    half: Literal["own", "float32"] = Field("own", description="what half precision is computed in")
    row_order: Literal["by image", "any"] = Field(
        "by image", description="which orders of the rows of a batch are accepted"
    )
    target_dtypes: Literal["float32", "any"] = Field("float32", description="which dtypes of targets are accepted")
    bad_input: Literal["any", "refused"] = Field("any", description="whether bad input is an error")
    few_anchors: Literal["error", "all"] = Field(
        "error", description="what fewer anchors than top-k are: an error; or all of them are taken"
    )
    forms: Literal["one", "both"] = Field(
        "one", description="forms of predictions that are accepted: levels, a mapping"
    )

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
