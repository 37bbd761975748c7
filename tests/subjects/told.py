"""Which dialects nothing tells apart."""

from properties.v5.balances import layer_weights
from properties.v5.dialects import Dialect
from properties.v5.recognise import PROMISES

LOST = 1e-12  # an epsilon that is lost in the rounding of all boxes that are tried
FORMS = {"yolov5-master": "yolov5-7.0", "yolov5-3.0": "yolov5-7.0", "yolov5-3.1": "yolov5-5.0"}  # only in rounding
SIDES = {"yolov5-6.2": "yolov5-7.0", "yolov7": "yolov5-5.0"}  # only in the angle, which CIoU alone has


def alike(one: Dialect, other: Dialect) -> bool:
    """Whether no case tells losses of two dialects apart."""
    return _plain(one) == _plain(other)


def _plain(dialect: Dialect) -> dict[str, object]:
    form, eps = FORMS.get(dialect.overlap_form, dialect.overlap_form), dialect.overlap_eps
    plain = dict(dialect) | {
        "overlap_form": "yolov5-7.0" if eps < LOST else form if dialect.overlap == "ciou" else SIDES.get(form, form),
        "overlap_eps": 0.0 if eps < LOST else eps,
        # only CIoU can be below -1
        "overlap_range": dialect.overlap_range if dialect.overlap == "ciou" else "free",
        # the order of a loss's rows is one of those that any allows
        "row_order": "choice-anchor-target" if dialect.row_order == "any" else dialect.row_order,
        "balance": {n: [float(f"{w:.6g}") for w in table] for n, table in layer_weights(dialect).items()},
        "objectness_gain": "",  # seen as a part of the balance
        "layer_scale": "all" if dialect.layer_scale != "none" else "none",  # of objectness: the same
        "classes": dialect.only_classes,
    }
    if len(dialect.class_weights) == 2 and dialect.smoothing == "over classes":
        plain["smoothing"] = "half"
    return {choice: value for choice, value in plain.items() if choice not in PROMISES}
