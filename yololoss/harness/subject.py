"""A subject: the loss under test behind one small interface, and how it is found."""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from yololoss.harness.case import Case
from yololoss.harness.outcome import Rows

BUNDLED = "yololoss.loss:ComputeLoss"


class UsageError(Exception):
    """The harness was asked for something that is not there; one line, with the closest match."""


class Subject(ABC):
    """A loss built for one case. Derive from it to adapt a loss of a form the harness does not know."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device

    @abstractmethod
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        """The total, with gradient, and the items (box, obj, cls), or None where there are none."""

    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        """The rows of each layer, or None where the loss does not show them."""
        return None

    def balance(self) -> Sequence[float] | None:
        """The balance table as it is now, or None where the loss does not show it."""
        return None


@dataclass(frozen=True)
class LossUnderTest:
    """Makes a fresh subject for every case."""

    spec: str
    make: Callable[[Case, torch.device], Subject]
    device: torch.device


class StandInHead(nn.Module):
    """What a loss reads of a detection head."""

    anchors: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.na, self.nc, self.nl = len(case.anchors[0]), case.classes, case.layers
        self.register_buffer("anchors", torch.tensor(case.anchors, dtype=torch.float32))
        self.stride = torch.tensor(case.strides)


class StandInModel(nn.Module):
    """What a loss reads of a model: ``hyp``, ``model[-1]``, and the device of a parameter."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.hyp: dict[str, Any] = case.hyp.model_dump()
        self.weight = nn.Parameter(torch.zeros(1))
        self.model = nn.Sequential(StandInHead(case))


class ClassSubject(Subject):
    """``ComputeLoss(model, autobalance)``, called as ``loss(p, targets)``, with ``build_targets``."""

    def __init__(self, case: Case, device: torch.device, *, loss_class: Callable[..., Any]) -> None:
        super().__init__(case, device)
        self.instance = loss_class(StandInModel(case).to(device), case.options.autobalance)
        self.instance.sort_obj_iou = case.options.sort_obj_iou
        self.instance.gr = case.options.gr

    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        """The class called on predictions and targets."""
        total, items = self.instance(p, targets)
        return total, items

    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        """``build_targets`` read as classes, boxes, indices, anchors."""
        classes, boxes, indices, anchors = self.instance.build_targets(p, targets)
        return [_rows(*layer) for layer in zip(classes, boxes, indices, anchors, strict=True)]

    def balance(self) -> Sequence[float] | None:
        """The attribute ``balance``."""
        return [float(b) for b in self.instance.balance]


def _rows(cls: Tensor, box: Tensor, indices: Sequence[Tensor], anchor_wh: Tensor) -> Rows:
    image, anchor, row, column = (i.detach().cpu().long().numpy() for i in indices)
    return Rows(
        image=image,
        anchor=anchor,
        row=row,
        column=column,
        cls=cls.detach().cpu().long().numpy(),
        box=box.detach().cpu().numpy().reshape(-1, 4),
        anchor_wh=anchor_wh.detach().cpu().numpy().reshape(-1, 2),
    )


def load_loss(spec: str, device: torch.device) -> LossUnderTest:
    """Find the loss named ``path/to/file.py:Name`` or ``package.module:Name``.

    Raises UsageError, one line with the closest match, where the file, module or name does not exist or
    cannot be imported.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"--loss {spec}: expected path/to/file.py:Class or package.module:Class")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, name, None)
    if found is None:
        callables = [n for n, v in vars(module).items() if callable(v)]
        raise UsageError(f"--loss {spec}: {place} has no {name!r}{_closest(name, callables)}")
    return LossUnderTest(spec, _adapt(found, spec), device)


def _adapt(found: Any, spec: str) -> Callable[[Case, torch.device], Subject]:
    if not inspect.isclass(found):
        raise UsageError(f"--loss {spec}: expected a class, got {type(found).__name__}")
    if issubclass(found, Subject):
        return found
    return lambda case, device: ClassSubject(case, device, loss_class=found)


def find_device(name: str) -> torch.device:
    """The device of that name. Raises UsageError, one line, where there is none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        kinds = ["cpu", "cuda", "mps"]
        raise UsageError(f"--device {name}: not to be had here: {reason}{_closest(name, kinds)}") from error
    return device


def _closest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = path.parent.glob("*.py") if path.parent.is_dir() else ()
        raise UsageError(f"--loss {path}: no such file{_closest(str(path), map(str, near))}")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    for folder in (str(Path.cwd()), str(root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    if "." in name:  # a package's module imports its neighbours, so it keeps its own name
        return _imported(name, str(path))
    alias = f"yololoss_subject_{path.stem}"
    file_spec = importlib.util.spec_from_file_location(alias, path)
    assert file_spec is not None  # a path that ends in .py has a loader
    assert file_spec.loader is not None
    module = importlib.util.module_from_spec(file_spec)
    sys.modules[alias] = module
    try:
        file_spec.loader.exec_module(module)
    except Exception as error:
        raise _import_failed(str(path), error) from error
    return module


def _import_module(name: str) -> ModuleType:
    parent, _, _ = name.rpartition(".")
    try:
        missing = importlib.util.find_spec(name) is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        known = [m.name for m in pkgutil.iter_modules()]
        if parent and (package := sys.modules.get(parent)) is not None:
            known = [f"{parent}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
        raise UsageError(f"--loss {name}: no such module{_closest(name, known)}")
    return _imported(name, name)


def _imported(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _import_failed(shown, error) from error


def _import_failed(shown: str, error: Exception) -> UsageError:
    return UsageError(f"--loss {shown}: importing it raised {type(error).__name__}: {error}")
