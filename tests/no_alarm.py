"""Every conforming loss through all laws: ``python -m tests.no_alarm``; a table, and exit status 1 for an accusation.

``--cases N``, ``--explore`` and ``--laws`` as for pytest: other cases every time, more of them, and only some laws.
"""

import argparse
import sys

import hypothesis

from tests.all_laws import LAWS, V5
from tests.judging import QUICK, apart, search
from tests.test_conforming import VARIANTS, load
from yololoss.harness.laws.law import GATE_SEED, find_laws
from yololoss.harness.subjects.load import find_device

FORMS = ("OlderLoss", "compute_loss", "ImageLoss", "ModuleLoss", "BlackBox", "DictAdapter")
OTHERS = ("tests.subjects.plain:PlainLoss", *(f"tests.subjects.forms:{name}" for name in FORMS))


def accusations(task: tuple[str, str, int, int | None, tuple[str, ...]]) -> tuple[str, int, int, dict[str, str]]:
    """The loss, how many laws apply to it, in how many cases they judged it, and which of them broke."""
    spec, device, cases, seed, laws = task
    subject = load(spec, find_device(device))
    settings = hypothesis.settings(QUICK, max_examples=cases)
    judged, applied, broken = 0, 0, {}
    for law in (LAWS[name] for name in laws):
        if law.assumes(subject) is not None:
            continue
        found = search(law, subject, settings, seed)
        if found is not None:
            broken[law.id] = str(found)
        judged += law.tally.judged
        applied += law.tally.judged > 0
    return spec, applied, judged, broken


def main() -> int:
    """Run them all, as many at once as there are processors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--explore", action="store_true", help="other cases every time")
    parser.add_argument("--laws", action="append", metavar="PATTERN", help="only these laws")
    given = parser.parse_args()
    seed = None if given.explore else GATE_SEED
    laws = tuple(find_laws(V5, given.laws)) if given.laws else tuple(LAWS)
    tasks = [(spec, given.device, given.cases, seed, laws) for spec in (*VARIANTS, *OTHERS)]
    done = list(apart(accusations, tasks, "losses"))
    print("| loss | laws | cases judged | accused by |\n|---|---:|---:|---|")
    for spec, applied, judged, broken in done:
        print(f"| `{spec}` | {applied} | {judged:,} | {', '.join(broken) or 'none'} |")
    print("\n\n".join(f"{spec}\n{text}" for spec, _, _, broken in done for text in broken.values()), file=sys.stderr)
    return 1 if any(broken for *_, broken in done) else 0


if __name__ == "__main__":
    sys.exit(main())
