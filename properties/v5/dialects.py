"""Dialects of v5 losses, and the choices in which each differs from upstream without fault.

A law names the choices that it assumes. It does not apply to a loss of a dialect that chooses otherwise; all other laws
do. Source: FAMILIES, "known differences between families that are choices".
"""

# What a law may assume: what upstream does.
CHOICES = {
    "grid lines": "a centre on a grid line has up to 5 rows; else the right and below rules go by the own cell's half",
    "far edge": "the cell is clamped, so a centre at 1.0 lies in the last cell; else such a target is an error",
    "row order": "rows come by choice, anchor, target",
    "iou": "CIoU as it is; else GIoU, or CIoU clamped to [-1, 1]",
    "label smoothing": "label smoothing is heeded",
    "balance": "objectness is balanced by layer 4, 1, 0.4 or 4, 1, 0.25, 0.06, 0.02",
    "batch": "the total is times the batch size",
    "shared cells": "the last row wins a shared cell unless sort_obj_iou",
    "target dtype": "targets of float64 are assigned in float32; else in float64, as torch joins them with anchors",
    "drop-in": "built of a model that may be wrapped for several devices, whose hyp may lack label_smoothing",
    "interface": "autobalance, sort_obj_iou, gr and build_targets are there; else laws about them do not apply",
    "bad input": "what is no valid input is refused with a ValueError or TypeError; else what happens is noted only",
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
    "giou": frozenset({"iou"}),  # upstream in all but the overlap
    "own-order": frozenset({"row order"}),  # upstream in all but the order of what build_targets returns
    "any": frozenset(CHOICES),  # what holds whatever was chosen
}

# What the bundled loss promises beyond upstream is asked of no other dialect.
BEYOND = frozenset({"bad input", "interface", "target dtype"})
DIALECTS = {"yololoss": frozenset[str](), **{name: chosen | BEYOND for name, chosen in _OTHERS.items()}}
