"""The task-aligned detection loss: class, box and distance terms over all levels."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from yololoss.tal.assign import Assigner, Matching, Pairs
from yololoss.tal.boxes import anchor_points, corners_around, expected_distance, rounded_once
from yololoss.tal.checks import check_batch, check_predictions
from yololoss.tal.explain import Assignment
from yololoss.tal.inputs import SIDES, Predictions, read_predictions, read_targets
from yololoss.tal.parts import Gains, Head, args_of
from yololoss.tal.terms import class_term, scored_rows, side_terms

LOGITS = 2**20  # of sides that are decoded together in float64, which bounds the memory

Returns = Literal["dict", "tensor", "scalar"]
Items = dict[str, Float32[Tensor, ""]] | Float32[Tensor, " 3"]
Terms = tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]


class TaskAlignedLoss:
    """The detection loss of YOLOv8 to 26, a drop-in replacement for upstream's ``v8DetectionLoss``.

    ``TaskAlignedLoss(model, tal_topk=10, tal_topk2=None)`` reads ``model.args``, the head ``model.model[-1]``, and
    ``model.class_weights``, if there are any; ``TaskAlignedLoss.from_parts`` needs no model. Call it with predictions
    and a batch::

        total, items = loss(preds, batch)

    preds: a mapping of ``boxes`` (B, 4 R, A), ``scores`` (B, C, A) and ``feats`` (a tensor (B, any, H, W) for each
    level), or, as before version 8.4.0, a list with a tensor (B, 4 R + C, H, W) for each level. All are raw logits.
    A tuple (inference output, preds), which a model returns in eval mode, is unwrapped.
    batch: a mapping of ``batch_idx`` and ``cls``, (T,) or (T, 1), and ``bboxes`` (T, 4) float: x, y, w, h as fractions
    of the image, x and y the box centre. Rows may be in any order. They are copied to the predictions' device, if they
    are on another one.

    ``returns`` is the one switch between the results of versions of upstream:

    - "dict", since 8.4.101-130: total (3,), and items as a dict of ``box_loss``, ``cls_loss`` and ``dfl_loss``
      (``l1_loss`` if R = 1), each of shape ().
    - "tensor", since 8.3.41-100: total (3,), items (3,).
    - "scalar", before: total (), which is the sum of the three; items (3,).

    Total: box, class and distance terms times gains times B, with gradient. Items: the same without B, detached. All
    are float32. Half precision is computed in float32, float64 in float64. Source: SPEC sections 1 to 6.

    ``checks``: check the inputs of every call (ValueError, TypeError), which waits for an accelerator. Without checks
    nothing waits, and invalid rows are left out: no such image or class, a box that is not finite or has no size. So
    a batch may be padded with rows of zeros. Shapes depend only on the shapes of the inputs, with checks and without.

    ``hyp`` is the model's own object ``args``: the next call sees a change of a gain. So it does with a change of
    ``assigner``. After replacing a head or its strides, classes or class weights, call `refresh`. Upstream's methods
    ``preprocess``, ``bbox_decode`` and ``bbox_loss`` have no counterpart.
    """

    def __init__(
        self,
        model: nn.Module,
        tal_topk: int = 10,
        tal_topk2: int | None = None,
        *,
        returns: Returns = "dict",
        checks: bool = True,
    ) -> None:
        args = args_of(model, "box", "cls", "dfl")
        self._set_up(args, Head.of(model), Assigner(tal_topk, tal_topk2), returns, checks)

    @classmethod
    def from_parts(
        cls,
        strides: Float[Tensor, " L"] | Sequence[float],
        classes: int,
        reg_max: int = 16,
        *,
        gains: Gains | None = None,
        assigner: Assigner | None = None,
        class_weights: Float[Tensor, " C"] | Sequence[float] | None = None,
        returns: Returns = "dict",
        checks: bool = True,
        device: torch.device | str | None = None,
    ) -> "TaskAlignedLoss":
        """Make a loss without a model.

        ``strides``: (L,), pixels per cell. ``reg_max``: R, the bins of a side; with 1 the head predicts distances.
        ``class_weights``: (C,), factors of the class term; on ``device``. Raises ValueError for parts that do not fit.
        """
        loss = cls.__new__(cls)
        head = Head.of_parts(strides, classes, reg_max, class_weights, torch.device(device or "cpu"))
        loss._set_up(gains or Gains(), head, assigner or Assigner(), returns, checks)
        return loss

    def refresh(self, model: nn.Module) -> None:
        """Read strides, classes, bins, class weights and device again, after the model's were replaced or moved."""
        self._set_head(Head.of(model))

    def _set_up(self, hyp: Any, head: Head, assigner: Assigner, returns: Returns, checks: bool) -> None:
        if returns not in ("dict", "tensor", "scalar"):
            raise ValueError(f"returns: expected 'dict', 'tensor' or 'scalar', got {returns!r}")
        self.hyp = hyp
        self.assigner = assigner
        self.returns = returns
        self.checks = checks
        self._set_head(head)

    def _set_head(self, head: Head) -> None:
        self._head = head
        self.stride, self.nc, self.reg_max = head.stride, head.classes, head.reg_max
        self.no = self.nc + SIDES * self.reg_max
        self.use_dfl = self.reg_max > 1
        self.class_weights, self.device = head.class_weights, head.device

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Float32[Tensor, "*n"], Items]:
        """The total, with gradient, and the items, detached; `TaskAlignedLoss` says in which form."""
        values, images = self.values(preds, batch)
        return self.results(values * images, values.detach())

    def results(self, total: Float32[Tensor, " 3"], items: Float32[Tensor, " 3"]) -> tuple[Tensor, Items]:
        """Total and items in the form that ``returns`` says."""
        if self.returns == "dict":
            names = "box_loss", "cls_loss", "dfl_loss" if self.use_dfl else "l1_loss"
            return total, dict(zip(names, items.unbind(), strict=True))
        return total if self.returns == "tensor" else total.sum(), items

    def values(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Float32[Tensor, " 3"], int]:
        """The box, class and distance terms times their gains, (3,) float32, with gradient; and B."""
        read = self._read(preds, batch)
        gains = self.hyp.box, self.hyp.cls, self.hyp.dfl
        weighted = [term * gain for term, gain in zip(self._terms(read, batch), gains, strict=True)]
        return torch.stack(weighted).float(), read.scores.shape[0]

    def terms(self, preds: Any, batch: Mapping[str, Tensor]) -> Terms:
        """The box, class and distance terms before gains, each divided by the sum of scores, with gradient.

        In float32, or float64 for float64 predictions.
        """
        return self._terms(self._read(preds, batch), batch)

    def assign(self, preds: Any, batch: Mapping[str, Tensor]) -> Assignment:
        """The assignment of the batch, with every pair of a target and an anchor (`Assignment`)."""
        read = self._read(preds, batch)
        with torch.no_grad():
            return self._assign(read, batch, every_pair=True)

    def _read(self, preds: Any, batch: Mapping[str, Tensor]) -> Predictions:
        if self.checks:
            check_predictions(preds, classes=self.nc, reg_max=self.reg_max, strides=self._head.strides)
        read = read_predictions(preds, self.reg_max)
        if self.checks:
            check_batch(batch, images=read.scores.shape[0], classes=self.nc)
        return read

    def _size(self, read: Predictions) -> tuple[float, float]:
        """Height and width of the images in pixels. They are numbers, not tensors, so they are exact."""
        rows, columns = read.grids[0]
        return rows * self._head.strides[0], columns * self._head.strides[0]

    def _assign(self, read: Predictions, batch: Mapping[str, Tensor], every_pair: bool) -> Assignment:
        images, classes, _ = read.scores.shape
        strides = self._head.strides
        device = read.scores.device
        targets = read_targets(batch, self._size(read), images, classes, device)
        anchors = anchor_points(read.grids, strides, device)
        distance = self._distances(read)
        predicted = corners_around(anchors.point, distance) * anchors.stride[:, None]
        matching = Matching(
            targets, predicted.float(), read.scores, anchors, strides[min(1, len(strides) - 1)], self.assigner
        )
        seen: list[Pairs] | None = [] if every_pair else None
        owners = matching.owners(seen)
        metric, overlap = matching.of_owners(owners.row)
        return Assignment(
            grids=read.grids,
            anchors=anchors,
            targets=targets,
            owners=owners,
            metric=metric,
            overlap=overlap,
            score=matching.target_scores(owners.row, metric, overlap),
            unusable=owners.candidate & ~distance.isfinite().all(2),
            pairs=None if seen is None else Pairs.joined(seen),
        )

    def _distances(self, read: Predictions) -> Float[Tensor, "B A 4"]:
        """The predicted distances to the sides of all anchors, rounded once; some images at a time."""
        images, channels, number = read.boxes.shape
        some = max(LOGITS // (channels * number), 1)
        logits = read.boxes.reshape(images, SIDES, self.reg_max, number)
        parts = (rounded_once(expected_distance, part.to(read.dtype)) for part in torch.split(logits, some))
        return torch.cat(list(parts)).movedim(1, 2)

    def _terms(self, read: Predictions, batch: Mapping[str, Tensor]) -> Terms:
        # Nothing here is an operation that autocast would compute in half precision, as it would a matrix product.
        with torch.no_grad():
            assigned = self._assign(read, batch, every_pair=False)
            divisor = assigned.score.sum().clamp(min=1)
            rows = scored_rows(assigned, self.assigner.most)
        cls = class_term(read.scores, read.dtype, assigned, self.class_weights)
        box, third = side_terms(read.boxes, read.dtype, rows, self.reg_max, self._size(read))
        # An anchor without a finite box, inside a target: no finite value would be true.
        box = box + torch.where(assigned.unusable.any(), torch.nan, 0.0)
        return box / divisor, cls / divisor, third / divisor
