"""How far a session's residual risk can be trusted: ``python -m tests.residual > docs/measured/residual.md``.

Each planted fault is a loss whose kinds of finding are found by experiment: a worker of a fuzz session judges `IN_ALL`
cases of it. After some of them the risk that the next case shows a new kind is estimated, and compared with the share
of the cases after these that do.
"""

import argparse
import json
import math
import random
import statistics
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.faults import Fault, plant
from tests.faults.catalogue import FAULTS
from tests.judging import apart
from yololoss.harness.engine.plan import KINDS
from yololoss.harness.engine.residual import ENOUGH, poisson_limit, residual
from yololoss.harness.engine.state import Settings
from yololoss.harness.engine.worker import Orders, Worker

IN_ALL = 500  # cases of each fault; two in five vary another one
AFTER = (ENOUGH, 150, 200)  # cases
REST = 80  # cases after these, at least


@dataclass(frozen=True)
class Stream:
    """What each case of a session showed, in order."""

    fault: str
    kinds: list[list[int]]  # of finding
    regions: list[list[int]]
    varied: list[bool]  # whether it varied an earlier case


def watch(fault: Fault) -> Stream:
    """Judge the cases of a session on a planted fault, and write down what each shows."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "session"
        for name in ("journal", "raw", "notes"):
            (home / name).mkdir(parents=True)
        seed = zlib.crc32(fault.name.encode())
        worker = Worker(Orders(Settings(plant(fault, Path(folder)), fault.device, "yololoss", seed=seed), home, 0, 0))
        counters, kinds = worker.journal.counters, worker.counters.kinds
        regions = [i for i, name in enumerate(worker.counters.names) if name.startswith("region ")]
        stream = Stream(fault.name, [], [], [])
        for _ in range(IN_ALL):
            before = counters.copy()
            worker.step()
            changed = counters != before
            stream.kinds.append(np.flatnonzero(changed[kinds:].reshape(-1, 4)[:, 1]).tolist())
            stream.regions.append(np.flatnonzero(changed[regions]).tolist())
            stream.varied.append(worker.guide.varies)
        return stream


def parts(stream: Stream, what: str, cases: int, *, varied: bool = False) -> tuple[list[list[int]], list[list[int]]]:
    """What the first so many cases showed, and those after them; without those that vary another."""
    pairs = zip(getattr(stream, what), stream.varied, strict=True)
    shown = [each for each, is_varied in pairs if varied or not is_varied]
    return shown[:cases], shown[cases:]


def alone(shown: Sequence[list[int]]) -> int:
    """How many cases showed what no other showed."""
    count = Counter(each for case in shown for each in case)
    return sum(any(count[each] == 1 for each in case) for case in shown)


def truth(shown: Sequence[list[int]], later: Sequence[list[int]]) -> float:
    """The share of the later cases that show something new."""
    known = {each for case in shown for each in case}
    return statistics.mean(not known.issuperset(case) for case in later)


def holds(stream: Stream, what: str, cases: int, *, varied: bool = False) -> bool:
    """Whether the truth is below the upper limit."""
    shown, later = parts(stream, what, cases, varied=varied)
    risk = residual(alone(shown), cases)
    return risk is not None and truth(shown, later) <= risk.at_most


def between(stream: Stream, cases: int) -> bool:
    """Whether the truth lies in an interval with a lower limit, too."""
    shown, later = parts(stream, "kinds", cases)
    once = alone(shown)
    low = poisson_limit(once - 1, 0.975) if once else 0.0
    return low <= cases * truth(shown, later) <= poisson_limit(once, 0.025)


def enough_kinds(stream: Stream, cases: int) -> bool:
    """Whether Chao's 95 % interval for how many kinds there are ends above those that are seen in the end."""
    shown, later = parts(stream, "kinds", cases)
    count = Counter(each for case in shown for each in case)
    once, twice = (sum(n == times for n in count.values()) for times in (1, 2))
    unseen = once * (once - 1) / (2 * (twice + 1))
    if unseen:
        ratio = once / max(twice, 1)
        spread = max(twice, 1) * (ratio**4 / 4 + ratio**3 + ratio**2 / 2)
        unseen *= math.exp(1.96 * math.sqrt(math.log1p(spread / unseen**2)))
    return len(count.keys() | {each for case in later for each in case}) <= len(count) + unseen


def page(streams: list[Stream]) -> Iterator[str]:
    """The Markdown page."""
    yield "# Residual risk\n"
    yield "A fuzz session ends with a number: how likely the next case shows a kind of finding that no case has shown."
    yield "This page says how far you can trust it."
    yield f"Made by `python -m tests.residual > docs/measured/residual.md`, on {len(streams)} planted faults, chosen"
    yield "at random (20 minutes on two cores).\n"
    yield "Each fault is a loss that shows several kinds of finding, some of them rarely. A session's worker judged"
    yield f"{IN_ALL} cases of each. After some of them the risk was estimated. The truth is the share of the cases"
    yield "after these that show a new kind. The limit holds if the truth is not above it; it should hold for 95 %.\n"
    yield "| cases | faults | limit holds | estimate, mean | truth, mean | limit, mean |"
    yield "|---:|---:|---:|---:|---:|---:|"
    held = []
    for cases in AFTER:
        some = [each for each in streams if len(parts(each, "kinds", cases)[1]) >= REST]
        risks = [residual(alone(parts(each, "kinds", cases)[0]), cases) for each in some]
        held += (here := [holds(each, "kinds", cases) for each in some])
        means = (
            [risk.estimate for risk in risks if risk],
            [truth(*parts(each, "kinds", cases)) for each in some],
            [risk.at_most for risk in risks if risk],
        )
        shown = " | ".join(f"{statistics.mean(values):.4f}" for values in means)
        yield f"| {cases} | {len(some)} | {statistics.mean(here):.1%} | {shown} |"
    yield f"\nIn all, {statistics.mean(held):.1%} of {len(held)} limits hold.\n"
    yield "## How it is estimated"
    yield "After Good and Turing: of N cases, let n be those that alone showed some kind. The next case shows a new"
    yield "kind with a probability of about n / N. The limit is the largest rate at which a Poisson number is n or less"
    yield "in 5 % of all times; for n = 0 that is 3 / N. Cases that vary an earlier one depend on it, so they do not"
    yield f"count. There is no number after fewer than {ENOUGH} cases, nor if a session shows over {KINDS} kinds.\n"
    yield "**What it does not say.** It is about cases of the kind that the session draws, and about what its laws can"
    yield "see: it does not promise that a loss is right. It was measured on sessions of a few hundred cases; that it"
    yield "holds after a million follows from the same mathematics, and was not measured.\n"
    yield "## What was tried and is not shown"
    yield f"The same {len(streams)} sessions after {AFTER[0]} cases; an interval of 95 % should hold for 95 %:\n"
    first = [each for each in streams if len(parts(each, "kinds", AFTER[0])[1]) >= REST]
    rates = {
        "An interval with a lower limit. One fault has few kinds. Soon all are seen, the truth is 0, and the last one "
        "that was seen once keeps the lower limit above it": [between(each, AFTER[0]) for each in first],
        "The same limit, also counting cases that vary an earlier one": [
            holds(each, "kinds", AFTER[0], varied=True) for each in first
        ],
        "Chao's interval for the number of kinds (a miss is certain if more were seen in the end)": [
            enough_kinds(each, AFTER[0]) for each in first
        ],
        "The limit for regions. After so few cases nearly every session has reached all 28, and the session lists "
        "those that it did not reach: a risk adds nothing": [holds(each, "regions", AFTER[0]) for each in first],
    }
    yield "| what | holds |\n|---|---:|"
    yield from (f"| {what} | {statistics.mean(values):.1%} |" for what, values in rates.items())


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, metavar="N", help="how many, at random (default: 200)")
    parser.add_argument("--results", type=Path, help="judge only what this file does not have, and add to it")
    given = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.device == "cpu"]
    random.Random(0).shuffle(faults)
    faults = faults[: given.faults]
    lines = given.results.read_text(encoding="utf-8").splitlines() if given.results and given.results.exists() else []
    known = {each.fault: each for each in (Stream(**json.loads(line)) for line in lines)}
    for each in apart(watch, [fault for fault in faults if fault.name not in known], "faults"):
        known[each.fault] = each
        if given.results:
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(each)) + "\n")
    print("\n".join(page([known[fault.name] for fault in faults])))


if __name__ == "__main__":
    main()
