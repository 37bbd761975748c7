"""The three terms, each summed over the batch: class, box, and distance to the sides."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import softplus
from typing_extensions import override

from yololoss.tal.boxes import DFL_MARGIN, bounded, ciou, corners_around, distances_to, expected_distance
from yololoss.tal.explain import Assignment
from yololoss.tal.inputs import SIDES

LIMIT = 1e30  # logits are cut off here: the sum of a hundred million of them is finite in float32
EXACT_SOFTPLUS = 40.0  # beyond, log(1 + exp x) is x, also in float64


class Rows(NamedTuple):
    """The anchors with a score above 0: n rows, of which some are absent, as only the device knows their number."""

    image: Int64[Tensor, " n"]
    anchor: Int64[Tensor, " n"]
    present: Bool[Tensor, " n"]
    score: Float[Tensor, " n"]  # 0 if absent
    point: Float32[Tensor, "n 2"]  # the anchor's, in cells
    stride: Float32[Tensor, " n"]
    wanted: Float32[Tensor, "n 4"]  # corners of the target, in cells


def scored_rows(assigned: Assignment, most: int) -> Rows:
    """The rows of an assignment in which a target has ``most`` anchors on average, or fewer."""
    score = assigned.score.flatten()
    found = score > 0
    size = min(most * (len(assigned.targets.image) - 1), len(score))
    # The n-th of those that are found goes to slot n. All others share one slot more, which is cut off. Slots that
    # stay empty are of different anchors: gradients of one anchor, even of 0, are added one after another.
    slot = torch.where(found, found.cumsum(0) - 1, size)
    at = torch.arange(size + 1, device=score.device)
    at = at.scatter_(0, slot, torch.arange(len(score), device=score.device))[:size]
    present = torch.arange(size, device=score.device) < found.sum()
    anchors = assigned.score.shape[1]
    anchor = at % anchors
    stride = assigned.anchors.stride[anchor]
    return Rows(
        image=at // anchors,
        anchor=anchor,
        present=present,
        score=torch.where(present, score[at], 0),
        point=assigned.anchors.point[anchor],
        stride=stride,
        wanted=assigned.targets.box[assigned.owners.row.flatten()[at]] / stride[:, None],
    )


class _ClassTerm(torch.autograd.Function):
    # The gradient is sigmoid - score, whatever the logit: also where the value is cut off, infinite or NaN. Only the
    # logits are kept for it, as they are, and nothing else of their size. Its own gradient is made of its operations.

    @staticmethod
    @override
    def forward(
        ctx: FunctionCtx, logits: Tensor, label: Tensor, score: Tensor, weights: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(logits, label, score, weights)  # type: ignore[arg-type]  # None may be saved
        ctx.dtype = dtype  # type: ignore[attr-defined]
        x = logits.to(dtype)
        # log(1 + e^x) - t x is BCE without the difference of two large numbers that confident negatives would be
        bce = softplus(x, threshold=EXACT_SOFTPLUS).clamp_(max=LIMIT)
        at = label[:, None]
        own = bce.gather(1, at) - score[:, None].to(dtype) * x.gather(1, at).clamp(-LIMIT, LIMIT)
        bce.scatter_(1, at, own)
        return (bce if weights is None else bce * weights[:, None]).sum(dtype=dtype)

    @staticmethod
    @override
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, score, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        sigmoid = logits.to(ctx.dtype).sigmoid()  # type: ignore[attr-defined]
        at = label[:, None]
        own = sigmoid.gather(1, at) - score[:, None].to(sigmoid.dtype)
        if torch.is_grad_enabled():  # for a gradient of this one, which asks for the sigmoid as it was
            slope = sigmoid.scatter(1, at, own) * grads[0]
        else:
            slope = sigmoid.scatter_(1, at, own).mul_(grads[0])
        return (slope if weights is None else slope * weights[:, None]).to(logits.dtype), None, None, None, None


class _CutOff(torch.autograd.Function):
    # Numbers beyond the limit are cut off, so that sums are finite, but they keep their gradient: they may come back.

    @staticmethod
    @override
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        return values.clamp(-LIMIT, LIMIT)

    @staticmethod
    @override
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        return grads[0]


def class_term(
    logits: Float[Tensor, "B C A"], dtype: torch.dtype, assigned: Assignment, weights: Float32[Tensor, " C"] | None
) -> Float[Tensor, ""]:
    """The sum of BCE(logit, score) over all anchors and classes, times the weights of the classes, in ``dtype``.

    The score of an anchor stands at its label; it is 0 for all other classes, and for the background.
    Source: SPEC section 5.
    """
    label = assigned.targets.cls[assigned.owners.row]
    weights = None if weights is None else weights.to(logits.device, dtype)
    term: Tensor = _ClassTerm.apply(logits, label, assigned.score, weights, dtype)  # type: ignore[no-untyped-call]
    return term


def side_terms(
    boxes: Float[Tensor, "B K A"], dtype: torch.dtype, rows: Rows, reg_max: int, size: tuple[float, float]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The box term, and the term of distances to the sides, in ``dtype``.

    ``boxes``: the raw logits of the sides. ``size``: height and width of the images in pixels. The box term is
    (1 - CIoU) score. Source: SPEC section 5.
    """
    # Logits of absent rows are not used, and may be NaN.
    used = torch.where(rows.present[:, None], boxes[rows.image, :, rows.anchor].to(dtype), 0)
    logits = used.reshape(-1, SIDES, reg_max)
    if reg_max > 1:  # the same number added to all bins changes nothing, and now the largest is not cut off
        logits = logits - logits.detach().amax(-1, keepdim=True)
    logits = _CutOff.apply(logits)  # type: ignore[no-untyped-call]
    distance = expected_distance(logits[..., None]).squeeze(-1)
    box = (1 - ciou(bounded(corners_around(rows.point, distance)), rows.wanted)) * rows.score
    wanted = distances_to(rows.point, rows.wanted)
    third = focal_distance(logits, wanted) if reg_max > 1 else relative_distance(distance, wanted, rows.stride, size)
    return box.sum(), (third * rows.score).sum()


def focal_distance(logits: Float[Tensor, "n 4 R"], wanted: Float32[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Distribution focal loss, the mean over the four sides: cross entropies of the two bins around the distance.

    Distances are cut off at 0 and R - 1.01. Source: Li et al. 2020, "Generalized Focal Loss"; SPEC section 5.
    """
    wanted = wanted.clamp(0, logits.shape[-1] - 1 - DFL_MARGIN)
    lower = wanted.long()
    near = (lower + 1 - wanted)[..., None]
    log_share = logits.log_softmax(-1)
    at_lower, at_upper = (log_share.gather(-1, (lower + i)[..., None]) for i in (0, 1))
    return -(near * at_lower + (1 - near) * at_upper).squeeze(-1).mean(-1)


def relative_distance(
    distance: Float[Tensor, "n 4"],
    wanted: Float32[Tensor, "n 4"],
    stride: Float32[Tensor, " n"],
    size: tuple[float, float],
) -> Float[Tensor, " n"]:
    """The mean absolute error of the four distances, each as a share of the image's side.

    Source: SPEC section 5 (L1, for R = 1).
    """
    pixels = (distance * stride[:, None] - wanted * stride[:, None]).abs()
    height, width = size
    return (pixels[:, 0::2] / width + pixels[:, 1::2] / height).sum(1) / SIDES
