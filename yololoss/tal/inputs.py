"""What the loss reads of its inputs: predictions in every form that upstream has had, and the targets of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from yololoss.tal.boxes import bounded

SIDES = 4


class Predictions(NamedTuple):
    """Raw logits of all levels, and the levels' rows and columns."""

    boxes: Float[Tensor, "B K A"]  # K = 4 R channels: left, top, right, bottom, R bins each
    scores: Float[Tensor, "B C A"]
    grids: tuple[tuple[int, int], ...]

    @property
    def dtype(self) -> torch.dtype:
        """What the loss computes in: float32, or float64 for float64 predictions."""
        return torch.promote_types(torch.promote_types(self.boxes.dtype, self.scores.dtype), torch.float32)


class Targets(NamedTuple):
    """The targets of a batch in the order of its rows, and one row more that is never present: that of no target."""

    image: Int64[Tensor, " N"]  # N = T + 1
    cls: Int64[Tensor, " N"]
    box: Float32[Tensor, "N 4"]  # corners in pixels
    present: Bool[Tensor, " N"]


def unwrapped(preds: Any) -> Any:
    """Predictions of a model in eval mode come as (inference output, predictions): the second of them."""
    if isinstance(preds, tuple) and len(preds) == 2 and not isinstance(preds[1], Tensor):
        return preds[1]
    return preds


def read_predictions(preds: Any, reg_max: int) -> Predictions:
    """Predictions of either form.

    A mapping has ``boxes`` (B, 4 R, A), ``scores`` (B, C, A) and ``feats``, of which only rows and columns are read.
    A sequence has a tensor (B, 4 R + C, H, W) for each level.
    """
    preds = unwrapped(preds)
    if isinstance(preds, Mapping):
        return Predictions(preds["boxes"], preds["scores"], tuple((f.shape[-2], f.shape[-1]) for f in preds["feats"]))
    # Joined and then split: so the gradient of each level is one tensor, and no sum of two.
    joined = torch.cat([level.flatten(2) for level in preds], dim=2)
    channels = SIDES * reg_max
    boxes, scores = joined.split_with_sizes((channels, joined.shape[1] - channels), dim=1)
    return Predictions(boxes, scores, tuple((level.shape[2], level.shape[3]) for level in preds))


def read_targets(
    batch: Mapping[str, Tensor], size: Sequence[float], images: int, classes: int, device: torch.device
) -> Targets:
    """The targets of a batch, in float32 and on ``device``, to which they are copied if they are elsewhere.

    ``batch``: ``batch_idx`` and ``cls``, (T,) or (T, 1), and ``bboxes`` (T, 4): x, y, w, h as fractions of the image.
    ``size``: height and width of the images in pixels. A row is present if its image and class exist, and its box is
    finite and has a size: so rows of zeros are padding. Source: SPEC section 2; what is present, section 9.
    """
    height, width = size
    image, cls, boxes = (batch[name].to(device).float() for name in ("batch_idx", "cls", "bboxes"))
    image, cls, fractions = image.reshape(-1), cls.reshape(-1), boxes.reshape(-1, SIDES)
    present = (image >= 0) & (image < images) & (cls >= 0) & (cls < classes)
    present = present & fractions.isfinite().all(1) & (fractions[:, 2:] > 0).all(1)
    # Scaled, then halved, then added: another order rounds otherwise, and rounding decides at edges.
    x, y, w, h = (side * pixels for side, pixels in zip(fractions.unbind(1), (width, height) * 2, strict=True))
    corners = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1)
    image, cls = (torch.where(present, index, 0).long() for index in (image, cls))
    corners = torch.where(present[:, None], bounded(corners), 0)
    return Targets(
        *(torch.cat((value, value.new_zeros(1, *value.shape[1:]))) for value in (image, cls, corners, present))
    )
