"""The usual call form of task-aligned losses, recognised by inspecting the class, and by calling it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.subjects.forms import is_open, required, shown, signature, total_and_items
from yololoss.harness.subjects.subject import BuiltSubject, Make, UnknownForm, Unsupported

from .case import SIDES, Case, Form

FORMS: tuple[Form, ...] = ("levels", "mapping")
BATCH = ("batch",)  # names of the second argument of a call that v5 losses do not use
ITEMS = (("box_loss", "box"), ("cls_loss", "cls"), ("dfl_loss", "l1_loss", "dfl", "l1"))  # names in a dict of items
_TAKEN: WeakKeyDictionary[Any, tuple[Form, ...]] = WeakKeyDictionary()  # forms of predictions, by class


class StandInHead(nn.Module):
    """The attributes of a detection head that losses read."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.stride = torch.tensor(case.strides)
        self.nc, self.reg_max, self.nl = case.classes, case.reg_max, case.levels
        self.no = case.channels


class StandInModel(nn.Module):
    """The attributes of a model that losses read: ``args``, the head ``model[-1]``, a parameter, ``class_weights``."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.args = SimpleNamespace(**case.gains.model_dump(), epochs=100)
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(StandInHead(case))
        self.nc = case.classes
        if case.class_weights is not None:
            self.register_buffer("class_weights", torch.tensor(case.class_weights))


def adapt(found: Any, module: ModuleType) -> Make:
    """A function that makes subjects from a class. Raises TypeError, one line, for an unknown form.

    A class is built as ``cls(model)``, with ``tal_topk`` and ``tal_topk2`` where a case has them, and called as
    ``loss(preds, batch)``. That the second argument is called so, or that the constructor has a parameter ``tal_topk``,
    tells it from a loss of another family.
    """
    if not inspect.isclass(found):
        raise TypeError(f"expected a class that is built of a model, got {shown(required(found))}")
    needed, call = required(found), required_by_call(found)
    if len(needed) != 1 and not is_open(found):
        raise TypeError(f"expected a constructor with one required argument, the model, got {shown(needed)}")
    known = call[1:2] == list(BATCH) or "tal_topk" in signature(found).parameters
    if len(call) != 2 or not known:
        raise TypeError(f"expected a class that is called with (preds, batch), got {shown(call)}")
    return partial(ClassSubject, called=found)


def required_by_call(found: Any) -> list[str]:
    """What an object of a class requires when it is called."""
    try:
        return required(found.forward if issubclass(found, nn.Module) else found.__call__)[1:]
    except (TypeError, ValueError):  # no signature, as of a builtin
        return []


def as_mapping(p: list[Tensor], reg_max: int) -> dict[str, Any]:
    """The levels as the mapping that upstream's head returns since version 8.4.0."""
    joined = torch.cat([level.flatten(2) for level in p], dim=2)
    channels = SIDES * reg_max
    feats = [level.new_zeros((len(level), 1, *level.shape[2:])) for level in p]  # only their sizes are read
    return {"boxes": joined[:, :channels], "scores": joined[:, channels:], "feats": feats}


def as_batch(targets: Tensor) -> dict[str, Tensor]:
    """Rows of image, class, x, y, w, h as the batch that a trainer gives."""
    return {"batch_idx": targets[:, 0], "cls": targets[:, 1:2], "bboxes": targets[:, 2:6]}


class ClassSubject(BuiltSubject):
    """``v8DetectionLoss(model, tal_topk, tal_topk2)``: called as ``loss(preds, batch)``."""

    family = "tal"

    def __init__(self, case: Case, device: torch.device, *, called: Callable[..., Any]) -> None:
        super().__init__(case, device)
        self._class = called
        self.build_from(StandInModel(case).to(device))

    @override
    def build(self) -> None:
        names = signature(self._class).parameters
        options = {"tal_topk": self.case.topk, "tal_topk2": self.case.topk2}
        given = {name: value for name, value in options.items() if value is not None}
        missing = [name for name in given if name not in names and not is_open(self._class)]
        if missing:
            raise Unsupported(missing[0])
        self.instance = self._class(self.model, **given)

    @property
    def form(self) -> Form:
        """The form of predictions that the loss is given."""
        return form_for(self._class, self.case)

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        preds = as_mapping(p, self.case.reg_max) if self.form == "mapping" else p
        return self.called(preds, as_batch(targets))

    def called(self, preds: Any, batch: Any) -> tuple[Tensor, Any]:
        """Total and items of the loss on these inputs."""
        total, items = total_and_items(self.instance(preds, batch))
        return total, in_order(items) if isinstance(items, Mapping) else items


def in_order(items: Mapping[str, Any]) -> Tensor:
    """The items of a dict as a tensor (3,): box, class, third. Raises UnknownForm if one is not there."""
    found = [next((items[name] for name in names if name in items), None) for names in ITEMS]
    if any(each is None for each in found):
        raise UnknownForm(
            f"items: expected a dict of box_loss, cls_loss and dfl_loss, got {', '.join(map(str, items))}"
        )
    return torch.stack([torch.as_tensor(each).reshape(()) for each in found])


def form_for(found: Any, case: Case) -> Form:
    """The form of predictions that a class is given: the case's, if it takes that, else one that it takes."""
    taken = taken_forms(found)
    return case.form if case.form in taken or not taken else taken[0]


def taken_forms(found: Any) -> tuple[Form, ...]:
    """The forms of predictions with which a class gives a total; none if it gives one with neither."""
    if found not in _TAKEN:
        _TAKEN[found] = tuple(form for form in FORMS if _takes(found, form))
    return _TAKEN[found]


def _takes(found: Any, form: Form) -> bool:
    from .strategies import USUAL  # noqa: PLC0415  # which is made of cases

    p, targets = USUAL.inputs(torch.device("cpu"))
    preds = as_mapping(p, USUAL.reg_max) if form == "mapping" else p
    try:
        total, _ = total_and_items(found(StandInModel(USUAL))(preds, as_batch(targets)))
    except Exception:  # whatever it does not like
        return False
    return bool(total.detach().isfinite().all())
