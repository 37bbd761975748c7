"""End-to-end losses: a one-to-many head beside a one-to-one head, each with a task-aligned loss of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from typing_extensions import Self, override

from yololoss.tal.assign import Assigner
from yololoss.tal.checks import check_heads
from yololoss.tal.inputs import unwrapped
from yololoss.tal.loss import Items, Returns, TaskAlignedLoss
from yololoss.tal.parts import Gains, args_of


class _TwoHeads:
    topk: tuple[int, int]  # of the one-to-many and of the one-to-one head
    topk2: int | None = None  # of the one-to-one head

    def __init__(self, model: nn.Module, *, returns: Returns = "dict", checks: bool = True) -> None:
        many, one = self.topk
        self.one2many = TaskAlignedLoss(model, many, returns=returns, checks=checks)
        self.one2one = TaskAlignedLoss(model, one, self.topk2, returns=returns, checks=checks)

    @classmethod
    def from_parts(
        cls,
        strides: Float[Tensor, " L"] | Sequence[float],
        classes: int,
        reg_max: int = 16,
        *,
        gains: Gains | None = None,
        class_weights: Float[Tensor, " C"] | Sequence[float] | None = None,
        returns: Returns = "dict",
        checks: bool = True,
        device: torch.device | str | None = None,
    ) -> Self:
        """Make a loss without a model; parts as for `TaskAlignedLoss.from_parts`."""

        def head(assigner: Assigner) -> TaskAlignedLoss:
            return TaskAlignedLoss.from_parts(
                strides,
                classes,
                reg_max,
                gains=gains,
                assigner=assigner,
                class_weights=class_weights,
                returns=returns,
                checks=checks,
                device=device,
            )

        loss = cls.__new__(cls)
        loss.one2many, loss.one2one = head(Assigner(cls.topk[0])), head(Assigner(cls.topk[1], cls.topk2))
        return loss

    def refresh(self, model: nn.Module) -> None:
        """Read strides, classes, bins, class weights and device again, after the model's were replaced or moved."""
        self.one2many.refresh(model)
        self.one2one.refresh(model)

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Float32[Tensor, "*n"], Items]:
        """The total, with gradient, and the items, detached. The form is that of `TaskAlignedLoss`."""
        preds = unwrapped(preds)
        if self.one2one.checks:
            check_heads(preds)
        many, images = self.one2many.values(preds["one2many"], batch)
        one, _ = self.one2one.values(preds["one2one"], batch)
        total, items = self._joined(many * images, one * images, many.detach(), one.detach())
        return self.one2one.results(total, items)

    def _joined(self, many: Tensor, one: Tensor, many_items: Tensor, one_items: Tensor) -> tuple[Tensor, Tensor]:
        """Total (3,) and items (3,) of totals and items of the two heads."""
        raise NotImplementedError


class E2ELoss(_TwoHeads):
    """The loss of YOLO26 and other heads with one-to-one branches, a drop-in replacement for upstream's ``E2ELoss``.

    ``E2ELoss(model)`` reads what `TaskAlignedLoss` reads, and ``model.args.epochs``; `from_parts` needs no model. ::

        total, items = loss({"one2many": preds, "one2one": preds}, batch)

    Each head's predictions are as for `TaskAlignedLoss`. The total is ``o2m`` times that of the one-to-many head (top-k
    10) plus ``o2o`` times that of the one-to-one head (top-k 7, then 1). The items are those of the one-to-one head
    alone. Their form, and ``checks``, are as for `TaskAlignedLoss`. Source: SPEC section 8.

    ``update()``, which a trainer calls once an epoch, moves weight from ``o2m`` (0.8 at first, 0.1 in the last epoch)
    to ``o2o``, which is the rest to ``total``, 1. A training that is resumed sets ``updates``, the number of those
    calls, and calls it once more.
    """

    topk = (10, 7)
    topk2 = 1

    def __init__(self, model: nn.Module, *, returns: Returns = "dict", checks: bool = True) -> None:
        super().__init__(model, returns=returns, checks=checks)
        self._set_weights(args_of(model, "epochs").epochs)

    @override
    @classmethod
    def from_parts(
        cls,
        strides: Float[Tensor, " L"] | Sequence[float],
        classes: int,
        reg_max: int = 16,
        *,
        epochs: int = 100,
        **parts: Any,
    ) -> Self:
        """Make a loss without a model. ``epochs``: after so many updates the weights stay; the rest as for one head."""
        loss = super().from_parts(strides, classes, reg_max, **parts)
        loss._set_weights(epochs)
        return loss

    def _set_weights(self, epochs: int) -> None:
        self.epochs = epochs
        self.updates = 0
        self.total = 1.0
        self.o2m = self.o2m_copy = 0.8
        self.o2o = self.total - self.o2m
        self.final_o2m = 0.1

    def update(self) -> None:
        """Count one epoch, and set the weights of the two heads for the next."""
        self.updates += 1
        left = max(1 - self.updates / max(self.epochs - 1, 1), 0)
        self.o2m = left * (self.o2m_copy - self.final_o2m) + self.final_o2m
        self.o2o = max(self.total - self.o2m, 0)

    @override
    def _joined(self, many: Tensor, one: Tensor, many_items: Tensor, one_items: Tensor) -> tuple[Tensor, Tensor]:
        return many * self.o2m + one * self.o2o, one_items


class E2EDetectLoss(_TwoHeads):
    """The loss of YOLOv10, a drop-in replacement for upstream's ``E2EDetectLoss``: the plain sum over its two heads.

    As `E2ELoss`, but without weights, top-k 10 and 1, and with the sum of both heads' items. Without a second top-k, a
    target of the one-to-one head may inherit an anchor from another one. Source: SPEC section 8.
    """

    topk = (10, 1)

    @override
    def _joined(self, many: Tensor, one: Tensor, many_items: Tensor, one_items: Tensor) -> tuple[Tensor, Tensor]:
        return many + one, many_items + one_items
