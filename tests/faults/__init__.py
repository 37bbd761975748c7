"""The catalogue of planted faults: single careless edits of the bundled loss. The gate must find each of them.

A fault replaces one text of one module of the loss. ``step`` says which step of the loss it changes (or which two),
``law`` which law is expected to break, and ``field`` its number in the list of known faults (F01 to F73, faults seen
in published YOLOv5-style losses, with which the project began).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yololoss

PACKAGES = Path(yololoss.__file__).parent
HOME = PACKAGES / "v5"
STEPS = (
    "INPUT",
    "MATCH",
    "NEIGH",
    "INDEX",
    "TBOX",
    "DECODE",
    "IOU",
    "OBJ",
    "CLS",
    "BCE/FOCAL",
    "SCALE",
    "STATE",
    "DEVICE",
    "DTYPE",
    "AUTOGRAD",
    "RETURN",
)
KINDS = ("edge case", "missing step", "wrong primitive", "modified parameter", "known field bug", "legacy behaviour")


@dataclass(frozen=True)
class Fault:
    """One careless edit: in a module of the loss, ``old``, which occurs there once, becomes ``new``.

    ``package``: where that loss is, and ``loss`` its module and class. ``dialect``: what it is held to.
    """

    name: str
    step: str
    kind: str
    law: str
    module: str
    old: str
    new: str
    field: str = ""
    device: str = "cpu"  # the device on which it is a fault
    package: str = "v5"
    loss: tuple[str, str] = ("loss", "ComputeLoss")
    dialect: str = "yololoss"

    def __post_init__(self) -> None:
        if self.package == "v5" and ({*self.steps} - {*STEPS} or self.kind not in KINDS):
            raise ValueError(f"{self.name}: unknown step or kind: {self.step}, {self.kind}")

    @property
    def steps(self) -> tuple[str, ...]:
        """Its steps, one or two."""
        return tuple(self.step.split(", "))


def faults_of(step: str, module: str, law: str) -> Callable[..., Fault]:
    """A function that makes faults of one step and module: (name, kind, old, new, field="", law=law)."""

    def make(name: str, kind: str, old: str, new: str, field: str = "", law: str = law) -> Fault:
        return Fault(name, step, kind, law, module, old, new, field)

    return make


def in_loss(name: str, step: str, kind: str, law: str, old: str, new: str, field: str = "") -> Fault:
    """A fault of loss.py."""
    return Fault(name, step, kind, law, "loss", old, new, field)


_PLANTED = count()


def plant(fault: Fault, folder: Path, checks: bool = True, texts: Mapping[str, str] | None = None) -> str:
    """Copy the loss, with the fault, into ``folder`` as a package of its own; return its --loss spec.

    ``checks``: whether input checks are on by default, as in the bundled loss. If they are off, the loss builds all
    possible rows. ``texts``: modules in which the loss differs from the bundled one.
    """
    texts = {**(texts or {})}
    texts[fault.module] = faulty_text(fault, texts.get(fault.module))
    if not checks:
        loss = texts.get("loss") or (HOME / "loss.py").read_text(encoding="utf-8")
        texts["loss"] = loss.replace("checks: bool = True", "checks: bool = False")
    # a process has only one module of each name, and may plant a fault twice
    return plant_text(f"{fault.name}_{next(_PLANTED)}", texts, folder, fault.package, fault.loss)


def faulty_text(fault: Fault, text: str | None = None) -> str:
    """The module's text with the fault in it."""
    text = text or (PACKAGES / fault.package / f"{fault.module}.py").read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its text occurs {text.count(fault.old)} times in {fault.module}.py, not once")
    return text.replace(fault.old, fault.new)


def texts_of(planted: Iterable[Fault]) -> dict[str, str]:
    """The modules with all of these faults in them. Raises ValueError if two change the same text."""
    texts: dict[str, str] = {}
    for fault in planted:
        texts[fault.module] = faulty_text(fault, texts.get(fault.module))
    return texts


def plant_text(
    name: str, texts: dict[str, str], folder: Path, package: str = "v5", loss: tuple[str, str] = Fault.loss
) -> str:
    """Copy a loss into ``folder`` as package ``name``, some modules with other texts; return its --loss spec."""
    made = folder / name
    made.mkdir(parents=True)
    for source in (PACKAGES / package).glob("*.py"):
        text = texts.get(source.stem) or source.read_text(encoding="utf-8")
        (made / source.name).write_text(in_package(name, text, package), encoding="utf-8")
    return f"{made / loss[0]}.py:{loss[1]}"


def in_package(name: str, text: str, package: str = "v5") -> str:
    """The text of a module of the loss, as it is in a package of that name."""
    return text.replace(f"yololoss.{package}.", f"{name}.").replace(
        f"from yololoss.{package} import", f"from {name} import"
    )
