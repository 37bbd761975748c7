"""The situations in which YOLOv5-style losses often go wrong, and which of them apply to a case."""

import numpy as np

from .case import Case

REGIONS = (
    "no targets",
    "image without targets",
    "on a grid line",
    "beside a grid line",
    "at half a cell",
    "beside half a cell",
    "on the near edge",
    "on the far edge",
    "in a corner",
    "outermost half cell",
    "ratio at the limit",
    "ratio beside the limit",
    "duplicate rows",
    "same centre, other size",
    "layer without a match",
    "layer with one pair",
    "one class",
    "one cell",
    "not square",
    "one layer",
    "five layers",
    "logits set by hand",
    "confident background",
    "saturated logits",
    "half precision",
    "not contiguous",
    "hyperparameters changed",
    "options changed",
)


def regions(case: Case) -> list[str]:
    """The regions of `REGIONS` that apply to the case. Computed in float32, as assignment is."""
    found = {
        "one class": case.classes == 1,
        "one layer": case.layers == 1,
        "five layers": case.layers == 5,
        "one cell": (1, 1) in case.grids,
        "not square": any(rows != columns for rows, columns in case.grids),
        "logits set by hand": bool(getattr(case.predictions, "overrides", ())),
        "confident background": getattr(case.predictions, "offset", 0.0) <= -12,
        "saturated logits": getattr(case.predictions, "scale", 0.0) >= 60,
        "half precision": case.dtype in ("float16", "bfloat16"),
        "not contiguous": case.layout != "contiguous",
        "hyperparameters changed": case.hyp != type(case.hyp)(),
        "options changed": case.options != type(case.options)(),
        "no targets": not case.targets,
        "image without targets": len({t[0] for t in case.targets}) < case.batch,
        "duplicate rows": len(set(case.targets)) < len(case.targets),
        "same centre, other size": _same_centre(case),
    }
    if case.targets:
        for name in _geometry(case):
            found[name] = True
    return [name for name in REGIONS if found.get(name)]


def _same_centre(case: Case) -> bool:
    different = set(case.targets)
    return len({(t[0], t[2], t[3]) for t in different}) < len(different)


def _geometry(case: Case) -> set[str]:
    targets = case.target_rows.numpy().astype(np.float32)
    extent = np.array(case.grids, dtype=np.float32)[:, None, ::-1]  # (layers, 1, 2), so all layers are computed at once
    centre, size = targets[:, 2:4] * extent, targets[:, 4:] * extent
    ratio = size[:, None] / np.array(case.anchors, dtype=np.float32)[:, :, None]  # (layers, anchors, targets, 2)
    worst = np.maximum(ratio, 1 / ratio)
    limit = np.float32(case.hyp.anchor_t)
    pairs = (worst.max(axis=3) < limit).sum(axis=(1, 2))
    beside, at = (abs(worst / limit - 1) < 1e-6).any(axis=(1, 2, 3)), worst == limit
    tests = {
        **_centres(centre, extent),
        "ratio at the limit": at,
        "ratio beside the limit": beside & ~at.all(axis=(1, 2, 3)),
        "layer without a match": pairs == 0,
        "layer with one pair": pairs == 1,
    }
    return {name for name, holds in tests.items() if holds.any()}


def _centres(centre: np.ndarray, extent: np.ndarray) -> dict[str, np.ndarray]:
    halves = 2 * centre
    nearest = np.round(halves)
    on, odd = halves == nearest, nearest % 2 == 1
    beside = ~on & (abs(halves - nearest) < 2e-5)
    inside = (centre > 0) & (centre < extent)
    near, far = centre == 0, centre == extent
    return {
        "on a grid line": on & ~odd & inside,
        "beside a grid line": beside & ~odd & inside,
        "at half a cell": on & odd,
        "beside half a cell": beside & odd,
        "on the near edge": near,
        "on the far edge": far,
        "in a corner": (near | far).all(axis=-1),
        "outermost half cell": inside & ((centre < 0.5) | (extent - centre < 0.5)),
    }
