"""The criteria compared with their formulas, in float64, computed with the math module."""

import math

import pytest
import torch
from torch import nn

from properties.v5 import formulas
from yololoss import BCEBlurWithLogitsLoss, FocalLoss, QFocalLoss, smooth_bce

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
    """The formula for each element, then the reduction of the given BCE, which is not changed."""
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


def test_quality_focal_and_blur_equal_the_reference():
    """The criteria beside the loss, against the independent formulas."""
    x, t = torch.linspace(-6, 6, 49, dtype=torch.float64), torch.linspace(0, 1, 49, dtype=torch.float64)
    bce = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.3], dtype=torch.float64))
    want = formulas.quality_focal(x.numpy(), t.numpy(), 1.3, 1.5).mean()
    assert QFocalLoss(bce, 1.5)(x, t).item() == pytest.approx(float(want), rel=1e-12)
    assert BCEBlurWithLogitsLoss()(x, t).item() == pytest.approx(
        float(formulas.bce_blur(x.numpy(), t.numpy()).mean()), rel=1e-12
    )


def test_without_gamma_a_focal_loss_is_a_share_of_bce():
    """Also if a prediction is exactly right, and the base of the power is 0: 0 to the power of 0 is 1."""
    logits, truth = torch.tensor([60.0, -60.0, 60.0, 0.3]).double(), torch.tensor([1.0, 0.0, 0.0, 1.0]).double()
    bce = nn.BCEWithLogitsLoss(reduction="none")
    share = 0.25 * truth + 0.75 * (1 - truth)
    assert torch.equal(FocalLoss(bce, 0.0)(logits, truth), bce(logits, truth) * share)


@pytest.mark.parametrize("criterion", [FocalLoss, QFocalLoss])
def test_the_usual_gamma_and_alpha_are_upstreams(criterion):
    """1.5 and 0.25."""
    usual = criterion(nn.BCEWithLogitsLoss())
    assert (usual.gamma, usual.alpha) == (1.5, 0.25)


def test_a_focal_loss_keeps_the_weight_of_its_bce():
    """Each element is multiplied by its weight."""
    logits, truth = (torch.tensor(v, dtype=torch.float64) for v in (LOGITS, TRUTH))
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    plain, weighted = (FocalLoss(nn.BCEWithLogitsLoss(w, reduction="none"))(logits, truth) for w in (None, weight))
    assert weighted.tolist() == pytest.approx((plain * weight).tolist(), rel=1e-12)  # float64


def test_a_focal_loss_is_finite_at_the_largest_logits():
    """A positive weight on top of the largest float32 would overflow, and an infinity times a weight of 0 is NaN."""
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([largest, -largest, largest, -largest], requires_grad=True)
    bce = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]), reduction="none")
    loss = FocalLoss(bce, 0.5)(logits, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert loss.isfinite().all()
    loss.sum().backward()
    assert logits.grad.isfinite().all()
