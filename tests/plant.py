"""Faults planted in copies of the bundled loss, to see that a law notices."""

import re
from dataclasses import dataclass
from pathlib import Path

import yololoss

HOME = Path(yololoss.__file__).parent


@dataclass(frozen=True)
class Fault:
    """One careless edit: in a module of the loss, what a pattern matches is replaced."""

    name: str
    module: str
    pattern: str
    replacement: str


FOUR = (
    Fault("neighbour_sign", "assign", r"shifted = centre - offset", "shifted = centre + offset"),
    Fault("height_width_swapped", "assign", r"\(columns, rows, columns, rows\)", "(rows, columns, rows, columns)"),
    Fault("clamp_dropped", "assign", r"shifted\.long\(\)\.clamp\((?s:.*?)\n    \)", "shifted.long()"),
    Fault("balance_reversed", "loss", r"THREE_LAYERS = \(4\.0, 1\.0, 0\.4\)", "THREE_LAYERS = (0.4, 1.0, 4.0)"),
)


def plant(fault: Fault, folder: Path) -> str:
    """Copy the loss into ``folder`` as a package of its own with the fault in it; return its --loss spec."""
    package = folder / f"planted_{fault.name}"
    package.mkdir(parents=True)
    for source in HOME.glob("*.py"):
        text = source.read_text(encoding="utf-8").replace("yololoss.", f"{package.name}.")
        text = text.replace("from yololoss import", f"from {package.name} import")
        if source.stem == fault.module:
            text, count = re.subn(fault.pattern, fault.replacement, text)
            if count != 1:
                raise ValueError(f"{fault.name}: its pattern matches {count} times in {source.name}, not once")
        (package / source.name).write_text(text, encoding="utf-8")
    return f"{package / 'loss.py'}:ComputeLoss"
