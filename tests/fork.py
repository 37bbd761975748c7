"""The example fork, and edits of it: ``python -m tests.fork``, with the ``yololoss`` that PATH finds.

In a copy of `examples/fork` and nothing else, its test, which runs `yololoss check`, must pass. After each edit the
check must break the law that is named here first, draw it, and give a command that replays it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOSS, METRICS = "utils/loss.py", "utils/metrics.py"
SPEC = f"{LOSS}:ComputeLoss"


class Edit(NamedTuple):
    """One line of the fork, and what it becomes; the law that is first to break, if any."""

    name: str
    file: str
    old: str
    new: str
    law: str


EDITS = (
    # "frac(W - gx) < 1/2 is just frac(gx) > 1/2": not on a grid line
    Edit(
        "neighbour", LOSS, "far = (inv % 1 < 0.5) & (inv > 1)", "far = (gxy % 1 > 0.5) & (inv > 1)", "assign.neighbours"
    ),
    # rows and columns swapped: square grids hide it
    Edit(
        "clamp",
        LOSS,
        "gi, gj = gi.clamp(0, nx - 1), gj.clamp(0, ny - 1)",
        "gi, gj = gi.clamp(0, ny - 1), gj.clamp(0, nx - 1)",
        "assign.clamped-indices",
    ),
    # pi lost its square
    Edit("aspect", METRICS, "- angle1).square() * 4 / math.pi**2", "- angle1).square() * 4 / math.pi", "boxes.item"),
    # the objectness target pulls at the boxes
    Edit("detach", LOSS, "quality = iou.detach().clamp(min=0)", "quality = iou.clamp(min=0)", "boxes.gradient"),
    # twice the smoothing for the right class
    Edit("smoothing", LOSS, "return 1.0 - 0.5 * eps, 0.5 * eps", "return 1.0 - eps, 0.5 * eps", "classes.item"),
)
GIOU = Edit("giou", LOSS, "tbox[i], CIoU=True, angle1=angle)", "tbox[i], GIoU=True)", "boxes.item")
CONSTANT = Edit("constant", LOSS, "[4.0, 1.0, 0.4]", "[4.0, 1.0, 0.41]", "baseline.values")


def copy_fork(folder: Path, *edits: Edit) -> Path:
    """A copy of the fork in ``folder``, edited."""
    fork = folder / "fork"
    shutil.copytree(ROOT / "examples" / "fork", fork, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for each in edits:
        edit(fork, each)
    return fork


def edit(fork: Path, change: Edit) -> None:
    """Make the change, in a line that stands there once."""
    path = fork / change.file
    text = path.read_text(encoding="utf-8")
    if text.count(change.old) != 1:
        raise ValueError(f"{change.name}: its text stands {text.count(change.old)} times in {change.file}, not once")
    path.write_text(text.replace(change.old, change.new), encoding="utf-8")


def said(command: str, cwd: Path) -> tuple[int, str]:
    """Exit status and output of a command, as pasted into a shell."""
    done = subprocess.run(command, shell=True, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def try_edit(change: Edit, folder: Path, options: str = "") -> str | None:
    """What is wrong with the check's answer to an edit; None where nothing is."""
    fork = copy_fork(folder, change)
    status, output = said(f"yololoss check --json {options}", fork)
    if status != 1:
        return f"{change.name}: exit status {status}: {output}"
    first = json.loads(output)["faults"][0]
    if first["law"] != change.law:
        return f"{change.name}: {first['law']} is first, expected {change.law}"
    if not (fork / first["picture"]).read_bytes().startswith(b"\x89PNG"):
        return f"{change.name}: no picture"
    status, output = said(first["replay"], fork)
    return None if status == 1 and "still broken" in output else f"{change.name}: its replay: {status}, {output}"


def main() -> int:
    """The unedited fork by the whole gate, and each edit by the laws up to the one that must be first to break."""
    wrong: list[str | None] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        status, output = said("python -m pytest -q -p no:cacheprovider tests", copy_fork(Path(folder)))
        print(f"{output}exit status {status} in {time.perf_counter() - start:.0f} s")
        wrong += [] if status == 0 else [f"unedited: exit status {status}"]
    known = [law["id"] for law in json.loads(said("yololoss laws --json", ROOT)[1])]
    for change in EDITS:
        # the laws that run after the named one cannot break first
        laws = " ".join(f"--laws {law}" for law in known[: known.index(change.law) + 1])
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            wrong.append(try_edit(change, Path(folder), laws))
            print(f"{change.name}: {wrong[-1] or f'{change.law} broke first'}, {time.perf_counter() - start:.0f} s")
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
