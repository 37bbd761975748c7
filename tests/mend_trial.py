"""How often ``mend`` names the line at fault, and what mends it: makes docs/measured/mend.md.

    python -m tests.mend_trial [--every N] [--first N] [--workers N] [--seconds N] [--results FILE]

On faults of the catalogue that are one edit of one place, and on random mutants by cosmic-ray's operators, which the
edits of ``mend`` do not share. A mutant that no law notices is left out. With a file of results the trial can be ended
at any time, and goes on with what the file does not have.
"""

import argparse
import ast
import difflib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from tests.faults import HOME, faulty_text, in_package, plant_text
from tests.faults.catalogue import FAULTS
from yololoss.harness.engine.gate import Gate, Options
from yololoss.harness.findings.finding import CURES_ALL, Finding
from yololoss.harness.laws.law import find_laws
from yololoss.harness.mend.mend import SECONDS, mend

MUTANTS, SEED = 150, 20261122
COUNT = count()
CHECKED = 600  # cases of the check that finds the fault


class Planted(NamedTuple):
    """A module of the loss with a fault in it."""

    name: str
    module: str
    text: str

    @property
    def right(self) -> str:
        """The module without the fault."""
        return (HOME / f"{self.module}.py").read_text(encoding="utf-8")

    @property
    def lines(self) -> set[int]:
        """The lines at fault; where lines are missing, those beside them."""
        old, new = self.right.splitlines(), self.text.splitlines()
        changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        ranges = [(first, last) for kind, _, _, first, last in changes if kind != "equal"]
        return {n + 1 for first, last in ranges for n in (range(first, last) if last > first else (first - 1, first))}


class Result(NamedTuple):
    """What was named for one fault."""

    name: str
    module: str
    noticed: bool  # whether any law breaks
    place: int | None = None  # of the true line among those named, from 0
    mended: bool = False  # the fault's text is as it was, or an edit is called sure and all laws hold with it
    wrong: bool = False  # an edit is called sure, and a law breaks with it
    seconds: float = 0.0


def catalogue() -> list[Planted]:
    """The faults of the catalogue on a CPU that change one place."""
    faults = sorted((fault for fault in FAULTS if fault.device == "cpu"), key=lambda fault: fault.name)
    found = [Planted(fault.name, fault.module, faulty_text(fault)) for fault in faults]
    return [each for each in found if max(each.lines) - min(each.lines) < len(each.lines)]


def mutants() -> list[Planted]:
    """Random mutants by the operators of cosmic-ray."""
    from tests.mutants import MODULES, classic  # noqa: PLC0415  # needs the extra mutation

    every = [
        Planted(f"mutant {module} {n}", module, text)
        for module in MODULES["v5"]
        for n, text in enumerate(classic(module))
    ]
    other = [each for each in every if _is_another(each)]
    return random.Random(SEED).sample(other, MUTANTS)


def _is_another(planted: Planted) -> bool:
    """Whether it is a program, and another one."""
    try:
        return ast.dump(ast.parse(planted.text)) != ast.dump(ast.parse(planted.right))
    except SyntaxError:
        return False


def found_by_check(spec: str, folder: Path, workers: int) -> tuple[Gate, Sequence[Finding]]:
    """The gate of a loss, and the faults that it finds."""
    gate = Gate(Options(loss=spec, dialect="upstream", cases=CHECKED, findings=str(folder)), folder)
    gate.prepare()
    return gate, gate.verdict(find_laws(gate.family), workers, lambda _: None).faults


def tried(planted: Planted, workers: int, seconds: float) -> Result:
    """Plant the fault, check the loss and mend it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = f"planted_{next(COUNT)}"  # a process has only one module of each name
        spec = plant_text(package, {planted.module: planted.text}, folder)
        gate, faults = found_by_check(spec, folder, workers)
        if not faults:
            return Result(planted.name, planted.module, noticed=False)
        began = time.monotonic()
        mends = mend(faults[:1], gate.task("cpu"), gate.family, seconds=seconds, workers=workers)[0].mends
        took = time.monotonic() - began
        named = [(Path(each.file).stem, each.line) for each in mends]
        place = next(
            (n for n, (file, line) in enumerate(named) if file == planted.module and line in planted.lines), None
        )
        sure = bool(mends) and mends[0].sure == CURES_ALL
        as_it_was = ast.dump(ast.parse(in_package(package, planted.right)))
        holds = sure and _holds(mends[0].diff, spec, folder / package / f"{planted.module}.py", as_it_was, workers)
        return Result(planted.name, planted.module, True, place, holds, sure and not holds, took)


def _holds(diff: str, spec: str, module: Path, as_it_was: str, workers: int) -> bool:
    """Whether the module is again the program that it was, with the difference, or else all laws hold in a check."""
    subprocess.run(["patch", "-p1", "-s"], input=diff, text=True, check=True, cwd="/")
    if ast.dump(ast.parse(module.read_text(encoding="utf-8"))) == as_it_was:
        return True
    with tempfile.TemporaryDirectory() as other:
        command = [sys.executable, "-m", "yololoss", "check", spec, "--dialect", "upstream", "--no-shrink", "--json"]
        given = ["--workers", str(workers), "--findings", other]
        return subprocess.run([*command, *given], capture_output=True, check=False, cwd=other).returncode == 0


def row(name: str, results: Sequence[Result]) -> str:
    """A line of the table."""
    made, results = len(results), [each for each in results if each.noticed]
    count = len(results) or 1
    first = sum(each.place == 0 for each in results)
    three = sum(each.place is not None for each in results)
    mended, wrong = sum(each.mended for each in results), sum(each.wrong for each in results)
    shares = (f"{n} ({100 * n / count:.0f} %)" for n in (first, three, mended, wrong))
    seconds = statistics.median([each.seconds for each in results] or [0.0])
    return f"| {name} | {made} | {len(results)} | {' | '.join(shares)} | {seconds:.0f} s |"


def lines(results: Sequence[Result]) -> Iterator[str]:
    """A line for each fault that was not mended."""
    for each in results:
        if each.noticed and not each.mended:
            place = "not named" if each.place is None else f"place {each.place + 1}"
            yield f"- {each.name} ({each.module}): line {place}{', WRONG' if each.wrong else ''}"


def kept(path: Path | None) -> dict[str, Result]:
    """The results in a file, by name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return {result.name: result for result in (Result(*json.loads(line)) for line in lines)}


def made(wanted: Sequence[Planted], given: argparse.Namespace) -> Iterator[Result]:
    """A result of each; those that the file of results does not have are made, and added to it."""
    known = kept(given.results)
    for planted in wanted:
        if planted.name not in known:
            known[planted.name] = tried(planted, given.workers, given.seconds)
            if given.results:
                with given.results.open("a", encoding="utf-8") as results:
                    results.write(json.dumps(known[planted.name]) + "\n")
        yield known[planted.name]


def command(given: argparse.Namespace) -> str:
    """The command that makes this page."""
    first = f" --first {given.first}" if given.first else ""
    return f"python -m tests.mend_trial --every {given.every}{first} --workers {given.workers}"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one, from 0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--of", choices=["catalogue", "mutants", "both"], default="both")
    parser.add_argument("--results", type=Path, help="make only what this file does not have, and add to it")
    given = parser.parse_args()
    sets = {"catalogue": catalogue, "mutants": mutants}
    wanted = sets if given.of == "both" else {given.of: sets[given.of]}
    found = {name: [*made(make()[given.first :: given.every], given)] for name, make in wanted.items()}
    print(f"`{command(given)}` on {os.cpu_count()} cores.\n")
    print("| faults | planted | noticed | line first | among three | mended | wrong, called sure | median |")
    print("|---|---|---|---|---|---|---|---|")
    for name, results in found.items():
        print(row(name, results))
    for name, results in found.items():
        if rest := [*lines(results)]:
            print(f"\nNot mended of {name}:\n")
            print("\n".join(rest))


if __name__ == "__main__":
    main()
