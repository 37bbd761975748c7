"""The values that cases are drawn from. The first of each is the simplest, to which a case shrinks."""

from yololoss.harness.cases.case import Dtype
from yololoss.v5.hyp import Hyperparameters

from .case import Layout, Options, TargetsDtype

# First-layer grids (rows, columns); deeper layers halve them, rounding up. Square, wide, tall, odd, single.
GRIDS = ((2, 2), (4, 4), (1, 1), (3, 5), (8, 8), (6, 2), (2, 7), (5, 5), (1, 4), (10, 6), (13, 13), (16, 12))
LAYERS = (1, 3, 2, 3, 4, 3, 5)
FIRST_STRIDES = (8.0, 16.0, 4.0)
BATCHES = (1, 2, 3)
CLASSES = (2, 1, 3, 5, 20)
ANCHORS = (1, 3, 2, 3, 5)
# Anchors' sides in cells: exact in every dtype, in none, tiny. A box with a side of 3.003 that fits exactly has, in
# float32, an overlap above 1.
SIDES = (1.0, 2.0, 1.3, 3.75, 0.5, 4.125, 0.25, 3.003, 2.875, 6.1875, 0.06, 0.86297)
DTYPES: tuple[Dtype, ...] = ("float32", "float32", "float32", "float32", "float16", "bfloat16", "float64")
LAYOUTS: tuple[Layout, ...] = (
    "contiguous",
    "contiguous",
    "channels_last",
    "sliced",
    "transposed",
    "expanded",
)
TARGET_DTYPES: tuple[TargetsDtype, ...] = ("float32", "float32", "float32", "float64", "float16")
# (scale, offset) of the bulk logits: usual, all 0, wide, confident background, tiny boxes, saturated, narrow, and so
# large that an exponential overflows (in float16, three times as much is still finite, for positive weights).
LOGITS = ((4.0, 0.0), (0.0, 0.0), (8.0, 0.0), (2.0, -12.0), (1.0, -20.0), (60.0, 0.0), (1.0, 0.0), (16000.0, 0.0))
HYPS = (
    Hyperparameters(),
    Hyperparameters(label_smoothing=0.1),
    Hyperparameters(cls_pw=1.7, obj_pw=0.6),
    Hyperparameters(fl_gamma=1.5),
    Hyperparameters(fl_gamma=0.5),
    Hyperparameters(anchor_t=2.0),
    Hyperparameters(anchor_t=2.91),
    Hyperparameters(box=0.11, obj=1.3, cls=0.9),
    Hyperparameters(fl_gamma=0.7, label_smoothing=0.2, cls_pw=0.5, obj_pw=2.0),
    Hyperparameters(obj_pw=3.0),
    Hyperparameters(cls_pw=0.25),
    Hyperparameters(fl_gamma=2.0, cls_pw=2.5, obj_pw=3.0),
    Hyperparameters(fl_gamma=0.2, label_smoothing=0.05),
    Hyperparameters(box=7.5, obj=4.0, cls=2.5),
    Hyperparameters(label_smoothing=0.15, cls_pw=1.7),
    Hyperparameters(anchor_t=3.3),  # float32 rounds it down, and 2.91 up
    Hyperparameters(anchor_t=8.0, fl_gamma=1.0),
    Hyperparameters(anchor_t=1.2, fl_gamma=3.0),
)
LIMITS = tuple(Hyperparameters(anchor_t=limit) for limit in (4.0, 3.3, 4.2, 2.91, 8.0, 1.2))
# Only laws about several calls get several calls. So a fault of the second call breaks one of these laws.
ONE_CALL = (
    Options(),
    Options(),
    Options(sort_obj_iou=True),
    Options(gr=0.5),
    Options(gr=0.0),
    Options(sort_obj_iou=True, gr=0.25),
)
AUTOBALANCED = (Options(autobalance=True, calls=2), Options(autobalance=True, sort_obj_iou=True, gr=0.7, calls=3))
ALL_OPTIONS = (*ONE_CALL, Options(calls=2), AUTOBALANCED[0])
ULPS = (0, 0, 0, 1, -1, 4, -4)
# A case that is large in one respect is small in all others.
LARGE = ("targets", "images", "classes", "anchors", "sides", "columns", "rows")
SMALL = ("specks",)
# Sizes beyond 16 bits, or beyond float16, whose whole numbers end at 2,048.
VERY_LARGE = (
    "cells",
    "crowd",
    "thousands of images",
    "thousands of classes",
    "thousands of columns",
    "thousands of rows",
)
# The column of targets that counts so many.
COUNTED = {"thousands of images": 0, "thousands of classes": 1, "thousands of columns": 2, "thousands of rows": 3}
# How often targets are repeated, and the step of each repetition: right along a grid that is long.
REPEATS, SHIFT = {"targets": 25, "columns": 25, "rows": 25, "cells": 50, "crowd": 300}, 0.0390625
# Sides of a target as multiples of its anchor's, as exponents of anchor_t and factors: a fit, inside the
# limit, at the limit both ways, beyond it both ways.
RATIOS = ((0, 1.0), (0, 1.5), (0, 0.4), (1, 1.0), (-1, 1.0), (0, 2.7), (1, 1.1), (-1, 0.9))
AT_EDGE = ((0, 1.0), (0, 1.0), (1, 1.0), (-1, 1.0))
# What replaces the logits of the cell and anchor that a target is drawn for. An exact fit also moves the target so that
# logits of 0 predict it without rounding: to the cell's centre, with the anchor's size.
SPOTS = (
    "nothing",
    "nothing",
    "nothing",
    "fit",
    "no size",
    "no height",
    "certain",
    "denied",
    "beyond certain",
    "beyond denied",
    "exact fit",
    "far off",
    "gone",
)
EXTREME = 60.0  # beyond it sigmoid is 0 or 1 in every dtype
BEYOND = 1e4
FAR_BEYOND = 1e6  # too large for float16
