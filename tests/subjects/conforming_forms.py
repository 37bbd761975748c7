"""Conforming losses that differ from the bundled one in the form of what they show, or in the state they keep.

Those that build rows in another order, `RowsByTarget` and `RowsReversed`, need `--dialect "row_order = any"`.
"""

import logging
import warnings
import weakref
from collections import deque
from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from yololoss.v5.assign import LayerAssignment
from yololoss.v5.loss import ComputeLoss

BY_ROW = (
    "row_choice",
    "target",
    "offset",
    "shifted",
    "cls",
    "image",
    "anchor",
    "cell",
    "box",
    "anchor_wh",
)


def pick(rows: LayerAssignment, order: Tensor) -> LayerAssignment:
    """The rows in another order."""
    return replace(rows, **{name: getattr(rows, name)[order] for name in BY_ROW})


def order_by(rows: LayerAssignment, *names: str) -> Tensor:
    """What sorts rows by choice, anchor and target, in the order in which these are named, the last one fastest."""
    values = {"choice": rows.row_choice, "anchor": rows.anchor, "target": rows.target}
    key = torch.zeros_like(rows.cls)
    for name in names:
        key = key * (max(5, *rows.ratio.shape) + 1) + values[name]
    return key.argsort()


class RowsByTarget(ComputeLoss):
    """Builds rows by target, anchor, choice, and still lets the row that is last in upstream's order win a cell."""

    def order(self, rows: LayerAssignment) -> LayerAssignment:
        return pick(rows, order_by(rows, "target", "anchor", "choice"))

    def _assign(self, p: Any, targets: Tensor, every_row: bool) -> list[LayerAssignment]:
        return [self.order(rows) for rows in super()._assign(p, targets, every_row)]

    def _place(self, values: Tensor, rows: LayerAssignment, objectness: Tensor) -> Tensor:
        back = order_by(rows, "choice", "anchor", "target")
        return super()._place(values[back], pick(rows, back), objectness)


class RowsReversed(RowsByTarget):
    """Builds rows in upstream's order, last to first, and lets the first of them win a shared cell."""

    def order(self, rows: LayerAssignment) -> LayerAssignment:
        return pick(rows, torch.arange(len(rows.cls)).flip(0))


class WorksByTarget(RowsByTarget):
    """Shows its rows in upstream's order and works on them by target."""

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        shown = ComputeLoss._assign(self, p, targets, every_row=False)
        return [[get(r) for r in shown] for get in map(attrgetter, ("cls", "box", "indices", "anchor_wh"))]


class OtherContainers(ComputeLoss):
    """build_targets gives tuples for lists and lists for tuples, indices and classes in int32."""

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        cls, box, at, wh = super().build_targets(p, targets)
        return [tuple(c.int() for c in cls), tuple(box), tuple([i.int() for i in index] for index in at), tuple(wh)]


class WiderNumbers(ComputeLoss):
    """build_targets gives boxes and anchors in float64, in memory turned round, and one thing more."""

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        cls, box, at, wh = super().build_targets(p, targets)
        turned = [[x.double().T.contiguous().T for x in each] for each in (box, wh)]
        return cls, turned[0], at, turned[1], "more"


class CopiesInputs(ComputeLoss):
    """Works on contiguous copies of its inputs, and assigns without grad."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        return super().__call__(tuple(x.contiguous().clone() for x in p), targets.detach().clone())

    @torch.no_grad()
    def _assign(self, p: Any, targets: Tensor, every_row: bool) -> list[LayerAssignment]:
        return super()._assign(p, targets, every_row)


class Unchecked(ComputeLoss):
    """The bundled loss with its checks off: all rows that are possible, with a mask, and nothing waits."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance, checks=False)


class Checkpointed(ComputeLoss):
    """Keeps nothing of a layer for the backward pass, and computes it again there."""

    def _layer_terms(self, *given: Any) -> Any:
        return checkpoint(super()._layer_terms, *given, use_reentrant=False)


class Whole(torch.autograd.Function):
    """A loss and its gradient by the predictions, both worked out in the forward pass."""

    @staticmethod
    def forward(ctx: Any, loss: ComputeLoss, targets: Tensor, *p: Tensor) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [x.clone().detach().requires_grad_() for x in p]
            total, items = ComputeLoss.__call__(loss, leaves, targets)
            ctx.save_for_backward(*torch.autograd.grad(total.sum(), leaves))
        ctx.mark_non_differentiable(items)
        return total.detach(), items

    @staticmethod
    def backward(ctx: Any, by_total: Tensor, *_: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient itself has none")
        return None, None, *((by_total * gradient).to(gradient.dtype) for gradient in ctx.saved_tensors)


class WholeFunction(ComputeLoss):
    """Is one autograd function that has its gradient before it is asked."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        return Whole.apply(self, targets, *p)


class Workspace(ComputeLoss):
    """Works on objectness in memory as large as the largest batch that it has seen, so strides depend on that."""

    def terms(self, p: Any, targets: Tensor) -> Any:
        self.layer = -1
        return super().terms(p, targets)

    def _layer_terms(self, objectness: Tensor, *given: Any) -> Any:
        self.layer += 1
        largest = self.__dict__.setdefault("largest", {})
        size = largest[self.layer] = tuple(map(max, objectness.shape, largest.get(self.layer, objectness.shape)))
        space = objectness.new_zeros(size)
        part = tuple(slice(n) for n in objectness.shape)
        space[part] = objectness
        return super()._layer_terms(space[part], *given)


class Logs(ComputeLoss):
    """Logs what it is made of, by a logger that the application has not set up."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        logging.getLogger("fork").warning("a loss of %s layers", self.nl)


class RegionsIgnored(ComputeLoss):
    """Leaves out targets of class -1, which mark regions to be ignored."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        return super().__call__(p, targets[targets[:, 1] >= 0] if targets.dim() == 2 else targets)


class KeepsTheLast(ComputeLoss):
    """Keeps the totals of the last 300 calls, as for a moving average."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.last: deque[float] = deque(maxlen=300)

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        self.last.append(float(total.detach()))
        return total, items


class HooksItsOwn(ComputeLoss):
    """Has a hook on a node that it made itself."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        if total.grad_fn is not None:
            total.grad_fn.register_prehook(lambda grads: None)
        return total, items


class LoopsOverTargets(ComputeLoss):
    """Looks at one target after the other, by Python and by NumPy."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        for row in sorted(targets.tolist()):
            _ = [value for value in row if value > 1]
        _ = targets.detach().double().cpu().numpy().sum(axis=0)
        return super().__call__(p, targets)


class OwnRatio(ComputeLoss):
    """Refuses a ratio of 0."""

    @property
    def gr(self) -> float:
        return self._gr

    @gr.setter
    def gr(self, ratio: float) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"gr: expected above 0, at most 1, got {ratio}")
        self._gr = ratio


class MergedRows(ComputeLoss):
    """Works once on the rows that a target has several times in one cell, with their number as weight."""

    def _layer_terms(self, objectness: Tensor, selected: Tensor, overlap: Tensor, rows: LayerAssignment) -> Any:
        terms = super()._layer_terms(objectness, selected, overlap, rows)
        if len(rows.cls) == 0 or self.hyp["fl_gamma"] > 0:
            return terms
        key = torch.stack((rows.target, *rows.indices), dim=1)
        _, of, times = key.unique(dim=0, return_inverse=True, return_counts=True)
        first = of.new_full(times.shape, len(of)).scatter_reduce(0, of, torch.arange(len(of)), "amin")
        box = (times * (1 - overlap[first])).sum() / len(of)
        if self.nc == 1:
            return box, *terms[1:]
        cls = [
            self.BCEcls(selected[i : i + 1, 5:], self._class_targets(rows.cls[i : i + 1], overlap.dtype)) for i in first
        ]
        return box, terms[1], (times * torch.stack(cls)).sum() / len(of)


class SplitMeans(ComputeLoss):
    """Takes the mean over cells with a target and over those without apart, and weighs them by their numbers."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        whole = self.BCEobj

        def split(logits: Tensor, targets: Tensor) -> Tensor:
            masks = [mask for mask in (targets > 0, targets <= 0) if mask.any()]
            shares = [mask.sum() / mask.numel() for mask in masks]
            return sum(share * whole(logits[mask], targets[mask]) for share, mask in zip(shares, masks, strict=True))

        self.BCEobj = split


class InferenceAssign(ComputeLoss):
    """Assigns in inference mode, and clones what it keeps."""

    def _assign(self, p: Any, targets: Tensor, every_row: bool) -> list[LayerAssignment]:
        with torch.inference_mode():
            found = super()._assign(p, targets, every_row)
        return [replace(rows, **{name: getattr(rows, name).clone() for name in BY_ROW}) for rows in found]


class ScalarTotal(ComputeLoss):
    """Returns a total of shape () and a tuple of Python floats."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        return total.squeeze(), tuple(items.tolist())


class ListOfFour(ComputeLoss):
    """Returns a list of a total and a list of four tensors of shape (), the last one the total."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        return [total, [*items, total.detach()[0]]]


class NumPyItems(ComputeLoss):
    """Returns items as a NumPy array."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        return total, items.numpy()


class TupleBalance(ComputeLoss):
    """Keeps the balance in a tuple without spare entries."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        self.balance = tuple(self.balance[: self.nl])

    def _rebalance(self, losses: list[float]) -> None:
        self.balance = list(self.balance)
        super()._rebalance(losses)
        self.balance = tuple(self.balance)


class TensorBalance(ComputeLoss):
    """Keeps the balance in a tensor of float32."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        self.balance = torch.tensor(self.balance)

    def _rebalance(self, losses: list[float]) -> None:
        self.balance = self.balance.clone()  # the graph still needs what it was
        super()._rebalance(losses)
        self.balance = torch.stack(self.balance)


class AsModule(nn.Module, ComputeLoss):
    """Is a module, its anchors a buffer."""

    forward = ComputeLoss.__call__

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__()
        ComputeLoss.__init__(self, model, autobalance)
        anchors = self.__dict__.pop("anchors")
        self.register_buffer("anchors", anchors.clone())


class Slotted:
    """Keeps everything in slots."""

    __slots__ = ("inner",)
    gr, sort_obj_iou = (
        property(attrgetter(f"inner.{name}"), lambda self, value, name=name: setattr(self.inner, name, value))
        for name in ("gr", "sort_obj_iou")
    )
    balance = property(attrgetter("inner.balance"))

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        self.inner = ComputeLoss(model, autobalance)

    def __call__(self, p: Any, targets: Tensor) -> Any:
        return self.inner(p, targets)

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        return self.inner.build_targets(p, targets)


class Lazy:
    """Builds itself when it is first called."""

    sort_obj_iou, gr = False, 1.0

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        self.model, self.autobalance = model, autobalance

    @cached_property
    def inner(self) -> ComputeLoss:
        with torch.inference_mode(False):  # its tensors are to be of use in training, too
            return ComputeLoss(self.model, self.autobalance)

    def __call__(self, p: Any, targets: Tensor) -> Any:
        self.inner.gr, self.inner.sort_obj_iou = self.gr, self.sort_obj_iou
        return self.inner(p, targets)


class Remembers(ComputeLoss):
    """Remembers some assignments by its inputs, counts its calls, and keeps its last items."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        self.memory: dict[Any, list[LayerAssignment]] = {}
        self.calls, self.last = 0, None

    def _assign(self, p: Any, targets: Tensor, every_row: bool) -> list[LayerAssignment]:
        key = targets.double().numpy().tobytes(), tuple(x.shape for x in p), self.hyp["anchor_t"]
        if len(self.memory) > 8:
            self.memory.clear()
        return self.memory.get(key) or self.memory.setdefault(key, super()._assign(p, targets, every_row))

    def __call__(self, p: Any, targets: Tensor) -> Any:
        total, self.last = super().__call__(p, targets)
        self.calls += 1
        return total, self.last


class SettingsForAWhile(ComputeLoss):
    """Sets a default dtype and draws from the global generator, and puts both back."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.rand(3)
                return super().__call__(p, targets)
        finally:
            torch.set_default_dtype(before)


class WeakModel(ComputeLoss):
    """Holds its model weakly, as a loss that the model holds does, and cannot be pickled."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        self.model = weakref.ref(model)
        super().__init__(model, autobalance)

    hyp = property(lambda self: self.model().hyp, lambda self, value: setattr(self.model(), "hyp", value))


class ReadOnlyRatio(Lazy):
    """Has gr fixed at 1."""

    gr = property(lambda self: 1.0)


class NoTable(ComputeLoss):
    """Keeps its balance in a tensor of its own."""

    class Table:
        """Numbers in a tensor; what is read is a copy."""

        def __init__(self, values: Any) -> None:
            self.tensor = torch.tensor([float(v) for v in values], dtype=torch.float64)

        def __getitem__(self, i: int) -> Tensor:
            return self.tensor[range(len(self.tensor))[i]].clone()

        def __setitem__(self, i: int, value: Any) -> None:
            self.tensor[i] = value

    balance = property(lambda self: self.table, lambda self, values: setattr(self, "table", self.Table(values)))


class Warns(ComputeLoss):
    """Warns that it is old."""

    def __call__(self, p: Any, targets: Tensor) -> Any:
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return super().__call__(p, targets)


class OwnBuilder(ComputeLoss):
    """Has a build_targets that takes other arguments than upstream's."""

    def build_targets(self, targets: Tensor, anchors: Tensor, grid: Any, limit: float) -> Any:
        raise NotImplementedError


class OwnRows(ComputeLoss):
    """build_targets gives an object a layer."""

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        return self.assign(p, targets)


class NamedRows(ComputeLoss):
    """build_targets gives a dict."""

    def build_targets(self, p: Any, targets: Tensor) -> Any:
        return dict(zip(("cls", "box", "indices", "anchors"), super().build_targets(p, targets), strict=True))
