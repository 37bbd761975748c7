"""The smallest case of each fault of upstream's loss, with its picture: called by ``scripts/downstream.sh``.

    python scripts/downstream_cases.py LOSS FOLDER

The gate shows one case a law, and two faults may break the same law. So each is searched for where only it can be: by
its law, among cases that are narrowed to it.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.findings.draw import draw
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.laws.law import GATE, GATE_SEED, find_laws
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.load import load_loss

V5 = find_family("v5")
made, pools, Options = V5.module("strategies"), V5.module("pools"), V5.module("case").Options
plain = {"hyps": pools.HYPS[:1], "options": pools.ONE_CALL[:1]}
weak = [hyp for hyp in pools.HYPS if 0 < hyp.fl_gamma < 1]
FAULTS = {
    "no-size": ("totals.finite", made.cases(**plain)),
    "no-height": (
        "gradients.finite",
        made.cases(**plain, logits=((4.0, 0.0),)).filter(
            lambda case: {o.channel for o in case.predictions.overrides} == {3}
        ),
    ),
    "focal": (
        "gradients.finite",
        made.cases(hyps=weak, options=pools.ONE_CALL[:1]).filter(
            lambda case: all(o.channel >= 4 for o in case.predictions.overrides)
        ),
    ),
    "one-row-sorted": ("run.no-exception", made.cases(options=(Options(sort_obj_iou=True),))),
    "autobalance": ("run.no-exception", made.cases(options=(Options(autobalance=True, calls=2),))),
    "perfect-fit": (
        "boxes.perfect-fit",
        made.cases(**plain, min_targets=1, max_targets=1, dtypes=("float32",), target_dtypes=("float32",)).filter(
            lambda case: case.layers == 1
        ),
    ),
}


def main() -> None:
    """Search for each, save and draw it; a fault that is not found ends the run."""
    spec, folder = sys.argv[1], Path(sys.argv[2])
    subject, laws = load_loss(spec, torch.device("cpu"), "upstream"), find_laws(V5)
    for name, (law, cases) in FAULTS.items():
        try:
            replace(laws[law], cases=cases).search(subject, GATE, GATE_SEED)
        except LawBroken as broken:
            comment = f"{broken.what}: expected {broken.expected}, observed {broken.observed}"
            vector = make_vector(broken.case, id=name, flags=("FINDING",), comment=comment, law=law)
            write_vectors(folder / f"{name}.json", {"loss": spec}, [vector])
            draw(broken.case, folder / f"{name}.png", f"{law}: {comment}", execute(subject, broken.case))
            print(f"{name}\n{broken}\n")
        else:
            raise SystemExit(f"{name}: {law} holds")


if __name__ == "__main__":
    main()
