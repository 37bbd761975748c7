"""The detection loss: box, objectness and class terms over all layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import starmap
from operator import add, mul
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from yololoss.v5 import boxes
from yololoss.v5.assign import LayerAssignment, assign_layers
from yololoss.v5.checks import check_predictions, check_targets
from yololoss.v5.criteria import FocalLoss, bce_loss, smooth_bce
from yololoss.v5.gather import gather
from yololoss.v5.hyp import Hyperparameters

THREE_LAYERS = (4.0, 1.0, 0.4)
OTHER_LAYERS = (4.0, 1.0, 0.25, 0.06, 0.02)
AUTOBALANCE_STRIDE = 16
# Autobalance adds 1e-4 / loss. For a loss below this one it adds 100, the value at this loss. Upstream has no bound,
# and divides by zero if the float32 BCE of a confident background cancels to 0.
AUTOBALANCE_FLOOR = 1e-6
# The logits of absent rows: every term is finite for them, and the BCE with target 0 is 0.
ABSENT = -1e30

Built = tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor, Tensor, Tensor]], list[Tensor]]


class ComputeLoss:
    """The YOLOv5 detection loss, a drop-in replacement for upstream's class of that name.

    ``ComputeLoss(model, autobalance=False)`` reads ``model.hyp`` and the head ``model.model[-1]``;
    ``ComputeLoss.from_parts`` needs no model. Call it with predictions and targets::

        total, items = loss(p, targets)

    p: for each layer one tensor (B, A, H, W, 5 + C) of raw logits: x, y, w, h, objectness, classes.
    targets: (N, 6) float: image index, class, and x, y, w, h as fractions of the image.
    total: (1,) float32, (box + obj + cls) times B, with gradient. items: (3,) float32, (box, obj, cls) times their
    gains, detached. Source: SPEC sections 1 to 7.

    ``checks``: check the inputs of every call (ValueError, TypeError), and make only the rows that exist. Both wait
    for an accelerator. Without checks only autobalance waits, and all shapes depend only on the shapes of the inputs:
    there is a row for every choice, anchor and target, and absent rows have no weight. Targets of zeros match no
    anchor, so a batch may be padded with them. Without checks, other invalid inputs raise no error.

    ``hyp`` and ``anchors`` are the model's own objects: the next call sees a change in place. After replacing a
    model's anchors, or moving it to another device, call `refresh`.
    """

    sort_obj_iou = False  # if rows share a cell: False, the last row wins; True, the largest overlap

    def __init__(self, model: nn.Module, autobalance: bool = False, *, checks: bool = True) -> None:
        inner = unwrap(model)
        hyp = getattr(model, "hyp", None) or inner.hyp  # trainers set it before or after they wrap the model
        Hyperparameters.from_model(hyp)
        self._set_up(hyp, _head(inner).nc, autobalance, checks, *_anchors(inner))

    @classmethod
    def from_parts(
        cls,
        anchors: Float[Tensor, "L A 2"] | Sequence[Any],
        strides: Float[Tensor, " L"] | Sequence[float],
        classes: int,
        hyp: Hyperparameters | None = None,
        *,
        autobalance: bool = False,
        checks: bool = True,
        device: torch.device | str | None = None,
    ) -> "ComputeLoss":
        """Make a loss without a model.

        ``anchors``: (L, A, 2), width and height in cells of their layer. ``strides``: (L,), pixels per cell. Raises
        ValueError for fewer than 1 class, shapes that do not fit, more than 5 layers, or autobalance without a layer
        of stride 16.
        """
        if classes < 1:
            raise ValueError(f"classes: expected 1 or more, got {classes}")
        loss = cls.__new__(cls)
        loss._set_up(
            (hyp or Hyperparameters()).model_dump(),
            classes,
            autobalance,
            checks,
            torch.as_tensor(anchors, dtype=torch.float32, device=device),
            torch.as_tensor(strides, dtype=torch.float32),
        )
        return loss

    def refresh(self, model: nn.Module) -> None:
        """Read anchors, strides and device again, after the model's were replaced or the model was moved."""
        self._set_anchors(*_anchors(unwrap(model)))

    def _set_up(
        self,
        hyp: Mapping[str, Any],
        classes: int,
        autobalance: bool,
        checks: bool,
        anchors: Tensor,
        strides: Tensor,
    ) -> None:
        self.hyp = hyp
        self.nc = classes
        self.gr = 1.0
        self.autobalance = autobalance
        self.checks = checks
        self.cp, self.cn = smooth_bce(hyp.get("label_smoothing", 0.0))
        self._set_anchors(anchors, strides)
        self.balance = list(THREE_LAYERS if self.nl == len(THREE_LAYERS) else OTHER_LAYERS)

    def _set_anchors(self, anchors: Tensor, strides: Tensor) -> None:
        if anchors.ndim != 3 or anchors.shape[2] != 2 or len(strides) != len(anchors):
            raise ValueError(
                "anchors, strides: expected shapes (layers, anchors, 2) and (layers,), "
                f"got {tuple(anchors.shape)} and {tuple(strides.shape)}"
            )
        self.nl, self.na = anchors.shape[:2]
        self.anchors = anchors
        self.device = anchors.device
        if self.nl > len(OTHER_LAYERS):
            raise ValueError(f"layers: the balance table has entries for 1 to 5 layers, got {self.nl}")
        self.ssi = self._balance_layer(strides.tolist()) if self.autobalance else 0
        self.BCEcls, self.BCEobj = (self._criterion(self.hyp[name]) for name in ("cls_pw", "obj_pw"))

    def _balance_layer(self, strides: list[float]) -> int:
        if AUTOBALANCE_STRIDE not in strides:
            raise ValueError(
                f"autobalance: needs a layer of stride {AUTOBALANCE_STRIDE} to keep at balance 1, got strides {strides}"
            )
        return strides.index(AUTOBALANCE_STRIDE)

    def _criterion(self, pos_weight: float) -> nn.Module:
        bce = bce_loss(pos_weight, self.device)
        gamma = self.hyp["fl_gamma"]
        return FocalLoss(bce, gamma) if gamma > 0 else bce

    def __call__(self, p: Sequence[Tensor], targets: Tensor) -> tuple[Float32[Tensor, " 1"], Float32[Tensor, " 3"]]:
        """The total (1,), with gradient, and the items (box, obj, cls) (3,), detached."""
        box, obj, cls = self.terms(p, targets)
        box, obj, cls = box * self.hyp["box"], obj * self.hyp["obj"], cls * self.hyp["cls"]
        total = (box + obj + cls) * p[0].shape[0]
        return total.reshape(1).float(), torch.stack((box, obj, cls)).detach().float()

    def terms(
        self, p: Sequence[Tensor], targets: Tensor
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """The box, objectness and class terms summed over layers, before gains, with gradient.

        In float32, or float64 for float64 predictions. With autobalance, a call changes the balance.
        """
        assigned = self._assign(p, targets, every_row=not self.checks)
        with _full_precision(self.device):
            objectness, selected = zip(*map(_read, p, assigned), strict=True)
            layers = list(map(self._layer_terms, objectness, selected, _overlaps(selected, assigned), assigned))
        box, obj, cls = zip(*layers, strict=True)
        weighted = starmap(mul, zip(obj, self.balance, strict=False))
        terms = _sum(box), _sum(weighted), _sum(cls)
        if self.autobalance:
            self._rebalance(torch.stack(obj).tolist())
        return terms

    def assign(self, p: Sequence[Tensor], targets: Tensor) -> list[LayerAssignment]:
        """The assignment of every layer (`LayerAssignment`). Checks the inputs if checks are on."""
        return self._assign(p, targets, every_row=False)

    def _assign(self, p: Sequence[Tensor], targets: Tensor, every_row: bool) -> list[LayerAssignment]:
        if self.checks:
            check_predictions(p, layers=self.nl, anchors=self.na, classes=self.nc, device=self.device)
            check_targets(targets, batch=p[0].shape[0], classes=self.nc, device=self.device)
        with _full_precision(self.device):
            grids = [(layer.shape[2], layer.shape[3]) for layer in p]
            return assign_layers(targets, self.anchors, grids, self.hyp["anchor_t"], every_row=every_row)

    def build_targets(self, p: Sequence[Tensor], targets: Tensor) -> Built:
        """The assignment in upstream's form, four lists over layers: classes, boxes, indices, anchors.

        A layer of n rows has classes (n,) int64, boxes (n, 4), indices image, anchor, grid row and grid column, each
        (n,) int64, and anchors (n, 2). Lengths are in cells; box centres are relative to the row's cell.
        """
        layers = self.assign(p, targets)
        return (
            [a.cls for a in layers],
            [a.box for a in layers],
            [a.indices for a in layers],
            [a.anchor_wh for a in layers],
        )

    def _layer_terms(
        self, objectness: Tensor, selected: Tensor, overlap: Tensor, rows: LayerAssignment
    ) -> tuple[Tensor, Tensor, Tensor]:
        zero = objectness.new_zeros(())
        if not len(rows.cls):
            return zero, self.BCEobj(objectness, torch.zeros_like(objectness)), zero
        wanted = self._place(_objectness_values(overlap, self.gr), rows, objectness)
        missed, truth = 1 - overlap, self._class_targets(rows.cls, overlap.dtype)
        share: Tensor | float = 1.0
        if rows.present is not None:  # the means are over all rows, and absent rows add 0
            missed, truth = torch.where(rows.present, missed, 0), truth * rows.present[:, None]
            share = len(truth) / rows.present.sum(dtype=overlap.dtype).clamp(min=1)
        cls = self.BCEcls(selected[:, 5:], truth) if self.nc > 1 else zero
        return missed.mean() * share, self.BCEobj(objectness, wanted), cls * share

    def _place(self, values: Tensor, rows: LayerAssignment, objectness: Tensor) -> Tensor:
        """The objectness target of every cell, (B, A, H, W): its row's value; 0 without a row.

        If rows share a cell, a maximum finds the winner, which no order of execution can change. Every row of the
        cell writes the winner's value. So the bits are the same on every device.
        """
        image, anchor, row, column = rows.indices
        _, anchors, height, width = objectness.shape
        cell = ((image * anchors + anchor) * height + row) * width + column
        cells = objectness.numel()
        if rows.present is not None:  # absent rows write to one extra cell, which is cut off
            cell = torch.where(rows.present, cell, cells)
        grid = objectness.new_zeros(cells + 1)
        if self.sort_obj_iou:
            flat = grid.scatter_reduce_(0, cell, values, "amax", include_self=False)
        else:
            number = torch.arange(len(cell), device=cell.device)
            last = torch.zeros_like(grid, dtype=torch.long).scatter_reduce_(0, cell, number, "amax")
            flat = grid.scatter_(0, cell, values[last[cell]])
        return flat[:cells].view(objectness.shape)

    def _class_targets(self, cls: Tensor, dtype: torch.dtype) -> Tensor:
        at_class = cls[:, None] == torch.arange(self.nc, device=cls.device)
        others = torch.full((), self.cn, dtype=dtype, device=cls.device)  # of two numbers torch would make float32
        return torch.where(at_class, self.cp, others)

    def _rebalance(self, objectness_losses: list[float]) -> None:
        for i, loss in enumerate(objectness_losses):
            self.balance[i] = self.balance[i] * 0.9999 + 0.0001 / max(loss, AUTOBALANCE_FLOOR)
        kept = self.balance[self.ssi]
        self.balance = [b / kept for b in self.balance]


def _read(logits: Tensor, rows: LayerAssignment) -> tuple[Tensor, Tensor]:
    """The objectness logits of a layer, and all logits of its rows."""
    # float32 keeps values and gradients that half precision loses. Converting only these has no measurable cost.
    dtype = torch.promote_types(logits.dtype, torch.float32)
    objectness, selected = gather(logits, rows.indices)
    objectness = objectness.to(dtype)
    selected = selected.to(dtype)
    if rows.present is not None:
        selected = torch.where(rows.present[:, None], selected, ABSENT)
    return objectness, selected


def _overlaps(selected: Sequence[Tensor], assigned: Sequence[LayerAssignment]) -> Sequence[Tensor]:
    """The CIoU of each layer's rows with their targets. All layers at once, since it is many small operations."""
    logits = torch.cat([rows[:, :4] for rows in selected])
    anchors = torch.cat([rows.anchor_wh for rows in assigned]).to(logits.dtype)
    target = torch.cat([rows.box for rows in assigned]).to(logits.dtype)
    overlap = boxes.ciou(boxes.decode(logits, anchors), target, angle1=boxes.aspect_angle(logits, anchors))
    return overlap.split_with_sizes([len(rows) for rows in selected])


def _objectness_values(overlap: Tensor, gr: float) -> Tensor:
    return (1 - gr) + gr * overlap.detach().clamp(min=0)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(add, terms)


def unwrap(model: nn.Module) -> Any:
    """The model inside a DataParallel or DistributedDataParallel; any other model as it is."""
    return model.module if isinstance(model, DataParallel | DistributedDataParallel) else model


def _head(model: Any) -> Any:
    return model.model[-1]


def _anchors(model: Any) -> tuple[Tensor, Tensor]:
    """The head's anchors, on the device of the model's parameters, and its strides."""
    head = _head(model)
    return head.anchors.to(next(model.parameters()).device), torch.as_tensor(head.stride)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast off: it would compute the assignment and the overlaps, which need float32, in half precision."""
    if not torch.amp.is_autocast_available(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield
