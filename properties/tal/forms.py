"""The usual call form of task-aligned losses, recognised by inspecting the class, and by calling it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.subjects.forms import is_open, required, shown, signature, total_and_items
from yololoss.harness.subjects.subject import BuiltSubject, Make, UnknownForm, Unsupported

from .case import SIDES, Case, Form, Head

FORMS: tuple[Form, ...] = ("levels", "mapping")
HEADS = ("one2many", "one2one")
# Logits with which a head adds exactly nothing to a loss: in every dtype the probability, the metric, the score and BCE
# are 0. The boxes have a size, so their CIoU is finite.
SILENT_CLASS, SILENT_SIDE = -1000.0, 1.0
BATCH = ("batch",)  # names of the second argument of a call that v5 losses do not use
ITEMS = (("box_loss", "box"), ("cls_loss", "cls"), ("dfl_loss", "l1_loss", "dfl", "l1"))  # names in a dict of items


class Taken(NamedTuple):
    """The forms of predictions with which a class gives a total, and whether it asks for those of two heads."""

    forms: tuple[Form, ...]
    two_heads: bool


_TAKEN: WeakKeyDictionary[Any, Taken] = WeakKeyDictionary()  # by class


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
        self.args = SimpleNamespace(**case.gains.model_dump(), epochs=(case.head or Head()).epochs)
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


def silent(p: list[Tensor], case: Case) -> list[Tensor]:
    """Predictions with which a head adds nothing to the loss, beside those of the other head."""
    channels = SIDES * case.reg_max
    made = [torch.full_like(level, SILENT_CLASS, requires_grad=False) for level in p]
    for level in made:
        level[:, :channels] = SILENT_SIDE
    return made


class ClassSubject(BuiltSubject):
    """``v8DetectionLoss(model, tal_topk, tal_topk2)``: called as ``loss(preds, batch)``.

    A loss with two heads, such as ``E2ELoss(model)``, is called with ``{"one2many": preds, "one2one": preds}``. The
    case's predictions are those of one head, and the other head's add nothing to the loss. So each head is judged by
    all laws. Items that are those of the silent head are left out.
    """

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
        if hasattr(self.instance, "update"):
            self._updated(self.head.updates)

    def _updated(self, times: int) -> None:
        """Update the loss so often; in the second half of a training as if that was resumed just before (SPEC 8)."""
        late = 2 * times > self.head.epochs
        resumed = late and isinstance(getattr(self.instance, "updates", None), int)
        if resumed:
            self.instance.updates = times - 1
        for _ in range(1 if resumed else times):
            self.instance.update()

    @property
    def two_heads(self) -> bool:
        """Whether the loss asks for the predictions of two heads."""
        return taken_forms(self._class).two_heads

    @property
    def head(self) -> Head:
        """The head that has the case's predictions, if the loss has two."""
        return self.case.head or Head()

    @property
    def form(self) -> Form:
        """The form of predictions that the loss is given."""
        return form_for(self._class, self.case)

    def preds(self, p: list[Tensor]) -> Any:
        """The predictions in the form that the loss takes."""
        return self.heads(p, silent(p, self.case)) if self.two_heads else self.in_form(p)

    def heads(self, p: list[Tensor], other: list[Tensor]) -> dict[str, Any]:
        """The predictions of both heads: those of the case's head, and of the other one."""
        return {name: self.in_form(p if name == self.head.name else other) for name in HEADS}

    def in_form(self, p: list[Tensor]) -> Any:
        """The predictions of one head in the form that the loss takes."""
        return as_mapping(p, self.case.reg_max) if self.form == "mapping" else p

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return self.called(self.preds(p), as_batch(targets))

    def called(self, preds: Any, batch: Any) -> tuple[Tensor, Any]:
        """Total and items of the loss on these inputs."""
        total, items = self.both(preds, batch)
        return total, None if self.two_heads and self.head.name == "one2many" else items

    def both(self, preds: Any, batch: Any) -> tuple[Tensor, Any]:
        """The same, with the items of either head."""
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
    taken = taken_forms(found).forms
    return case.form if case.form in taken or not taken else taken[0]


def taken_forms(found: Any) -> Taken:
    """The forms of predictions with which a class gives a total: of one head or, if it takes none, of two."""
    if found not in _TAKEN:
        one, two = (tuple(form for form in FORMS if _takes(found, form, heads)) for heads in ((), HEADS))
        _TAKEN[found] = Taken(one or two, two_heads=bool(two) and not one)
    return _TAKEN[found]


def _takes(found: Any, form: Form, heads: tuple[str, ...]) -> bool:
    from .strategies import USUAL  # noqa: PLC0415  # which is made of cases

    p, targets = USUAL.inputs(torch.device("cpu"))
    preds: Any = as_mapping(p, USUAL.reg_max) if form == "mapping" else p
    preds = dict.fromkeys(heads, preds) if heads else preds
    try:
        total, _ = total_and_items(found(StandInModel(USUAL))(preds, as_batch(targets)))
    except Exception:  # whatever it does not like
        return False
    return bool(total.detach().isfinite().all())
