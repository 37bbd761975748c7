"""Dialects of v5 losses, and the choices in which each differs from upstream. These differences are no faults.

A law names the choices that it assumes. It does not apply to a dialect that chooses differently. All other laws apply.
Source: FAMILIES, "known differences between families that are choices".
"""

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
