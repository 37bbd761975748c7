"""What was judged: the loss, its file, and the versions that its results depend on."""

import platform
import sys
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType

from yololoss._suite import VERSION
from yololoss.harness.cases.case import Data
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import import_loss

OURS = ("torch", "numpy", "hypothesis", "pytest")


class About(Data):
    """What a run judged."""

    loss: str
    device: str
    family: str
    dialect: str
    date: str
    command: str
    file: str | None
    sha256: str | None
    versions: dict[str, str]
    parts: dict[str, str]  # packages that the loss's own modules use, and their versions


def about(loss: LossUnderTest, device: str, command: str) -> About:
    """Describe a run on this loss."""
    _, module = import_loss(loss.spec)
    file = getattr(module, "__file__", None)
    versions = {"python": platform.python_version(), "yololoss": VERSION}
    return About(
        loss=loss.spec,
        device=device,
        family=loss.family.name,
        dialect=loss.dialect_text,
        date=datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        file=file,
        sha256=sha256(Path(file).read_bytes()).hexdigest() if file else None,
        versions=versions | {name: version(name) for name in OURS},
        parts=_parts(module),
    )


def sources(spec: str) -> dict[str, str]:
    """SHA-256 of the files of the loss's module, and of the modules of its own project that it uses, by module name."""
    own, _ = _walked(import_loss(spec)[1])
    files = {module.__name__: getattr(module, "__file__", None) for module in own}
    return {name: sha256(Path(file).read_bytes()).hexdigest() for name, file in sorted(files.items()) if file}


def _parts(module: ModuleType) -> dict[str, str]:
    """Versions of the packages, except torch, that the loss and the modules of its own project use names from."""
    return {name: _version(name) for name in sorted(_walked(module)[1] - {"torch", "yololoss"})}


def _walked(module: ModuleType) -> tuple[list[ModuleType], set[str]]:
    """The loss's module and the modules of its own project that it uses, and the packages that they use names from."""
    known = packages_distributions()
    own = {module.__name__.partition(".")[0]}
    seen: dict[str, ModuleType] = {}
    names: set[str] = set()
    todo = [module]
    while todo:
        each = todo.pop()
        seen[each.__name__] = each
        for value in vars(each).values():
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            top = str(name).partition(".")[0]
            if top in known and top not in own:
                names.update(known[top])
            elif name in sys.modules and name not in seen and top not in sys.stdlib_module_names:
                todo.append(sys.modules[name])
    return list(seen.values()), names


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # pragma: no cover  # a package that was removed incompletely
        return "unknown"
