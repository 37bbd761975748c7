"""What the gate makes of every planted fault: ``python -m tests.detection > docs/measured/detection.md``.

For each fault of the catalogue the laws are run in the order of the gate, with its settings and its seed, until one
breaks: that is the first law, and the time to it includes making the smallest case. Then the law that the fault names
is run, which must break as well; with ``--all`` every other law too, without making cases small. A first law that says
nothing about the step at fault is a failure, as is a fault that no law notices.

``--check`` is quick, for every CI run: the law that a fault names must break within the gate's cases, and speak of the
step at fault.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from tests.all_laws import LAWS
from tests.faults import STEPS, Fault, plant
from tests.faults.catalogue import FAULTS
from tests.faults.unnoticeable import UNNOTICEABLE
from tests.judging import QUICK, apart, on_its_device, search
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.laws.law import GATE

Mode = Literal["first", "all", "check"]
# The steps that a law speaks of. Laws that compare all with the reference, or the loss with itself, speak of the
# step that their finding shows, so they are given only what their statement names.
ABOUT = {
    "run": " ".join(STEPS),  # what was raised, printed or left undone, and where
    "assign.matched-pairs": "MATCH NEIGH",  # a pair without any row is one that was not matched, too
    "assign.rows-per-pair": "MATCH NEIGH",
    "assign.offset-range": "NEIGH INDEX TBOX",
    "assign.clamped-indices": "NEIGH INDEX",
    "assign.box-plus-cell": "MATCH INDEX TBOX",  # together they are the target, scaled to the grid
    "assign.centre-cell": "NEIGH INDEX",
    "assign.neighbours": "NEIGH INDEX",
    "assign.rows": "MATCH NEIGH INDEX TBOX",
    "assign.row-order": "NEIGH",
    "assign.anchor-sides": "INDEX MATCH",
    "assign.image-and-class": "INDEX CLS",
    "assign.larger-anchor-t": "MATCH",
    "assign.targets-independent": "MATCH",
    "assign.ignores-logits": "MATCH",
    "assign.no-targets": "OBJ RETURN",
    "boxes.only-box-gain": "SCALE AUTOGRAD",
    "boxes": "DECODE IOU INDEX SCALE RETURN",  # of the wrong cell; times its gain, and the first of the items
    "boxes.gradient": "DECODE IOU AUTOGRAD INDEX SCALE",
    "objectness.item": "OBJ BCE/FOCAL SCALE RETURN",
    "objectness": "OBJ BCE/FOCAL SCALE AUTOGRAD",
    "classes.item": "CLS BCE/FOCAL SCALE RETURN",
    "classes": "CLS BCE/FOCAL SCALE AUTOGRAD",
    "totals.autobalance": "SCALE STATE",
    "totals.autobalance-first-call": "SCALE STATE",
    "totals.finite": "",  # as the item that it names
    "totals.large-sizes": "MATCH INDEX DECODE OBJ CLS SCALE",
    "totals.layers-reversed": "SCALE STATE",
    "totals.very-large-sizes": "MATCH INDEX OBJ SCALE",
    "totals": "SCALE RETURN AUTOGRAD",
    "gradients.finite": "DECODE IOU BCE/FOCAL AUTOGRAD",
    "gradients.consistent-with-rows": "INDEX AUTOGRAD",
    "gradients": "AUTOGRAD",
    "gradients.loss-scaling": "AUTOGRAD RETURN",
    "state.target-dtype": "DTYPE",
    "state.non-contiguous": "INDEX STATE",
    "state.after-other-sizes": "STATE INDEX",
    "state.frees-memory": "STATE AUTOGRAD",
    "state.repeated-calls": "STATE DEVICE",  # they differ where an accelerator leaves something to chance, too
    "state": "STATE",
    "form": "INPUT STATE",
    "form.set-hyperparameters": "STATE SCALE",
    "form.interface": "INPUT RETURN",
    "form.set-options": "STATE OBJ",
    "form.set-balance": "STATE SCALE",
    "symmetry.stride": "MATCH SCALE",
    "symmetry": "SCALE",
    "input": "INPUT",
    "devices.shared-cells": "OBJ DEVICE",
    "devices.autocast": "DTYPE DEVICE STATE",
    "devices": "DEVICE",
    "compile": "DEVICE",
}


# Faults of finding the rows that are there: with checks off there are as many as targets could have.
ONLY_WITH_CHECKS = "sorting_needs_two_rows", "empty_layers_skipped", "first_1000_rows"
OF_ITEM = {"box": "DECODE IOU INDEX", "obj": "OBJ BCE/FOCAL", "cls": "CLS BCE/FOCAL"}


@dataclass(frozen=True)
class Finding:
    """A law that broke on a fault, and with which case."""

    law: str
    cases: int  # in which it was noticed, those of the laws before it included
    seconds: float  # of one processor, to the smallest case, the laws before it included
    targets: int
    logits: int
    about: frozenset[str]


@dataclass(frozen=True)
class Detection:
    """What the gate made of a fault."""

    fault: Fault
    first: Finding | None
    laws: tuple[str, ...]  # that broke, of those that were run
    spent: float = 0.0  # seconds of one processor

    def complaints(self) -> Iterator[str]:
        """What is wrong with it."""
        if self.first is None:
            yield f"{self.fault.name}: no law notices it"
            return
        if not self.first.about & {*self.fault.steps}:
            yield f"{self.fault.name}: {self.fault.step}, but first {self.first.law}"
        if self.fault.law not in self.laws:
            yield f"{self.fault.name}: {self.fault.law} holds"


def about(broken: LawBroken) -> frozenset[str]:
    """The steps that a finding speaks of: its law's, and what its smallest case cannot do without."""
    law = broken.law.id
    found = {*(ABOUT[law] if law in ABOUT else ABOUT[law.partition(".")[0]]).split()}
    if law == "totals.finite":
        found |= {*OF_ITEM.get(broken.what.partition(" ")[0], "SCALE").split()}
    case = broken.case
    if case.dtype != "float32" or case.targets_dtype != "float32":
        found.add("DTYPE")
    if not broken.repeats or case.options.calls > 1:
        found.add("STATE")
    return frozenset(found)


def detect(task: tuple[Fault, Mode, bool]) -> Detection:
    """Run the gate on a fault, in a process of its own; in the loss as it is, or with its checks off."""
    fault, mode, checks = task
    first, laws, cases = None, [], 0
    order = [LAWS[fault.law]] if mode == "check" else list(LAWS.values())
    with tempfile.TemporaryDirectory() as folder:
        subject = on_its_device(plant(fault, Path(folder), checks), fault.device)
        start = time.process_time()
        for law in order:
            if first is not None and mode != "all" and law.id != fault.law:
                continue
            broken = search(law, subject, GATE if first is None and mode != "check" else QUICK)
            if broken is not None:
                laws.append(law.id)
            if broken is not None and first is None:
                first = Finding(
                    law.id,
                    cases + law.tally.broke_at,
                    time.process_time() - start,
                    len(broken.case.targets),
                    sum(math.prod(broken.case.shape(i)) for i in range(broken.case.layers)),
                    about(broken),
                )
            cases += law.tally.tried
        spent = time.process_time() - start
    return Detection(fault, first, tuple(laws), spent)


DETECTIONS = TypeAdapter(list[Detection])


def kept(path: Path | None) -> list[Detection]:
    """What an earlier run wrote, of faults that are still the same."""
    there = DETECTIONS.validate_json(path.read_bytes()) if path is not None and path.exists() else []
    return [each for each in there if each.fault in FAULTS]


def page(found: list[Detection]) -> Iterator[str]:
    """The Markdown page."""
    firsts = [d.first for d in found if d.first is not None]
    times = [first.seconds for first in firsts]
    cases = [first.cases for first in firsts]
    minutes = sum(d.spent for d in found) / 60
    targets = statistics.mean(first.targets for first in firsts)
    logits = statistics.median(first.logits for first in firsts)
    yield "# What the gate notices\n"
    yield f"{len(found)} planted faults (`tests/faults/`), each a single careless edit of the bundled loss. On each the"
    yield "laws were run in their order, with the gate's settings, in one process, until one broke."
    yield f"**{len(firsts)} of {len(found)} faults were noticed.**"
    yield "Made by `python -m tests.detection > docs/measured/detection.md`"
    yield f"in {minutes:.0f} minutes of one processor, and so are the seconds."
    yield "`.ci/run` fails where the law named for a fault no longer breaks, or says nothing about the step at fault."
    yield "Faults of the step DEVICE were run on the mirror, a simulated accelerator, one also under torch.compile.\n"
    yield "| to the first broken law, with its smallest case | median | 90 % | worst |\n|---|---:|---:|---:|"
    for name, values in (("seconds", times), ("cases", [float(n) for n in cases])):
        ninth = np.quantile(values, 0.9)
        yield f"| {name} | {statistics.median(values):.3g} | {ninth:.3g} | {max(values):.3g} |"
    yield f"\nThe smallest case has {targets:.1f} targets on average, and {logits:.0f} logits in the median. F01 to"
    yield "F73: faults seen in losses of this family that the project began with.\n"
    yield "| fault | step | kind | known as | first law | cases | seconds | targets | logits | law named for it |"
    yield "|---|---|---|---|---|---:|---:|---:|---:|---|"
    for d in sorted(found, key=lambda d: min(map(STEPS.index, d.fault.steps))):
        name, kind, known, law = d.fault.name, d.fault.kind, d.fault.field, d.fault.law
        if d.first is not None:
            first = f"`{d.first.law}` | {d.first.cases} | {d.first.seconds:.1f} | {d.first.targets} | {d.first.logits}"
            named = "the same" if law == d.first.law else f"`{law}`"
            yield f"| {name} | {d.fault.step} | {kind} | {known} | {first} | {named} |"
    yield "\n## What cannot be noticed\n"
    yield "Through the interface that losses share, or on a CPU, or by this loss:\n"
    yield "| fault | known as | why not |\n|---|---|---|"
    yield from (f"| {what} | {known} | {why} |" for what, known, why in UNNOTICEABLE)


def main() -> int:
    """Detect every fault; print the page, or with --check what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="run only the laws that the faults name; print only what is wrong"
    )
    parser.add_argument("--all", action="store_true", help="run every law on every fault")
    parser.add_argument("--unchecked", action="store_true", help="plant them in the loss with its checks off")
    parser.add_argument("--results", type=Path, help="plant only what this file does not have, and add to it")
    parser.add_argument("names", nargs="*", help="only these faults, and no page")
    given = parser.parse_args()
    mode: Mode = "check" if given.check else "all" if given.all else "first"
    before = kept(given.results)
    faults = [f for f in FAULTS if not given.names or f.name in given.names]
    if given.unchecked:
        faults = [f for f in faults if "INPUT" not in f.steps and f.name not in ONLY_WITH_CHECKS]
    known = [each.fault for each in before]
    tasks = [(fault, mode, not given.unchecked) for fault in faults if fault not in known]
    found = list(before)
    for detection in apart(detect, tasks, "faults"):
        found.append(detection)
        if given.results is not None:
            given.results.write_bytes(DETECTIONS.dump_json(found))
    if mode != "check" and not given.names:
        print("\n".join(page(sorted(found, key=lambda d: FAULTS.index(d.fault)))))
    complaints = [line for detection in found for line in detection.complaints()]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
