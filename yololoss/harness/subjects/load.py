"""Finds the loss under test, and the device, by name."""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from yololoss import _suite
from yololoss.harness.devices.devices import get_device
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.subjects.compiled import NAME as COMPILE
from yololoss.harness.subjects.dialect import read_dialect
from yololoss.harness.subjects.family import Family, LossUnderTest, find_family
from yololoss.harness.subjects.project import find_settings
from yololoss.harness.subjects.subject import Make, Subject

DEVICES = ("cpu", "mirror", "cuda", "mps")  # that auto means

ALONE = "yololoss_subject_"  # how the name of a module begins that is in no package


def import_loss(spec: str) -> tuple[Any, ModuleType]:
    """The class or function named ``path/to/file.py:Name`` or ``package.module:Name``, and its module.

    This runs the module's code. Raises UsageError, one line with the closest match.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"--loss {spec}: expected path/to/file.py:Name or package.module:Name")
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, name, None)
    if found is None:
        callables = [n for n, v in vars(module).items() if callable(v)]
        raise UsageError(f"--loss {spec}: {place} has no {name!r}{closest(name, callables)}")
    home = str(getattr(found, "__module__", ""))  # a package may re-export it from one of its modules
    return found, sys.modules[home] if home.startswith(f"{module.__name__}.") and home in sys.modules else module


def load_loss(spec: str, device: torch.device, dialect: str | None = None, *, compiled: bool = False) -> LossUnderTest:
    """Find the loss named ``path/to/file.py:Name`` or ``package.module:Name``: a class, or a function.

    A class derived from Subject names its family. Any other loss belongs to the first family that knows its call form.
    Without a dialect, it is judged by the default dialect of its family.

    Raises UsageError, one line with the closest match, if the file, module, name or dialect does not exist, if it
    cannot be imported, or if no family knows its call form.
    """
    found, module = import_loss(spec)
    try:
        family, make = _adapted(found, module)
    except TypeError as error:
        raise UsageError(f"--loss {spec}: {error}") from error
    if dialect is None:
        dialect = family.own_dialect if spec == family.bundled else family.usual_dialect
    chosen = read_dialect(dialect, family.dialects, family.usual_dialect)
    return LossUnderTest(spec, make, device, family, chosen, compile=compiled)


def _adapted(found: Any, module: ModuleType) -> tuple[Family, Make]:
    if inspect.isclass(found) and issubclass(found, Subject):
        return find_family(found.family), found
    if not callable(found):
        raise TypeError(f"expected a class or a function, got {type(found).__name__}")
    reasons = []
    for family in map(find_family, _suite.FAMILIES):
        try:
            return family, family.adapt(found, module)
        except TypeError as error:
            reasons.append(str(error))
    raise TypeError(reasons[0])


def find_device(name: str) -> torch.device:
    """The device of that name; for "compile" the CPU. Raises UsageError, one line, if it is not available."""
    try:
        return get_device("cpu" if name == COMPILE else name)
    except RuntimeError as error:
        kind, known = name.partition(":")[0], (*DEVICES, COMPILE)
        # torch's message also lists its backends, and torch knows more devices than the harness
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".") if kind in known else None
        why = reason or f"known: {', '.join(known)}"
        raise UsageError(f"--device {name}: not available here{closest(kind, known)} ({why})") from error


def find_devices(names: str, worker: int = 0) -> tuple[dict[str, torch.device], list[str]]:
    """The devices of these names, separated by commas, and why others are absent. ``auto`` means all devices.

    Several workers take one GPU each. Raises UsageError, one line, if a device that was named is not available. A
    device of ``auto`` that is not available is listed as absent.
    """
    found, absent = {}, []
    given = [name.strip() for name in names.split(",")]
    for name in dict.fromkeys((*given, *DEVICES) if "auto" in given else given):
        try:
            if name != "auto":
                found[name] = find_device(_one_of_several(name, worker))
        except UsageError as error:
            if name in given:
                raise
            absent.append(str(error).removeprefix("--device "))
    return found, absent


def _one_of_several(name: str, worker: int) -> str:
    return f"cuda:{worker % torch.cuda.device_count()}" if name == "cuda" and torch.cuda.is_available() else name


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        near: Iterable[Path] = ()
        if path.parent.is_dir():
            near = path.parent.glob("*.py")
        elif not path.is_absolute():  # only files at the same depth, and not the whole disk
            near = Path().glob("*/" * (len(path.parts) - 1) + "*.py")
        raise UsageError(f"--loss {path}: no such file{closest(str(path), map(str, sorted(near)))}")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    if root == path.parent:  # a folder without __init__.py is a package too, of the project that has settings
        settings = find_settings(root)
        home = Path.cwd() if settings is None else settings[0].parent
        root = home if path.is_relative_to(home) else root
    for folder in (str(Path.cwd()), str(root)):
        sys.path[:] = [folder, *(there for there in sys.path if there != folder)]  # before those of another fork
    parts = path.relative_to(root).with_suffix("").parts
    if len(parts) > 1 and all(part.isidentifier() for part in parts):
        # a module of a package imports its neighbours, so import it as its own project does
        module = _imported(".".join(parts), str(path))
        if Path(module.__file__ or "").resolve() != path:
            raise UsageError(f"--loss {path}: its module {'.'.join(parts)} is another file here, {module.__file__}")
        return module
    alias = f"{ALONE}{path.stem}"
    file_spec = importlib.util.spec_from_file_location(alias, path)
    assert file_spec is not None  # a path that ends in .py has a loader
    assert file_spec.loader is not None
    module = importlib.util.module_from_spec(file_spec)
    sys.modules[alias] = module
    with _importing(str(path)):
        file_spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    parent, _, _ = name.rpartition(".")
    try:
        with _importing(name):  # this imports the packages that contain it
            missing = importlib.util.find_spec(name) is None
    except UsageError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or not f"{name}.".startswith(f"{cause.name}."):
            raise
        missing = True
    if missing:
        known = [m.name for m in pkgutil.iter_modules()]
        if parent and (package := sys.modules.get(parent)) is not None:
            known = [f"{parent}.{m.name}" for m in pkgutil.iter_modules(getattr(package, "__path__", []))]
        raise UsageError(f"--loss {name}: no such module{closest(name, known)}")
    return _imported(name, name)


def _imported(name: str, shown: str) -> ModuleType:
    with _importing(shown):
        return importlib.import_module(name)


@contextmanager
def _importing(shown: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # else a run that turns warnings into errors fails here
            yield
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may call sys.exit
        raise UsageError(f"--loss {shown}: importing it raised {type(error).__name__}: {error}") from error
