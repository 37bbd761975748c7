"""The criteria against their formulas, in float64, worked out with the math module."""

import math

import pytest
import torch
from torch import nn

from yololoss import FocalLoss, QFocalLoss, smooth_bce

LOGITS = (-3.0, -0.4, 0.0, 1.2, 4.0)
TRUTH = (0.0, 0.3, 1.0, 0.8, 0.0)


def elements(gamma: float, weight: float, quality: bool) -> list[float]:
    out = []
    for x, t in zip(LOGITS, TRUTH, strict=True):
        s = 1 / (1 + math.exp(-x))
        bce = -(weight * t * math.log(s) + (1 - t) * math.log(1 - s))
        last = abs(t - s) if quality else 1 - (t * s + (1 - t) * (1 - s))
        out.append(bce * (t * 0.25 + (1 - t) * 0.75) * last**gamma)
    return out


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("quality", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_losses_are_their_formulas(gamma, quality, reduction):
    """Elementwise formula, then the reduction of the given BCE, which stays as it was."""
    bce = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.7], dtype=torch.float64), reduction=reduction)
    criterion = (QFocalLoss if quality else FocalLoss)(bce, gamma)
    logits, truth = (torch.tensor(v, dtype=torch.float64) for v in (LOGITS, TRUTH))
    got = criterion(logits, truth)
    want = elements(gamma, 1.7, quality)
    expected = {"none": want, "mean": [sum(want) / len(want)], "sum": [sum(want)]}[reduction]
    assert got.reshape(-1).tolist() == pytest.approx(expected, rel=1e-12)  # float64
    assert bce.reduction == reduction


def test_smoothing_is_half_each_way():
    """(1 - s / 2, s / 2)."""
    assert smooth_bce(0.1) == (0.95, 0.05)
    assert smooth_bce() == (1.0, 0.0)
