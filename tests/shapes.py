"""The shapes in the loss's signatures, checked in every call on the gate's first cases: ``python -m tests.shapes``."""

import sys

from jaxtyping import install_import_hook

CASES = 300
CHECKED = ["yololoss.v5.assign", "yololoss.v5.boxes", "yololoss.v5.criteria"]
DRAWS = "state.rng-unchanged"  # the check of shapes itself draws a number: it looks at one element of a tuple

with install_import_hook(CHECKED, "beartype.beartype"):
    from tests.all_laws import LAWS
    from tests.judging import gate, on_its_device
    from yololoss.harness.engine.plan import Plan


def main() -> int:
    """Judge the cases; exit status 1 if a call has other shapes, which breaks a law."""
    plan = Plan([law for law in LAWS if law != DRAWS], on_its_device("yololoss:ComputeLoss", "cpu"))
    broken = list(gate(plan, range(CASES)))
    for raw in broken:
        print(raw.told.broken(plan.laws[raw.told.law], raw.case), file=sys.stderr)
    print(f"{CASES} cases, {len(broken)} laws broke")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
