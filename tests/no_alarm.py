"""Every conforming loss through the gate: ``python -m tests.no_alarm``; a table, and exit status 1 for an accusation.

The cases that laws have as their own are judged, then the gate's in their order, until a loss has had ``--judgements
N``: the default are about as many as in the gate of the bundled loss, and with more the same sequence goes on. ``--seed
N`` judges other cases, and ``--laws`` only some laws. A judgement is one law on one case, also where it had nothing to
compare.
"""

import argparse
import sys
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.faults import plant
from tests.faults.tal import BY_NAME, CHOICES, CONFORMING
from tests.faults.tal_forms import AS_PLAIN, PLAIN, plant_form
from tests.faults.tal_forms import FORMS as PLAIN_FORMS
from tests.judging import apart, breaks, gate, own
from tests.subjects.aligned_forms import FORMS as ALIGNED
from tests.test_conforming import VARIANTS, load
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws.law import SEED, find_laws
from yololoss.harness.subjects.family import LossUnderTest, find_family
from yololoss.harness.subjects.load import find_device, load_loss

FORMS = ("OlderLoss", "compute_loss", "ImageLoss", "ModuleLoss", "BlackBox", "DictAdapter")
EDITS = {each.name: each for each in CONFORMING}  # edits of the bundled task-aligned loss that are no faults
SPECS = {
    "v5": (*VARIANTS, "tests.subjects.plain:PlainLoss", *(f"tests.subjects.forms:{name}" for name in FORMS)),
    "tal": ("yololoss:TaskAlignedLoss", PLAIN, *ALIGNED, *EDITS, *PLAIN_FORMS, *CHOICES),
}
Task = tuple[str, str, int, int, tuple[str, ...]]


def loaded(spec: str, device: torch.device, folder: Path) -> LossUnderTest:
    """The loss, with the dialect that has its choices."""
    if spec in SPECS["v5"]:
        return load(spec, device)
    if spec in (PLAIN, *PLAIN_FORMS):
        return load_loss(plant_form(spec, folder) if spec in PLAIN_FORMS else spec, device, AS_PLAIN)
    if spec in CHOICES:
        return load_loss(plant(BY_NAME[spec], folder), device, f"yololoss, {' = '.join(CHOICES[spec])}")
    found = plant(EDITS[spec], folder) if spec in EDITS else spec
    return load_loss(found, device, ALIGNED.get(spec, "yololoss"))


def accusations(task: Task) -> tuple[str, int, int, dict[str, str]]:
    """The loss, how many laws judged it, in how many judgements, and which of them broke."""
    spec, device, enough, seed, patterns = task
    with TemporaryDirectory() as folder:
        plan = Plan(patterns, loaded(spec, find_device(device), Path(folder)))

    def tried() -> int:
        return sum(law.tally.tried for law in plan.laws.values())

    cases = range(enough)  # an end, since a law that broke is tried no more
    numbers = takewhile(lambda _: plan.domains and tried() < enough, cases)
    found = {raw.told.law: raw for raw in (*breaks(plan.subject, own(plan)), *gate(plan, numbers, seed))}
    broken = {id: str(raw.told.broken(plan.laws[id], raw.case)) for id, raw in found.items()}
    return spec, sum(law.tally.judged > 0 for law in plan.laws.values()), tried(), broken


def main() -> int:
    """Run them all, as many at once as there are processors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=100_000, metavar="N", help="of each loss (default: 100,000)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of the cases (default: the gate's)")
    parser.add_argument("--laws", action="append", default=[], metavar="PATTERN", help="only these laws")
    parser.add_argument("--family", choices=SPECS, default="v5", help="of the losses (default: v5)")
    parser.add_argument("names", nargs="*", help="only losses whose names end so")
    given = parser.parse_args()
    find_laws(find_family(given.family), given.laws)  # a pattern that fits no law ends the run here
    specs = [spec for spec in SPECS[given.family] if not given.names or spec.endswith(tuple(given.names))]
    tasks = [(spec, given.device, given.judgements, given.seed, tuple(given.laws)) for spec in specs]
    done = list(apart(accusations, tasks, "losses"))
    print("| loss | laws | judgements | accused by |\n|---|---:|---:|---|")
    for spec, applied, judged, broken in done:
        print(f"| `{spec}` | {applied} | {judged:,} | {', '.join(broken) or 'none'} |")
    print("\n\n".join(f"{spec}\n{text}" for spec, _, _, broken in done for text in broken.values()), file=sys.stderr)
    return 1 if any(broken for *_, broken in done) else 0


if __name__ == "__main__":
    sys.exit(main())
