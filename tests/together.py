"""How many faults a check tells of one, two or three: ``python -m tests.together``.

Faults of the catalogue are planted into the bundled loss, alone and together, and each such loss is checked, by the
command that a user runs, on a part of the gate's cases.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from tests.faults import Fault, plant, texts_of
from tests.faults.catalogue import BY_NAME, FAULTS
from yololoss.harness.findings.verdict import Verdict

CASES = 600  # a fifth of the gate's
PAIRS, TRIPLES = 200, 100
SEED = 7
CANNOT = "cannot be called"


class Told(NamedTuple):
    """What was planted, the laws that show a fault each, and how many laws broke."""

    planted: tuple[str, ...]
    faults: tuple[str, ...]
    laws: int


def tell(planted: tuple[Fault, ...], cases: int = CASES) -> Told:
    """Plant these faults, and count what a check tells."""
    *others, last = planted
    with tempfile.TemporaryDirectory() as folder:
        spec = plant(last, Path(folder), texts=texts_of(others))
        command = [sys.executable, "-m", "yololoss", "check", spec, "--json", "--dialect", "yololoss"]
        command += ["--workers", "1", "--cases", str(cases), "--findings", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if CANNOT in done.stderr:  # then nothing else of it can be seen
        return Told(tuple(fault.name for fault in planted), (CANNOT,), 0)
    verdict = Verdict.model_validate_json(done.stdout)
    broke = {law for fault in verdict.faults for law in fault.laws}
    return Told(tuple(fault.name for fault in planted), tuple(fault.law for fault in verdict.faults), len(broke))


def together(size: int, count: int) -> Iterator[tuple[Fault, ...]]:
    """Random faults that can be planted together."""
    chance = random.Random(SEED + size)  # the same in every run
    usual = [fault for fault in FAULTS if fault.device == "cpu"]
    while count:
        chosen = tuple(chance.sample(usual, size))
        try:
            texts_of(chosen)
        except ValueError:  # they change the same text
            continue
        count -= 1
        yield chosen


def rows(told: Sequence[Told]) -> Iterator[str]:
    """The table: how often how many faults were told."""
    yield f"| planted together | losses | {CANNOT} | as many told | fewer | one more | more than that |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for size in sorted({len(each.planted) for each in told}):
        found = [each.faults for each in told if len(each.planted) == size]
        more = Counter(len(faults) - size for faults in found if CANNOT not in faults)
        count, right = more.total(), more[0]
        fewer, worse = (sum(n for off, n in more.items() if test(off)) for test in ((0).__gt__, (1).__lt__))
        never = len(found) - count
        yield f"| {size} | {len(found)} | {never} | {right} ({right / count:.0%}) | {fewer} | {more[1]} | {worse} |"


def page(told: Sequence[Told], every: int) -> Iterator[str]:
    """The Markdown page."""
    yield "# How many faults are told\n"
    yield "Faults of the catalogue, planted into the bundled loss, alone or together. Each such loss is checked by"
    yield f"`yololoss check LOSS --dialect yololoss --cases {CASES}`, a fifth of the usual cases, and what it tells is"
    yield "counted."
    if every > 1:
        yield f"Only every {every}th of the losses was checked."
    yield f"Made by `python -m tests.together{'' if every == 1 else f' --every {every}'}`.\n"
    yield from rows(told)
    yield "\nWhere another number was told:\n"
    yield "| planted | told as |\n|---|---|"
    for each in told:
        if len(each.faults) != len(each.planted) and CANNOT not in each.faults:
            yield f"| {', '.join(each.planted)} | {', '.join(f'`{law}`' for law in each.faults) or 'nothing'} |"


def main() -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th loss")
    parser.add_argument("--results", type=Path, help="plant only what this file does not have, and add to it")
    parser.add_argument("--only", nargs="*", metavar="NAME+NAME", help="only these faults, and no page")
    given = parser.parse_args()
    lines = given.results.read_text(encoding="utf-8").splitlines() if given.results and given.results.exists() else []
    made = {tuple(names): Told(tuple(names), tuple(faults), laws) for names, faults, laws in map(json.loads, lines)}
    single = [(fault,) for fault in BY_NAME.values() if fault.device == "cpu"]
    several = (t for n, count in ((2, PAIRS), (3, TRIPLES)) for t in [*together(n, count)][:: given.every])
    tasks = [*several, *single[:: given.every]]
    if given.only:
        tasks = [tuple(BY_NAME[name] for name in names.split("+")) for names in given.only]
    left = [task for task in tasks if tuple(fault.name for fault in task) not in made]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for told in track(pool.map(tell, left), "losses", len(left), console=Console(stderr=True)):
            made[told.planted] = told
            if given.results:
                with given.results.open("a", encoding="utf-8") as results:
                    results.write(json.dumps(told) + "\n")
    told = [made[tuple(fault.name for fault in task)] for task in tasks]
    print("\n".join(map(str, told) if given.only else page(told, given.every)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
