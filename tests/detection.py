"""What the gate makes of every planted fault: ``python -m tests.detection > docs/measured/detection.md``.

For each fault of the catalogue the gate's cases are judged in their order, in one process, until a law breaks. Its case
is made small. The gate judges all its cases, and its report names the earliest law that broke. So `AFTER` more cases
are judged by the laws before that one; if one of these breaks, it is the first law. Then the law that the fault names
must break on some case of the gate; with ``--all`` every law is tried on every case. A first law that says nothing
about the step at fault is a failure, as is a fault that no law notices.

``--check`` is quick, for every CI run: the law that a fault names must break within the gate's cases, and speak of the
step at fault.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from tests.faults import STEPS, Fault, plant
from tests.faults.catalogue import FAULTS
from tests.faults.tal import STEPS as TAL_STEPS
from tests.faults.tal import TAL_FAULTS
from tests.faults.unnoticeable import UNNOTICEABLE
from tests.judging import Made, apart, breaks, minimised, on_its_device, whole
from yololoss.harness.engine.clerk import repeats
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws.exam import LawBroken

Mode = Literal["first", "all", "check"]
AFTER = 100
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
    "totals.only-box-gain": "SCALE AUTOGRAD",
    "gather": "INDEX",
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
    "gradients": "AUTOGRAD",
    "gradients.double-precision": "DECODE IOU OBJ CLS BCE/FOCAL DTYPE AUTOGRAD",  # what float32's rounding hides
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
    "input.settings-restored": "INPUT STATE",
    "input.spoils-nothing": "INPUT STATE",  # it compares two calls
    "devices.shared-cells": "OBJ DEVICE",
    "devices.autocast": "DTYPE DEVICE STATE",
    "devices": "DEVICE",
    "compile": "DEVICE",
}


# Faults of finding the rows that are there: with checks off there are as many as targets could have.
ONLY_WITH_CHECKS = "sorting_needs_two_rows", "empty_layers_skipped", "first_1000_rows"
# Laws that are judged on a CPU alone, and faults that change nothing on the mirror: it has no autocast, no memory of
# its own of which a part could be kept, and runs with one thread of autograd.
ON_CPU = (
    *("state.keeps-nothing", "state.many-calls", "run.cost-of-targets"),
    *("autocast_left_off", "part_of_predictions_kept", "threads_of_autograd_switched_off"),
)
UNCHECKED = {"v5": "bad_input = noted", "tal": "bad_input = any"}  # the choice of a loss that does not check its input
FORMS = {"--unchecked": "with its checks off", "--mirror": "on the mirror"}
OF_ITEM = {"box": "DECODE IOU INDEX", "objectness": "OBJ BCE/FOCAL", "class": "CLS BCE/FOCAL"}


@dataclass(frozen=True)
class Finding:
    """The law that is named first of those that broke on a fault, and its smallest case."""

    law: str
    cases: int  # to the first broken law
    seconds: float  # of one processor, to the first broken law
    smallest: float  # of one processor, to the smallest case
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
            yield f"{self.fault.name}: {self.fault.law} holds, and no other law that was run breaks"
            return
        if not self.first.about & {*self.fault.steps}:
            yield f"{self.fault.name}: {self.fault.step}, but first {self.first.law}"
        if self.fault.law not in self.laws:
            yield f"{self.fault.name}: {self.fault.law} holds"


def about(broken: LawBroken) -> frozenset[str]:
    """The steps that a finding speaks of: its law's, and what its smallest case cannot do without."""
    law = broken.law.id
    if broken.case.family == "tal":
        part = law.partition(".")[0]
        return frozenset(step for step, laws in TAL_STEPS.items() if law in laws or part in laws)
    found = {*(ABOUT[law] if law in ABOUT else ABOUT[law.partition(".")[0]]).split()}
    if law == "totals.finite":
        found |= {*OF_ITEM.get(broken.what.partition(" ")[0], "SCALE").split()}
    if law.endswith("large-sizes") and broken.what.startswith("gradient"):  # it compares the total first
        found.add("AUTOGRAD")
    if law == "gradients.value":  # it shows the channel of the logit
        channel = int(broken.what.rpartition(", ")[2].rstrip("]"))
        found |= {*OF_ITEM["box" if channel < 4 else "objectness" if channel == 4 else "class"].split()}
    case = broken.case
    if case.dtype != "float32" or case.targets_dtype != "float32":
        found.add("DTYPE")
    if not broken.repeats or case.options.calls > 1:
        found.add("STATE")
    return frozenset(found)


CATALOGUES = {"v5": FAULTS, "tal": TAL_FAULTS}
ORDER = (*STEPS, *TAL_STEPS)
Sequence = tuple[str, tuple[str, str], str, str]  # the package and the name of a loss, its dialect, a device
SEQUENCES: dict[Sequence, list[Made]] = {}  # the gate's cases of the bundled losses, in the processes that `main` makes


def sequence(fault: Fault) -> Sequence:
    """Which cases the gate has for the loss in which a fault is planted."""
    return fault.package, fault.loss, fault.dialect, fault.device


def detect(task: tuple[Fault, Mode, bool]) -> Detection:
    """Run the gate on a fault, in a process of its own; in the loss as it is, or with its checks off."""
    fault, mode, checks = task
    with tempfile.TemporaryDirectory() as folder:
        spec = plant(fault, Path(folder), checks)
        plan = Plan((), on_its_device(spec, fault.device, fault.dialect))
        start = time.process_time()
        first = named_law(plan, fault) if mode == "check" else first_law(plan)
        laws = [] if first is None else [first.law]
        if mode == "all" or (mode == "first" and fault.law not in laws):
            only = None if mode == "all" else [fault.law]
            laws += [raw.told.law for raw in breaks(plan.subject, SEQUENCES[sequence(fault)], only)]
        return Detection(fault, first, tuple(dict.fromkeys(laws)), time.process_time() - start)


def named_law(plan: Plan, fault: Fault) -> Finding | None:
    """How the law that the fault names breaks first. Cases are not made small."""
    start = time.process_time()
    raw = next(breaks(plan.subject, SEQUENCES[sequence(fault)], [fault.law]), None)
    if raw is None:
        return None
    seconds = time.process_time() - start
    broken = raw.told.broken(plan.laws[fault.law], raw.case)
    broken.repeats = repeats(plan.subject, broken.case)
    return finding(broken, raw.number + 1, seconds, seconds)


def first_law(plan: Plan) -> Finding | None:
    """What the gate's report names first, with the smallest case."""
    start, cases = time.process_time(), whole(plan)
    raw = next(breaks(plan.subject, cases), None)
    if raw is None:
        return None
    seconds, judged = time.process_time() - start, raw.number + 1
    broken = minimised(raw, plan)
    earlier = list(plan.laws)[: plan.number[raw.told.law]]
    others = breaks(plan.subject, islice(cases, AFTER), earlier)
    first = min(others, key=lambda other: plan.number[other.told.law], default=None)
    if first is not None:
        broken = minimised(first, plan)
    return finding(broken, judged, seconds, time.process_time() - start)


def finding(broken: LawBroken, cases: int, seconds: float, smallest: float) -> Finding:
    """A broken law with the size of its case."""
    case = broken.case
    return Finding(broken.law.id, cases, seconds, smallest, len(case.targets), case.numbers, about(broken))


DETECTIONS = TypeAdapter(list[Detection])


def kept(path: Path | None, catalogue: list[Fault]) -> list[Detection]:
    """What an earlier run wrote, of faults that are still the same."""
    there = DETECTIONS.validate_json(path.read_bytes()) if path is not None and path.exists() else []
    return [each for each in there if each.fault in catalogue]


def page(found: list[Detection], form: str) -> Iterator[str]:
    """The Markdown page. ``form`` are the options that say in which form of the loss the faults were planted.

    Of another form than the usual one it has no table of faults.
    """
    firsts = [d.first for d in found if d.first is not None]
    columns = {
        "seconds to the first broken law": [first.seconds for first in firsts],
        "seconds to its smallest case": [first.smallest for first in firsts],
        "cases to the first broken law": [float(first.cases) for first in firsts],
    }
    minutes = sum(d.spent for d in found) / 60
    targets = statistics.mean(first.targets for first in firsts)
    logits = statistics.median(first.logits for first in firsts)
    package = found[0].fault.package
    of_other = form if package == "v5" else f"{form} --family {package}"
    kept_in = f"docs/measured/detection{of_other.replace(' --family ', '-').replace(' --', '-')}.md"
    where = "".join(f" {FORMS[option]}" for option in form.split()) + " in task-aligned losses" * (package == "tal")
    yield f"# What the gate notices{where}\n"
    yield f"{len(found)} planted faults (`tests/faults/`), each a single careless edit of the bundled loss. On each the"
    yield "gate's cases were judged in their order, in one process, until a law broke. The first law is the earliest in"
    yield f"the order of laws that broke on that case or on the next {AFTER}: the one that the gate's report names."
    right = sum(d.first is not None and bool(d.first.about & {*d.fault.steps}) for d in found)
    yield f"**{len(firsts)} of {len(found)} faults were noticed**; of {right} the first law speaks of the fault's step."
    yield f"Made by `python -m tests.detection{of_other} > {kept_in}`"
    yield f"in {minutes:.0f} minutes of one processor, and so are the seconds."
    yield "`.ci/run` fails where the law named for a fault no longer breaks, or says nothing about the step at fault."
    if "mirror" in form:
        yield "Left out are faults whose laws are judged on a CPU alone, as what a loss keeps from call to call,"
        yield "and three that change nothing there."
    if package == "v5":
        yield "Faults of the step DEVICE were run on the mirror, a simulated accelerator, one also under torch.compile."
    yield ""
    yield "| | median | 90 % | worst |\n|---|---:|---:|---:|"
    for name, values in columns.items():
        ninth = np.quantile(values, 0.9)
        yield f"| {name} | {statistics.median(values):.3g} | {ninth:.3g} | {max(values):.3g} |"
    yield f"\nThe smallest case has {targets:.1f} targets on average, and {logits:.0f} logits in the median."
    if form:
        yield "[The page of the usual form](detection.md) has a table of all faults."
        return
    yield "Known as: its number among faults that were seen in losses of this family.\n"
    yield "In the table, cases and seconds are those to the first broken law, and smallest the seconds to its smallest"
    yield "case.\n"
    yield "| fault | step | kind | known as | first law | cases | seconds | smallest | targets | logits | named law |"
    yield "|---|---|---|---|---|---:|---:|---:|---:|---:|---|"
    for d in sorted(found, key=lambda d: min(map(ORDER.index, d.fault.steps))):
        name, kind, known, law = d.fault.name, d.fault.kind, d.fault.field, d.fault.law
        if d.first is not None:
            times = f"{d.first.cases} | {d.first.seconds:.1f} | {d.first.smallest:.1f}"
            first = f"`{d.first.law}` | {times} | {d.first.targets} | {d.first.logits}"
            named = "the same" if law == d.first.law else f"`{law}`"
            yield f"| {name} | {d.fault.step} | {kind} | {known} | {first} | {named} |"
    if package == "v5":
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
    parser.add_argument("--all", action="store_true", help="try every law on every case of every fault")
    parser.add_argument("--unchecked", action="store_true", help="plant them in the loss with its checks off")
    parser.add_argument("--mirror", action="store_true", help="plant them in the loss on the mirror")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th fault, and no page")
    parser.add_argument("--results", type=Path, help="plant only what this file does not have, and add to it")
    parser.add_argument("--family", choices=CATALOGUES, default="v5", help="of the losses (default: v5)")
    parser.add_argument("names", nargs="*", help="only these faults, and no page")
    given = parser.parse_args()
    mode: Mode = "check" if given.check else "all" if given.all else "first"
    catalogue = list(CATALOGUES[given.family])
    if given.unchecked:
        catalogue = [f for f in catalogue if "INPUT" not in f.steps and f.name not in ONLY_WITH_CHECKS]
        catalogue = [replace(f, dialect=f"{f.dialect}, {UNCHECKED[f.package]}") for f in catalogue]
    if given.mirror:
        catalogue = [f for f in catalogue if f.device != "cpu" or {f.law, f.name}.isdisjoint(ON_CPU)]
        catalogue = [replace(f, device="mirror") if f.device == "cpu" else f for f in catalogue]
    before = kept(given.results, catalogue)
    faults = [f for f in catalogue if not given.names or f.name in given.names][:: given.every]
    known = [each.fault for each in before]
    tasks = [(fault, mode, not given.unchecked) for fault in faults if fault not in known]
    for each in {sequence(fault) for fault, _, _ in tasks}:
        package, (module, name), dialect, device = each
        bundled = f"yololoss.{package}.{module}:{name}"
        SEQUENCES[each] = list(whole(Plan((), on_its_device(bundled, device, dialect))))
    found = list(before)
    for detection in apart(detect, tasks, "faults"):
        found.append(detection)
        if given.results is not None:
            given.results.write_bytes(DETECTIONS.dump_json(found))
    if mode != "check" and not given.names and given.every == 1:
        form = " --unchecked" * given.unchecked + " --mirror" * given.mirror
        print("\n".join(page(sorted(found, key=lambda d: catalogue.index(d.fault)), form)))
    complaints = [line for detection in found for line in detection.complaints()]
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
