"""How well dialects are recognised: ``python -m tests.recognition > docs/measured/recognition.md``.

A loss of every known dialect, of every single option, and of random combinations of options is looked at; each overlap
and added term of `tests.subjects.pasted`; and all known dialects again with overlaps in float32. Then each is judged
by the dialect that it was found to have, on the first cases of the gate.
"""

import random
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch

from properties.v5.dialects import DIALECTS
from tests.all_laws import V5
from tests.judging import apart, gate
from tests.subjects.chosen import name_of, single
from tests.subjects.pasted import FORMULAS, NAMES
from tests.subjects.told import alike
from tests.test_dialects import OTHERS, read
from yololoss.harness.engine.plan import Plan
from yololoss.harness.subjects.dialect import write_dialect
from yololoss.harness.subjects.load import load_loss

RANDOM = 200
CASES = 100
IN_FLOAT32 = "known dialects, in float32"
MORE = (  # numbers that no known dialect has
    *(f"overlap_eps = {eps}" for eps in ("1e-9", "1e-16", "1e-8", "1e-6", "1e-5", "0")),
    "balance = [3, 1.5, 0.7, 0.25, 0.1]",
    "balance = [1, 2, 3]",
)


class Looked(NamedTuple):
    """What was found of one loss."""

    kind: str
    text: str
    found: str
    right: bool
    sure: bool
    seconds: float
    broken: tuple[str, ...]  # laws


def combinations() -> Iterator[str]:
    """Random dialects: two to eight options that differ from a known one."""
    chance = random.Random(0)
    names = [name for name in DIALECTS if name != "yololoss"]
    for _ in range(RANDOM):
        base = chance.choice(names) if chance.random() < 0.5 else "upstream"
        picked = {
            text.partition(" =")[0]: text for text in chance.sample((*OTHERS, *MORE), chance.choice((2, 3, 5, 8)))
        }
        yield ", ".join((base, *picked.values()))


def look(task: tuple[str, str, str]) -> Looked:
    """Recognise one loss."""
    kind, text, spec = task
    torch.set_num_threads(1)
    start = time.process_time()
    found = V5.recognise(load_loss(spec, torch.device("cpu")), None)
    seconds = time.process_time() - start
    written = write_dialect(found.dialect, DIALECTS)
    # of float32 edges, in which a form divides zero by zero, the gate says so
    judged = () if kind == IN_FLOAT32 else gate(Plan((), load_loss(spec, torch.device("cpu"), written)), range(CASES))
    broken = tuple(raw.told.law for raw in judged)
    return Looked(kind, text, written, alike(found.dialect, read(text)), found.sure, seconds, broken)


def tasks() -> Iterator[tuple[str, str, str]]:
    """All losses, with the dialect of each."""
    names = [name for name in DIALECTS if name != "yololoss"]
    for kind, texts in (
        ("known dialects", names),
        ("single options", OTHERS),
        ("random combinations", combinations()),
    ):
        for text in texts:
            yield kind, text, f"tests.subjects.chosen:{name_of(text)}"
    for text in names:
        yield IN_FLOAT32, text, f"tests.subjects.chosen:{single(text)}"
    for name in NAMES:
        # the numbers of a formula are not searched for
        found = "own" if "numbers" in FORMULAS[name] else FORMULAS[name]
        yield "overlaps of other formulas", f"overlap = {found}", f"tests.subjects.pasted:{name}"
    yield "an added term that is an item", "added_term = an item", "tests.subjects.pasted:RepelsBeside"


def main() -> int:
    """Print the page; what is wrong goes to standard error."""
    found = list(apart(look, list(tasks()), "losses"))
    print("# Recognition\n")
    print("Made by `python -m tests.recognition > docs/measured/recognition.md`. Right is a dialect that no case tells")
    print("from the loss's own. Sure is one that explains everything, and is the only one. Then each was judged by the")
    print(
        f"dialect found, on {CASES} cases of the gate, but not those in float32: some of their forms divide 0 by 0.\n"
    )
    print("| losses | | right | sure | sure and wrong | seconds of one processor, median and most | laws broke on |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind in dict.fromkeys(each.kind for each in found):
        of = [each for each in found if each.kind == kind]
        seconds = sorted(each.seconds for each in of)
        counts = (len(of), sum(e.right for e in of), sum(e.sure for e in of), sum(e.sure and not e.right for e in of))
        times = f"{seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f}"
        broke = "not judged" if kind == IN_FLOAT32 else sum(bool(each.broken) for each in of)
        print(f"| {kind} | {' | '.join(map(str, counts))} | {times} | {broke} |")
    wrong = [each for each in found if not each.right]
    accused = [each for each in found if each.broken]
    print("\n".join(f"{each.text}: found {each.found}" for each in wrong), file=sys.stderr)
    print("\n".join(f"{each.text}: {', '.join(each.broken)} broke" for each in accused), file=sys.stderr)
    return 1 if accused or any(each.sure for each in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
