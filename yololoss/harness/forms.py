"""The call forms of losses in the wild, found by looking at the class or function."""

import inspect
from collections.abc import Callable, Sequence, Sized
from types import ModuleType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.case import Case
from yololoss.harness.outcome import Rows
from yololoss.harness.subject import Subject, UnknownForm, Unsupported

USUAL = {"sort_obj_iou": False, "gr": 1.0}  # attributes that options set, and what they are without being set
Make = Callable[[Case, torch.device], Subject]
OTHER_FORM = "for another form derive from yololoss.harness.subject.Subject"


class StandInHead(nn.Module):
    """What a loss reads of a detection head."""

    anchors: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.na, self.nc, self.nl = len(case.anchors[0]), case.classes, case.layers
        self.no = 5 + case.classes
        self.register_buffer("anchors", torch.tensor(case.anchors, dtype=torch.float32))
        self.stride = torch.tensor(case.strides)


class StandInModel(nn.Module):
    """What a loss reads of a model: ``hyp``, the head at ``model[-1]``, a parameter's device, ``gr``, ``nc``."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        # yolov5 1.0 to 3.0 calls the box gain "giou"
        self.hyp: dict[str, Any] = {**case.hyp.model_dump(), "giou": case.hyp.box}
        self.nc, self.gr = case.classes, case.options.gr
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(StandInHead(case))
        self.detection = self.model[-1]  # where flexible-yolov5 keeps its head


def adapt(found: Any, module: ModuleType) -> Make:
    """A maker of subjects from a class or function. Raises TypeError, one line, for a form it does not know.

    A class derived from Subject is taken as it is. Any other class is built as ``cls(model)``, with
    ``autobalance`` where it has such a parameter, and called with predictions and targets (and images, where
    it asks for a third argument). A function is called as ``function(p, targets, model)``.
    """
    if not callable(found):
        raise TypeError(f"expected a class or a function, got {type(found).__name__}")
    if inspect.isclass(found) and issubclass(found, Subject):
        return found
    needed = _required(found)
    if inspect.isclass(found):
        if len(needed) != 1 and not _open(found):
            raise TypeError(f"expected a constructor with one required argument, the model, got {_shown(needed)}")
        return lambda case, device: ClassSubject(case, device, loss_class=found)
    if len(needed) != 3:
        raise TypeError(f"expected a function of (p, targets, model), got {_shown(needed)}")
    builder = getattr(module, "build_targets", None)
    return lambda case, device: FunctionSubject(case, device, function=found, builder=builder)


def _open(function: Callable[..., Any]) -> bool:
    """Whether it takes any positional arguments, as one that hands them on does."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def _required(function: Callable[..., Any]) -> list[str]:
    """Names of the positional arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind in kinds]


def _shown(names: list[str]) -> str:
    return f"({', '.join(names)}); {OTHER_FORM}"


class ClassSubject(Subject):
    """``ComputeLoss(model, autobalance)``: called as ``loss(p, targets)`` or ``loss(p, targets, imgs)``."""

    def __init__(self, case: Case, device: torch.device, *, loss_class: Callable[..., Any]) -> None:
        super().__init__(case, device)
        if case.options.autobalance and "autobalance" not in inspect.signature(loss_class).parameters:
            raise Unsupported("autobalance")
        self._class = loss_class
        self.model: nn.Module = StandInModel(case).to(device)  # kept: a loss may hold its model weakly
        self._build()

    def _build(self) -> None:
        options = self.case.options
        switches = {"autobalance": True} if options.autobalance else {}
        self.instance = self._class(self.model, **switches)
        for name, usual in USUAL.items():
            value = getattr(options, name)
            if getattr(self.instance, name, usual) != value:
                self.set_option(name, value)

    @override
    def rebuild(self, change: Callable[[Any], nn.Module]) -> None:
        self.model = change(self.model)
        self._build()

    @override
    def set_option(self, name: str, value: Any) -> None:
        if not hasattr(self.instance, name):
            raise Unsupported(name)
        try:
            setattr(self.instance, name, value)
        except (AttributeError, ValueError) as error:  # it can be read only, or not be that
            raise Unsupported(name) from error

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return _total_and_items(self.instance(p, targets, *self._images(self._called)))

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        builder = getattr(self.instance, "build_targets", None)
        given = (p, targets, *([] if builder is None else self._images(builder)))
        return read_built(builder(*given), self.case) if _takes(builder, given) else None

    @override
    def balance(self) -> Sequence[float] | None:
        table = getattr(self.instance, "balance", None)
        return [float(b) for b in table] if isinstance(table, list | tuple) else None

    @override
    def put_through(self, copy: Callable[[Any], Any]) -> None:
        try:
            self.instance = copy(self.instance)
        except Exception as error:  # a lambda, a lock or a weak reference among its attributes is no fault
            raise Unsupported("object to copy") from error

    @property
    def _called(self) -> Callable[..., Any]:
        called: Callable[..., Any] = self.instance.forward if isinstance(self.instance, nn.Module) else self.instance
        return called

    def _images(self, function: Callable[..., Any]) -> list[Tensor]:
        # a third argument is images where the loss itself is called with three; else a builder's is something else
        if min(len(_required(function)), len(_required(self._called))) < 3:
            return []
        (rows, columns), stride = self.case.grids[0], self.case.strides[0]
        size = (self.case.batch, 3, int(rows * stride), int(columns * stride))
        return [torch.zeros(size, device=self.device)]


class FunctionSubject(Subject):
    """``compute_loss(p, targets, model)``, with ``build_targets(p, targets, model)`` beside it."""

    def __init__(
        self, case: Case, device: torch.device, *, function: Callable[..., Any], builder: Callable[..., Any] | None
    ) -> None:
        super().__init__(case, device)
        for option in ("autobalance", "sort_obj_iou"):
            if getattr(case.options, option):
                raise Unsupported(option)
        self.function, self.builder = function, builder
        self.model = StandInModel(case).to(device)

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return _total_and_items(self.function(p, targets, self.model))

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        given = (p, targets, self.model)
        return read_built(self.builder(*given), self.case) if _takes(self.builder, given) else None


def _takes(builder: Callable[..., Any] | None, given: tuple[Any, ...]) -> TypeGuard[Callable[..., Any]]:
    """Whether there is a builder, and one that is called so: a method of that name may be for the loss's own use."""
    try:
        return builder is not None and inspect.signature(builder).bind(*given) is not None
    except (TypeError, ValueError):  # other arguments; no signature
        return False


def _total_and_items(result: Any) -> tuple[Tensor, Any]:
    """A black box returns its total alone; the others total and items."""
    if isinstance(result, Tensor):
        return result, None
    if not isinstance(result, tuple | list) or len(result) != 2 or not isinstance(result[0], Tensor):
        shown = f"{type(result).__name__} of {len(result)}" if isinstance(result, Sized) else type(result).__name__
        raise UnknownForm(f"expected (total, items), or the total alone, got {shown}; {OTHER_FORM}")
    return result[0], result[1]


def read_built(built: Any, case: Case) -> list[Rows] | None:
    """Rows from what a build_targets returned; None where it is of no known form.

    Four lists over layers or more: classes, boxes, indices (image, anchor, grid row, grid column), anchors.
    Six lists in yolov7's form: images, anchors, grid rows, grid columns, target rows, anchor sides.
    """
    if not _lists(built) or not all(map(_lists, built[:4])):
        return None
    if len(built) >= 4 and _lists(built[2][0]) and isinstance(built[0][0], Tensor):
        layers = zip(*built[:4], strict=True)
        return [_rows(*indices, cls=cls, box=box, anchor_wh=wh) for cls, box, indices, wh in layers]
    if len(built) != 6 or not all(map(_lists, built)):
        return None
    found = []
    for grid, *indices, targets, wh in zip(case.grids, *built, strict=True):
        cell = torch.stack((indices[3], indices[2]), dim=1)
        scaled = targets[:, 2:6] * targets.new_tensor((grid[1], grid[0]) * 2)
        box = torch.cat((scaled[:, :2] - cell, scaled[:, 2:]), dim=1)
        found.append(_rows(*indices, cls=targets[:, 1], box=box, anchor_wh=wh))
    return found


def _lists(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0


def _rows(*indices: Tensor, cls: Tensor, box: Tensor, anchor_wh: Tensor) -> Rows:
    image, anchor, row, column, classes = (i.detach().cpu().long().reshape(-1).numpy() for i in (*indices, cls))
    return Rows(
        image=image,
        anchor=anchor,
        row=row,
        column=column,
        cls=classes,
        box=box.detach().cpu().float().reshape(-1, 4).numpy(),
        anchor_wh=anchor_wh.detach().cpu().float().reshape(-1, 2).numpy(),
    )
