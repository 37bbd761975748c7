"""How many of the gate's cases each law judges, by region: ``python -m tests.reach > docs/measured/reach.md``.

Counted are the cases in which the law compared something; one that did not apply, or had no row to look at, does not
count. ``--check FILE`` prints only the laws that judged fewer than `ENOUGH` cases in the run that FILE is of, which
``yololoss check --device cpu,mirror --json`` wrote.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from properties.v5.regions import REGIONS, regions
from tests.all_laws import LAWS, V5
from tests.judging import apart, how_many, made, on_its_device
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine.judge import judged
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws.exam import Run

ENOUGH = 20
JUDGED = "judged"
Part = tuple[str, int, int]  # the device, the number of the first case, and the step to the next


def reach(part: Part) -> dict[str, Counter[str]]:
    """How many of these cases each law judges, in all (`JUDGED`) and by region; in a process of its own."""
    device, start, step = part
    plan = Plan((), on_its_device(BUNDLED, device))
    found: dict[str, Counter[str]] = {id: Counter() for id in plan.laws}
    for _, _, case, laws in made(plan, range(start, how_many(plan), step)):
        run = Run(plan.subject, case)
        reached = [JUDGED, *regions(case)]
        for law in laws:
            if bool(law.on) == (device == "mirror"):
                before = law.tally.judged
                broken, _ = judged(law, run)
                assert broken is None, broken
                if law.tally.judged > before:
                    found[law.id].update(reached)
    return found


def page(table: dict[str, Counter[str]]) -> Iterator[str]:
    """The Markdown page."""
    yield "# What the gate's cases reach\n"
    yield "For each law, in how many of the gate's cases it judged the bundled loss (on the CPU; what needs an"
    yield "accelerator, on the mirror), and how many of those lie in each of the regions where losses go wrong"
    yield "(`properties/v5/regions.py`). Made by"
    yield "`python -m tests.reach > docs/measured/reach.md`;"
    yield f"`.ci/run` fails where a law judges fewer than {ENOUGH} cases.\n"
    yield "| law | judged | " + " | ".join(REGIONS) + " |\n|---|" + "---:|" * (len(REGIONS) + 1)
    for law in sorted(table):
        yield f"| `{law}` | {' | '.join(str(table[law][name]) for name in (JUDGED, *REGIONS))} |"


def parts() -> list[Part]:
    """As many parts of each device's cases as there are processors."""
    count = os.cpu_count() or 1
    return [(device, start, count) for device in ("cpu", "mirror") for start in range(count)]


def judged_in(file: Path) -> dict[str, int]:
    """How many cases each law judged in a run, on the device on which it judged most."""
    found: dict[str, int] = {}
    for row in json.loads(file.read_bytes())["laws"]:
        name = row["id"].partition(" ")[0]
        found[name] = max(found.get(name, 0), row["judged"])
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the page, or with --check the laws that judge too few cases."""
    # compiling takes a minute a case, so those laws have a few cases of their own; a baseline has its own
    laws = [name for name, law in LAWS.items() if law.strategy(V5) is not None]
    match arguments:
        case []:
            table: dict[str, Counter[str]] = {name: Counter() for name in laws}
            for part in apart(reach, parts(), "parts of the gate"):
                for name, counts in part.items():
                    table[name] += counts
            print("\n".join(page(table)))
            counted = {name: table[name][JUDGED] for name in laws}
        case ["--check", file]:
            counted = judged_in(Path(file))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    few = [f"{name} judges {counted.get(name, 0)} cases" for name in laws if counted.get(name, 0) < ENOUGH]
    print("\n".join(few), file=sys.stderr)
    return 1 if few else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
