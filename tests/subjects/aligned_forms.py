"""Other right ways to write and to call the task-aligned loss. No law may accuse them.

They differ in what the specification leaves open: who wins a tie, how a sum is rounded, how the result is returned.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils.checkpoint import checkpoint

from tests.subjects.aligned import PlainAligned, ciou
from yololoss import TaskAlignedLoss

KEYS = ("batch_idx", "cls", "bboxes")  # of a batch that a loss may read


class InDouble(PlainAligned):
    """Computes everything in float64."""

    def split(self, preds: Any) -> Any:
        sides, scores, grids = super().split(preds)
        return sides.double(), scores.double(), grids


class Sorted(PlainAligned):
    """Takes the best of a sorted list, of equal ones the last."""

    def best(self, metric: Tensor, k: int) -> Tensor:
        order = metric.flip(2).argsort(dim=2, descending=True, stable=True)
        at = metric.shape[2] - 1 - order[..., :k]
        return torch.zeros_like(metric, dtype=torch.bool).scatter_(2, at, True)


class LastRowWins(PlainAligned):
    """Gives a contested anchor to the last of the rows with the same overlap."""

    def table(self, batch: Mapping[str, Tensor], images: int, size: Tensor) -> Any:
        backwards = {name: batch[name].flip(0) for name in KEYS}
        return super().table(backwards, images, size)


class RankedByLogarithm(PlainAligned):
    """Ranks anchors by the logarithm of their metric, so none vanishes."""

    def best(self, metric: Tensor, k: int) -> Tensor:
        return super().best(metric.double().log(), k)


class MeanByProduct(PlainAligned):
    """Decodes distances by a product with the bins."""

    def distances(self, sides: Tensor) -> Tensor:
        if self.reg_max == 1:
            return super().distances(sides)
        bins = torch.arange(self.reg_max, device=sides.device, dtype=sides.dtype)
        return sides.movedim(3, 1).softmax(-1) @ bins


class ImageByImage(PlainAligned):
    """Works on one image after another, and puts the sums together."""

    def assign(self, scores: Tensor, predicted: Tensor, target: Any, pixels: Tensor) -> Any:
        assign = super().assign
        targets = zip(*(each.split(1) for each in target), strict=True)
        images = zip(scores.split(1), predicted.split(1), targets, strict=True)
        row, score = zip(*(assign(*image, pixels) for image in images), strict=True)
        return torch.cat(row), torch.cat(score)


class CrossEntropies(PlainAligned):
    """Writes the third term as two cross entropies."""

    def of_foreground(self, front: Tensor, row: Tensor, made: Any, target: Any, at: Any) -> Any:
        box, third = super().of_foreground(front, row, made, target, at)
        if self.reg_max == 1 or not len(third):
            return box, third
        image, anchor = front.nonzero(as_tuple=True)
        corners = target[1][image, row[front]] / at[1][anchor]
        wanted = torch.cat((at[0][anchor] - corners[:, :2], corners[:, 2:] - at[0][anchor]), dim=1)
        wanted = wanted.clamp(0, self.reg_max - 1.01)
        low, logits = wanted.long(), made[0].movedim(3, 1)[front].reshape(-1, self.reg_max)
        left, right = (cross_entropy(logits, (low + i).flatten(), reduction="none").view_as(wanted) for i in (0, 1))
        near = low + 1 - wanted
        return box, (left * near + right * (1 - near)).mean(-1)


class Checkpointed(PlainAligned):
    """Keeps nothing of the terms of the foreground for the backward pass, and computes them again there."""

    def of_foreground(self, *given: Any) -> Any:
        return checkpoint(super().of_foreground, *given, use_reentrant=False)


class OneHotLater(PlainAligned):
    """Sums the class term as that of the background, less score x logit of the foreground."""

    def items(self, preds: Any, batch: Mapping[str, Tensor]) -> Tensor:
        found = super().items(preds, batch)
        sides, scores, grids = self.split(preds)
        points, strides = self.anchors(grids, scores)
        height, width = (n * float(self.stride[0]) for n in grids[0])
        target = self.table(batch, len(scores), torch.tensor((width, height), device=scores.device))
        if not target[0].shape[1]:
            return found
        distance = self.distances(sides)
        cells = torch.cat((points - distance[..., :2], points + distance[..., 2:]), dim=-1)
        with torch.no_grad():
            row, score = self.assign(scores, (cells * strides).float(), target, points * strides)
        own = scores.gather(1, target[0].gather(1, row)[:, None])[:, 0]
        weights = torch.ones(self.nc, device=scores.device) if self.class_weights is None else self.class_weights
        of_all = -(logsigmoid(-scores) * weights[:, None]).sum()
        of_own = (own * score * weights[target[0].gather(1, row)]).sum()
        cls = self.hyp.cls * (of_all - of_own) / score.sum().clamp(min=1)
        return torch.stack((found[0], cls.float(), found[2]))


class AsModule(nn.Module):
    """A module, called by its forward."""

    def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        super().__init__()
        self.loss = PlainAligned(model, tal_topk, tal_topk2)

    def forward(self, preds: Any, batch: Mapping[str, Tensor]) -> Any:
        return self.loss(preds, batch)


class OneTotal(PlainAligned):
    """Returns a total of shape (), and items as a tensor."""

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> Any:
        total, items = super().__call__(preds, batch)
        return total.sum(), torch.stack(list(items.values()))


class ItemsAsNumbers(PlainAligned):
    """Returns items as Python's numbers."""

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> Any:
        total, items = super().__call__(preds, batch)
        return total, {name: value.item() for name, value in items.items()}


class CopiesInputs(TaskAlignedLoss):
    """Works on contiguous copies of its inputs."""

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> Any:
        return super().__call__(copied(preds), {name: batch[name].detach().clone() for name in KEYS})


def copied(preds: Any) -> Any:
    """The predictions, contiguous, in new memory."""
    if isinstance(preds, Tensor):
        return preds.contiguous().clone()
    if isinstance(preds, Mapping):
        return {name: copied(each) for name, each in preds.items()}
    return type(preds)(copied(each) for each in preds)


class RowsReversed(TaskAlignedLoss):
    """Reads the rows of a batch from the last to the first."""

    def _assign(self, read: Any, batch: Mapping[str, Tensor], every_pair: bool) -> Any:
        return super()._assign(read, {name: batch[name].flip(0) for name in KEYS}, every_pair)


class Unchecked(TaskAlignedLoss):
    """Does not check its inputs, so nothing waits."""

    def __init__(self, model: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        super().__init__(model, tal_topk, tal_topk2, checks=False)


class Padded(Unchecked):
    """Adds rows of zeros to every batch."""

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> Any:
        own = {name: batch[name] for name in KEYS}
        padded = {name: torch.cat((rows, rows.new_zeros(3, *rows.shape[1:]))) for name, rows in own.items()}
        return super().__call__(preds, padded)


class InferenceAssign(TaskAlignedLoss):
    """Assigns on copies that carry no gradient."""

    def _assign(self, read: Any, batch: Mapping[str, Tensor], every_pair: bool) -> Any:
        still = read._replace(boxes=read.boxes.detach().clone(), scores=read.scores.detach().clone())
        return super()._assign(still, batch, every_pair)


class VmappedOverlap(PlainAligned):
    """Compares boxes by vmap over the foreground, and adds up by einsum."""

    def of_foreground(self, front: Tensor, row: Tensor, made: Any, target: Any, at: Any) -> Any:
        box, third = super().of_foreground(front, row, made, target, at)
        image, anchor = front.nonzero(as_tuple=True)
        if not len(image):
            return box, third
        corners = target[1][image, row[front]] / at[1][anchor]
        return torch.vmap(ciou)(made[2][front], corners), third


PLAIN = "yololoss, bad_input = any, corner = dropped"
# each with the dialect that has its choices
FORMS = {
    f"{kind.__module__}:{kind.__name__}": dialect
    for dialect, kinds in {
        PLAIN: (
            PlainAligned,
            InDouble,
            Sorted,
            LastRowWins,
            RankedByLogarithm,
            MeanByProduct,
            ImageByImage,
            CrossEntropies,
            Checkpointed,
            OneHotLater,
            AsModule,
            ItemsAsNumbers,
            VmappedOverlap,
        ),
        f"{PLAIN}, total = one": (OneTotal,),
        "yololoss": (CopiesInputs, RowsReversed, InferenceAssign),
        "yololoss, bad_input = any": (Unchecked, Padded),
    }.items()
    for kind in kinds
}
