"""The usual call forms of v5 losses, recognised by inspecting the class or function."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.errors import closest
from yololoss.harness.subjects.forms import is_open, required, shown, takes, total_and_items
from yololoss.harness.subjects.subject import BuiltSubject, Make, Subject, Unsupported

from .case import Case
from .kinds import by_arguments
from .rows import Rows, read_built

USUAL = {"sort_obj_iou": False, "gr": 1.0}  # attributes that options set, and their defaults


class _NotThere:
    """The message about what a loss looked for in vain. It is made when it is read: losses ask for much in vain."""

    def __init__(self, place: "_StandIn", name: str) -> None:
        self.place, self.name = place, name

    @override
    def __str__(self) -> str:
        there = self.place
        members = (*vars(there), *there._modules, *there._parameters, *there._buffers)
        hint = closest(self.name, (known for known in members if not known.startswith("_")))
        return f"the loss looked for {there.place}.{self.name}, which is not there{hint}"


class _StandIn(nn.Module):
    """Says what a loss looked for in vain."""

    place: ClassVar[str]  # where a loss finds it

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise AttributeError(_NotThere(self, name), name=name, obj=self) from error


class StandInHead(_StandIn):
    """The attributes of a detection head that losses read."""

    place = "model.model[-1]"
    anchors: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.na, self.nc, self.nl = len(case.anchors[0]), case.classes, case.layers
        self.no = 5 + case.classes
        self.register_buffer("anchors", torch.tensor(case.anchors, dtype=torch.float32))
        self.stride = torch.tensor(case.strides)


class StandInLayer(_StandIn):
    """The head of one stride, as darknet-style models have it (yolor, ScaledYOLOv4)."""

    place = "model.module_list[i]"
    anchor_vec: Tensor

    def __init__(self, case: Case, layer: int) -> None:
        super().__init__()
        self.na, self.nc, self.no = len(case.anchors[layer]), case.classes, 5 + case.classes
        self.stride = case.strides[layer]
        anchors = torch.tensor(case.anchors[layer], dtype=torch.float32)
        self.register_buffer("anchor_vec", anchors)  # in cells
        self.register_buffer("anchors", anchors * self.stride)  # in pixels


class Hyp(dict[str, Any]):
    """Hyperparameters that record under which names a loss looked in vain."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.missed: dict[str, None] = {}

    def _look(self, name: str) -> None:
        if not super().__contains__(name):
            self.missed[name] = None

    def __missing__(self, name: str) -> Any:
        self._look(name)
        raise KeyError(name)

    @override
    def __contains__(self, name: object) -> bool:
        self._look(str(name))
        return super().__contains__(name)

    @override
    def get(self, name: str, default: Any = None) -> Any:
        self._look(name)
        return super().get(name, default)


class StandInModel(_StandIn):
    """The attributes of a model that losses read: ``hyp``, the head ``model[-1]``, a parameter, ``gr``, ``nc``."""

    place = "model"

    def __init__(self, case: Case) -> None:
        super().__init__()
        # both names of the box gain; a law judges whether a loss takes the one of its dialect
        self.hyp: dict[str, Any] = {**case.hyp.model_dump(), "giou": case.hyp.box}
        self.nc, self.gr = case.classes, case.options.gr
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(StandInHead(case))
        self.detection = self.model[-1]  # flexible-yolov5 has its head here
        # models from darknet's list of layers have one head for each stride, among others
        self.module_list = nn.ModuleList([nn.Identity(), *(StandInLayer(case, i) for i in range(case.layers))])
        self.yolo_layers = list(range(1, 1 + case.layers))


def adapt(found: Any, module: ModuleType) -> Make:
    """A function that makes subjects from a class or function. Raises TypeError, one line, for an unknown form.

    A class is built as ``cls(model)``, with ``autobalance`` if it has such a parameter, and called with predictions and
    targets (and images, if it requires a third argument). A function is called as ``function(p, targets, model)``.
    """
    needed = required(found)
    kind = by_arguments(found)
    if kind is not None:
        raise TypeError(kind)
    if inspect.isclass(found):
        if len(needed) != 1 and not is_open(found):
            raise TypeError(f"expected a constructor with one required argument, the model, got {shown(needed)}")
        return partial(ClassSubject, called=found)
    if len(needed) != 3:
        raise TypeError(f"expected a function of (p, targets, model), got {shown(needed)}")
    builder = getattr(module, "build_targets", None)
    return partial(FunctionSubject, called=found, builder=builder)


class ClassSubject(BuiltSubject):
    """``ComputeLoss(model, autobalance)``: called as ``loss(p, targets)`` or ``loss(p, targets, imgs)``."""

    def __init__(self, case: Case, device: torch.device, *, called: Callable[..., Any]) -> None:
        super().__init__(case, device)
        if case.options.autobalance and "autobalance" not in inspect.signature(called).parameters:
            raise Unsupported("autobalance")
        self._class = called
        self.build_from(StandInModel(case).to(device))

    @override
    def build(self) -> None:
        options = self.case.options
        switches = {"autobalance": True} if options.autobalance else {}
        self.instance = self._class(self.model, **switches)
        for name, usual in USUAL.items():
            value = getattr(options, name)
            if getattr(self.instance, name, usual) != value:
                self.set_option(name, value)
        if options.balance is not None:
            self.set_option("balance", list(options.balance))

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return total_and_items(self.instance(p, targets, *self._images(self._called)))

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        builder = getattr(self.instance, "build_targets", None)
        given = (p, targets, *([] if builder is None else self._images(builder)))
        return read_built(builder(*given), self.case) if takes(builder, given) else None

    @override
    def state(self) -> Sequence[float] | None:
        table = getattr(self.instance, "balance", None)
        return [float(b) for b in table] if isinstance(table, list | tuple) else None

    @property
    def _called(self) -> Callable[..., Any]:
        called: Callable[..., Any] = self.instance.forward if isinstance(self.instance, nn.Module) else self.instance
        return called

    def _images(self, function: Callable[..., Any]) -> list[Tensor]:
        # a builder's third argument is the images only if the loss itself also takes three arguments
        if min(len(required(function)), len(required(self._called))) < 3:
            return []
        (rows, columns), stride = self.case.grids[0], self.case.strides[0]
        size = (self.case.batch, 3, int(rows * stride), int(columns * stride))
        return [torch.zeros(size, device=self.device)]


class FunctionSubject(Subject):
    """``compute_loss(p, targets, model)``, with ``build_targets(p, targets, model)`` in the same module."""

    def __init__(
        self, case: Case, device: torch.device, *, called: Callable[..., Any], builder: Callable[..., Any] | None
    ) -> None:
        super().__init__(case, device)
        for option in ("autobalance", "sort_obj_iou", "balance"):
            if getattr(case.options, option):
                raise Unsupported(option)
        self.function, self.builder = called, builder
        self.model: nn.Module = StandInModel(case).to(device)

    @override
    def rebuild(self, change: Callable[[Any], nn.Module]) -> None:
        self.model = change(self.model)

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return total_and_items(self.function(p, targets, self.model))

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        given = (p, targets, self.model)
        return read_built(self.builder(*given), self.case) if takes(self.builder, given) else None
