"""The smallest case of each fault of upstream's loss, with its picture: called by ``scripts/downstream.sh``.

    python scripts/downstream_cases.py LOSS FOLDER

Each is searched for where only it can be: by its law, among cases that are narrowed to it. So its case is as small as
can be.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.engine.judge import judged
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.findings.draw import draw
from yololoss.harness.laws.exam import Law, LawBroken, Run
from yololoss.harness.laws.law import SEED, find_laws
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest, find_family
from yololoss.harness.subjects.load import load_loss

MADE, ENOUGH = 2000, 60.0  # cases that are made, at most; seconds to minimise a case in
V5, TAL = find_family("v5"), find_family("tal")
pools, Options = V5.module("pools"), V5.module("case").Options
plain = {"hyps": pools.HYPS[:1], "options": pools.ONE_CALL[:1]}
weak = tuple(hyp for hyp in pools.HYPS if 0 < hyp.fl_gamma < 1)
one_target = {"min_targets": 1, "max_targets": 1, "dtypes": ("float32",), "target_dtypes": ("float32",)}


def any_case(_: Any) -> bool:
    """Every case is wanted."""
    return True


def channels(case: Any) -> set[int]:
    """The channels of the logits that have values of their own."""
    return {override.channel for override in case.predictions.overrides}


def enough_anchors(case: Any) -> bool:
    """Upstream needs as many as its top-k, rows in the order of images, and float32 targets."""
    return TAL.excludes(TAL.dialects["upstream"], case) is None


Faults = dict[str, tuple[str, dict[str, Any], Callable[[Any], bool]]]
# By name: the law, what the cases are narrowed to, and which of those are wanted.
OF_V5: Faults = {
    "no-size": ("totals.finite", plain, any_case),
    "no-height": ("gradients.finite", {**plain, "logits": ((4.0, 0.0),)}, lambda case: channels(case) == {3}),
    "focal": ("gradients.finite", {**plain, "hyps": weak}, lambda case: min(channels(case), default=4) >= 4),
    "one-row-sorted": ("run.no-exception", {"options": (Options(sort_obj_iou=True),)}, any_case),
    "autobalance": ("run.no-exception", {"options": (Options(autobalance=True, calls=2),)}, any_case),
    "perfect-fit": ("boxes.perfect-fit", {**plain, **one_target}, lambda case: case.layers == 1),
}
half = {"min_targets": 1, "dtypes": ("float16",), "target_dtypes": ("float32",), "topks2": (None,)}
huge = {**half, "grids": ((8, 4),), "scales": (40000.0,), "aims": ("aim",), "class_logits": ((2.0, -2.0),)}
OF_TAL: Faults = {
    "default-dtype": ("state.default-dtype", {**half, "dtypes": ("float32",), "spots": ("any",)}, enough_anchors),
    "no-height": ("gradients.finite", {**half, "bins": (4,)}, enough_anchors),
    "class-sum": (
        "totals.finite",
        {**half, "grids": ((8, 4),), "classes": (20,), "class_logits": ((8.0, 60.0),)},
        enough_anchors,
    ),
    "saturated-bins": ("totals.finite", {**huge, "bins": (4,)}, enough_anchors),
    "large-distances": ("totals.finite", {**huge, "bins": (1,)}, enough_anchors),
}
FAULTS = {"v5": OF_V5, "tal": OF_TAL}


def search(law: Law, domain: Any, wanted: Callable[[Any], bool], subject: LossUnderTest) -> LawBroken | None:
    """How the law breaks on the smallest such case; None if it holds."""

    def broken(data: bytes) -> LawBroken | None:
        case = domain.case(data)
        told = judged(law, Run(subject, case))[0] if wanted(case) else None
        return None if told is None else told.broken(law, case)

    chance = np.random.default_rng(SEED)
    found = next((data for data in (chance.bytes(domain.size) for _ in range(MADE)) if broken(data)), None)
    if found is None:
        return None
    return broken(smallest(found, lambda data: broken(data) is not None, time.monotonic() + ENOUGH))


def main() -> None:
    """Search for each, save and draw it; a fault that is not found ends the run."""
    torch.set_num_threads(1)
    spec, folder = sys.argv[1], Path(sys.argv[2])
    subject = load_loss(spec, torch.device("cpu"), "upstream")
    laws, drawn = find_laws(subject.family), subject.family.module("strategies")
    for name, (law, narrowing, wanted) in FAULTS[subject.family.name].items():
        broken = search(laws[law], drawn.Domain(**narrowing), wanted, subject)
        if broken is None:
            raise SystemExit(f"{name}: {law} holds")
        comment = f"{broken.what}: expected {broken.expected}, observed {broken.observed}"
        vector = make_vector(broken.case, id=name, flags=("FINDING",), comment=comment, law=law)
        write_vectors(folder / f"{name}.json", {"loss": spec}, [vector])
        draw(broken.case, folder / f"{name}.png", f"{law}: {comment}", execute(subject, broken.case))
        print(f"{name}\n{broken}\n")


if __name__ == "__main__":
    main()
