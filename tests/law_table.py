"""Each law has been seen to fail: ``python -m tests.law_table > docs/laws.md``; with ``--check``, compare.

Every fault of `tests.plant` is planted in a copy of the bundled loss, and every law is run on it; so are the losses
of `tests.subjects.faulty`. The table names, for each law, the first faults that break it.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import torch

from tests.all_laws import LAWS, ROOT
from tests.plant import FAULTS, plant
from yololoss.harness.law import GATE, GATE_SEED, Law, LawBroken
from yololoss.harness.load import load_loss
from yololoss.harness.subject import LossUnderTest

BEHAVIOUR = ("Raises", "Prints", "Seeds", "ExitsHard", "Hangs", "Sets", "Writes")
# Which law breaks is asked, not the smallest case; a loss that hangs costs a time limit a case.
QUICK = hypothesis.settings(GATE, max_examples=60, phases=[hypothesis.Phase.generate])
REPORTS = "input."  # these laws note what happens and judge nothing
SHOWN = 3


def breaks(law: Law, subject: LossUnderTest) -> bool:
    """Whether the law breaks on the subject within QUICK's cases."""
    try:
        law.search(subject, QUICK, GATE_SEED)
    except LawBroken:
        return True
    except BaseExceptionGroup as several:  # what failed once and not again is broken, too
        return any(isinstance(e, LawBroken) for e in several.exceptions)
    return False


def broken_by(folder: Path) -> dict[str, list[str]]:
    """For each law the faults that break it."""
    found: dict[str, list[str]] = {law: [] for law in LAWS if not law.startswith(REPORTS)}
    cpu = torch.device("cpu")
    subjects = [(f.name, load_loss(plant(f, folder), cpu)) for f in FAULTS]
    subjects += [(name, load_loss(f"tests.subjects.faulty:{name}", cpu)) for name in BEHAVIOUR]
    for name, subject in subjects:
        for law, faults in found.items():
            if len(faults) < SHOWN and (name != "Hangs" or law == "run.returns") and breaks(LAWS[law], subject):
                faults.append(name)
        print(f"{name}: {sum(name in faults for faults in found.values())} laws", file=sys.stderr)
    return found


def page(found: dict[str, list[str]]) -> Iterator[str]:
    """The Markdown page."""
    yield "# The laws\n"
    yield "Each law, what it states, and planted faults that were seen to break it (`tests/plant.py`, "
    yield "`tests/subjects/faulty.py`). Made by `python -m tests.law_table > docs/laws.md`; `.ci/run` checks it. "
    yield "The laws of bad input (`input.`) judge nothing: they note what a loss does.\n"
    yield "| law | statement | source | broken by |\n|---|---|---|---|"
    for law in sorted(LAWS):
        faults = ", ".join(found[law]) if law in found else "judges nothing"
        yield f"| `{law}` | {LAWS[law].statement} | {LAWS[law].source} | {faults} |"


def main() -> int:
    """Print the page, or compare it with the one in docs; fail where a law was never seen to break."""
    with tempfile.TemporaryDirectory() as folder:
        found = broken_by(Path(folder))
    text = "\n".join(page(found)) + "\n"
    unbroken = [law for law, faults in found.items() if not faults]
    if unbroken:
        print(f"never seen to break: {', '.join(unbroken)}", file=sys.stderr)
        return 1
    if "--check" in sys.argv:
        same = text == (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
        print("docs/laws.md is as it should be" if same else "docs/laws.md differs: make it anew")
        return 0 if same else 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
