"""Classification criteria: BCE with logits, focal loss, quality focal loss, blurred BCE, and label smoothing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from typing_extensions import override

Elements = Float[Tensor, "*n"]
Loss = Float[Tensor, ""] | Float[Tensor, "*n"]


def smooth_bce(smoothing: float = 0.0) -> tuple[float, float]:
    """Binary targets (positive, negative) = (1 - s / 2, s / 2) for label smoothing s in [0, 1].

    Source: SPEC section 4.
    """
    return 1.0 - 0.5 * smoothing, 0.5 * smoothing


def bce_loss(pos_weight: float, device: torch.device) -> nn.BCEWithLogitsLoss:
    """Mean BCE with logits; its positive part is weighted by ``pos_weight``."""
    weight = None if pos_weight == 1 else torch.tensor([pos_weight], device=device)  # 1 changes nothing, and takes time
    return nn.BCEWithLogitsLoss(pos_weight=weight)


class _WeightedBCE(nn.Module):
    """Elementwise BCE times a weight, then the reduction of ``loss_fcn``, which is not changed."""

    def __init__(self, loss_fcn: nn.BCEWithLogitsLoss) -> None:
        super().__init__()
        self.loss_fcn = loss_fcn

    def weight(self, probability: Tensor, targets: Tensor) -> Tensor:
        """The factor of each element, from its probability and target."""
        raise NotImplementedError

    def forward(self, logits: Elements, targets: Elements) -> Loss:
        """The loss for soft ``targets`` in [0, 1], of the shape of ``logits``; a scalar if it is reduced."""
        # The loss is defined for logits up to 1e30. Beyond, the BCE may overflow, and infinity times a
        # weight of 0 is NaN.
        limit = min(1e30, torch.finfo(logits.dtype).max)
        logits = logits.clamp(-limit, limit)
        bce = binary_cross_entropy_with_logits(
            logits,
            targets,
            weight=self.loss_fcn.weight,
            pos_weight=self.loss_fcn.pos_weight,
            reduction="none",
        )
        weighted = bce * self.weight(logits.sigmoid(), targets)
        if self.loss_fcn.reduction == "none":
            return weighted
        return weighted.mean() if self.loss_fcn.reduction == "mean" else weighted.sum()


class FocalLoss(_WeightedBCE):
    """Focal loss: BCE x (t a + (1 - t)(1 - a)) x (1 - p_t)^gamma, p_t = t s + (1 - t)(1 - s), s = sigmoid.

    The gradient is finite for every gamma >= 0, also for saturated logits. The positive weight and the reduction
    are those of ``loss_fcn``. Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; SPEC 5.
    """

    def __init__(self, loss_fcn: nn.BCEWithLogitsLoss, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__(loss_fcn)
        self.gamma = gamma
        self.alpha = alpha

    @override
    def weight(self, probability: Tensor, targets: Tensor) -> Tensor:
        share = targets * self.alpha + (1 - targets) * (1 - self.alpha)
        p_t = targets * probability + (1 - targets) * (1 - probability)
        return share * _power(1 - p_t, self.gamma)


class QFocalLoss(FocalLoss):
    """Quality focal loss for soft targets: like `FocalLoss`, with the last factor |t - s|^gamma.

    Source: Li et al. 2020, "Generalized Focal Loss", with the alpha factor, as upstream has it; SPEC 5.
    """

    @override
    def weight(self, probability: Tensor, targets: Tensor) -> Tensor:
        share = targets * self.alpha + (1 - targets) * (1 - self.alpha)
        return share * _power((targets - probability).abs(), self.gamma)


class BCEBlurWithLogitsLoss(_WeightedBCE):
    """Mean BCE that reduces the effect of missing labels: BCE x (1 - exp((s - t - 1) / (alpha + 1e-4))), s = sigmoid.

    Source: SPEC section 5 (upstream's BCE-blur).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__(nn.BCEWithLogitsLoss())
        self.alpha = alpha

    @override
    def weight(self, probability: Tensor, targets: Tensor) -> Tensor:
        return 1 - ((probability - targets - 1) / (self.alpha + 1e-4)).exp()


def _power(base: Tensor, gamma: float) -> Tensor:
    """base^gamma for base >= 0, with gradient 0 if the base is 0 or subnormal.

    For 0 < gamma < 1 the derivative of the power is infinite at 0, where the derivative of sigmoid is 0. The limit of
    their product is 0, but in floating point it is NaN. For subnormal bases the derivative overflows.
    """
    positive = base > torch.finfo(base.dtype).tiny
    power = torch.where(positive, base, torch.ones_like(base)) ** gamma
    return torch.where(positive, power, torch.zeros_like(base) ** gamma)
