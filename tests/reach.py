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
from unittest.mock import patch

import torch

from properties.v5.case import Case
from properties.v5.regions import REGIONS, regions
from tests.all_laws import LAWS, V5
from tests.judging import apart, on_its_device
from yololoss.harness.laws.law import GATE, GATE_SEED, Law
from yololoss.harness.subjects.family import LossUnderTest

ENOUGH = 20
JUDGED = "judged"


def reach(law: Law, subject: LossUnderTest) -> Counter[str]:
    """How many of the gate's cases the law judges, in all (`JUDGED`) and by region."""
    found: Counter[str] = Counter()
    examine = Law.examine

    def counted(self: Law, subject: LossUnderTest, case: Case) -> None:
        before = self.tally.judged
        examine(self, subject, case)
        if self.tally.judged > before:
            found.update([JUDGED, *regions(case)])

    with patch.object(Law, "examine", counted):
        law.search(subject, GATE, GATE_SEED)
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


def _reached(laws: list[str]) -> dict[str, Counter[str]]:
    """The same of several laws, in a process of its own: laws over the same strategy share what runs on its cases."""
    subjects = {device: on_its_device("yololoss:ComputeLoss", device) for device in ("cpu", "mirror")}
    return {name: reach(LAWS[name], subjects["mirror" if LAWS[name].on else "cpu"]) for name in laws}


def _parts(laws: list[str]) -> list[list[str]]:
    """One a processor, each with every so many-th law: neighbours take about as long."""
    count = os.cpu_count() or 1
    return [laws[start::count] for start in range(count)]


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
    laws = [name for name, law in LAWS.items() if law.on != ("compile",) and law.strategy(V5) is not None]
    match arguments:
        case []:
            torch.set_num_threads(1)
            table = dict(pair for part in apart(_reached, _parts(laws), "laws") for pair in part.items())
            print("\n".join(page(table)))
            judged = {name: table[name][JUDGED] for name in laws}
        case ["--check", file]:
            judged = judged_in(Path(file))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    few = [f"{name} judges {judged.get(name, 0)} cases" for name in laws if judged.get(name, 0) < ENOUGH]
    print("\n".join(few), file=sys.stderr)
    return 1 if few else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
