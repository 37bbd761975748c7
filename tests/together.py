"""How many faults are told of one, two or three: ``python -m tests.together``.

Faults of the catalogue are planted into the bundled loss, alone and together, and a part of the gate's cases is judged
in this process as a worker judges them. The first case of each law that nothing explains is minimised, and the findings
are put together as a check does.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.faults import Fault, faulty_text, plant
from tests.faults.catalogue import BY_NAME, FAULTS
from tests.judging import Made, apart, on_its_device, whole
from yololoss.harness.engine.faults import groups
from yololoss.harness.engine.judge import assumes_in_vain, judged
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.engine.plan import Plan
from yololoss.harness.engine.raw import Raw
from yololoss.harness.laws.exam import Run

SHARE = 10  # every so many-th case of the gate
PAIRS, TRIPLES = 200, 100
SEED = 7
MINIMISED = 3.0  # seconds for each case
RESULTS: Path | None = None


class Told(NamedTuple):
    """What was planted, and the laws that show a fault each."""

    planted: tuple[str, ...]
    faults: tuple[str, ...]
    laws: int  # that broke


@cache
def sequence() -> tuple[Made, ...]:
    """Some of the gate's cases, and all that are some laws' own."""
    plan = Plan((), on_its_device("yololoss:ComputeLoss", "cpu"))
    return tuple(each for each in whole(plan) if each.origin is None or each.number % SHARE == 0)


def findings(plan: Plan) -> tuple[list[Raw], set[str]]:
    """How each law breaks first where no earlier one explains it; and the laws that only earlier ones explain.

    If the law that explains another one has no finding, that other one stands for it, as in a session.
    """
    found: dict[str, Raw] = {}
    explained: dict[str, Raw] = {}
    for number, origin, case, about in sequence():
        run = Run(plan.subject, case)
        for law in (plan.laws[each.id] for each in about):
            if law.id in found or (law.again and not run.answered):
                continue
            if law.tally.explained and assumes_in_vain(plan, law, run):
                continue
            told, _ = judged(law, run, plan)
            if told is not None and told.explained:
                law.tally.explained[told.explained] += 1
                explained.setdefault(law.id, Raw(told, case, origin, number))
            elif told is not None:
                found[law.id] = Raw(told, case, origin, number)
    causes = {law: {raw.told.explained, *plan.laws[law].tally.explained} for law, raw in explained.items()}
    for law in sorted(explained.keys() - found.keys(), key=plan.number.__getitem__):
        known = {*found, *(raw.told.explained for raw in found.values())}
        if known.isdisjoint(causes[law].union(*(causes.get(cause, ()) for cause in causes[law]))):
            found[law] = explained[law]
    return sorted(found.values(), key=lambda raw: plan.number[raw.told.law]), {*explained} - {*found}


def minimised(raw: Raw, plan: Plan) -> Raw:
    """The same with a minimised case, if it was made by the gate."""
    if raw.origin is None:
        return raw
    origin, law = raw.origin, plan.laws[raw.told.law]

    def breaks(data: bytes) -> bool:
        told, _ = judged(law, Run(plan.subject, plan.case(origin._replace(data=data))), plan)
        return told is not None and not told.explained

    small = origin._replace(data=smallest(origin.data, breaks, time.monotonic() + MINIMISED))
    return raw._replace(origin=small, case=plan.case(small))


def texts_of(planted: Sequence[Fault]) -> dict[str, str]:
    """The modules with all of these faults in them. Raises ValueError if two change the same text."""
    texts: dict[str, str] = {}
    for fault in planted:
        texts[fault.module] = faulty_text(fault, texts.get(fault.module))
    return texts


def tell(planted: tuple[Fault, ...]) -> Told:
    """Plant these faults, and count what is told."""
    *others, last = planted
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan((), on_its_device(plant(last, Path(folder), texts=texts_of(others)), "cpu"))
        for law in plan.laws.values():
            law.tally.clear()
        raw, explained = findings(plan)
        small = [minimised(each, plan) for each in raw]

        def breaks(law: int, case: int) -> bool:
            return judged(plan.laws[small[law].told.law], Run(plan.subject, small[case].case))[0] is not None

        heads = [small[first].told.law for first, *_ in groups([each.told.law for each in small], breaks)]
    told = Told(tuple(fault.name for fault in planted), tuple(heads), len(raw) + len(explained))
    if RESULTS is not None:
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write(json.dumps(told) + "\n")
    return told


def together(size: int, count: int) -> Iterator[tuple[Fault, ...]]:
    """Random faults that can be planted together."""
    chance = random.Random(SEED + size)  # the same in every run
    usual = [fault for fault in FAULTS if fault.device == "cpu"]
    while count:
        chosen = tuple(chance.sample(usual, size))
        try:
            texts_of(chosen)
        except ValueError:  # they change the same text
            continue
        count -= 1
        yield chosen


def rows(told: Sequence[Told]) -> Iterator[str]:
    """The table: how often how many faults were told."""
    yield "| planted together | losses | as many told | fewer | one more | more than that |"
    yield "|---:|---:|---:|---:|---:|---:|"
    for size in sorted({len(each.planted) for each in told}):
        more = Counter(len(each.faults) - size for each in told if len(each.planted) == size)
        count, right = more.total(), more[0]
        fewer, worse = (sum(n for off, n in more.items() if test(off)) for test in ((0).__gt__, (1).__lt__))
        yield f"| {size} | {count} | {right} ({right / count:.0%}) | {fewer} | {more[1]} | {worse} |"


def page(told: Sequence[Told], every: int) -> Iterator[str]:
    """The Markdown page."""
    yield "# How many faults are told\n"
    yield f"Faults of the catalogue, planted into the bundled loss, alone or together, judged on every {SHARE}th case"
    yield "of the gate. What a check would show is counted: the findings that no earlier law explains, put together"
    of = "" if every == 1 else f"Only every {every}th of the losses was judged. "
    option = "" if every == 1 else f" --every {every}"
    yield f"where they are one fault. {of}Made by `python -m tests.together{option}`.\n"
    yield from rows(told)
    yield "\nOf single faults, those that are told as several, and those that these cases do not show:\n"
    yield "| fault | told as |\n|---|---|"
    for each in told:
        if len(each.planted) == 1 and len(each.faults) != 1:
            yield f"| {each.planted[0]} | {', '.join(f'`{law}`' for law in each.faults) or 'nothing'} |"


def main() -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th loss")
    parser.add_argument("--results", type=Path, help="plant only what this file does not have, and add to it")
    given = parser.parse_args()
    global RESULTS  # noqa: PLW0603  # inherited by the processes that judge
    RESULTS = given.results
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS is not None and RESULTS.exists() else []
    done = {tuple(names): Told(tuple(names), tuple(faults), laws) for names, faults, laws in map(json.loads, lines)}
    single = [(fault,) for fault in BY_NAME.values() if fault.device == "cpu"]
    tasks = [
        *single[:: given.every],
        *(t for n, count in ((2, PAIRS), (3, TRIPLES)) for t in [*together(n, count)][:: given.every]),
    ]
    left = [task for task in tasks if tuple(fault.name for fault in task) not in done]
    sequence()  # before the processes are forked
    made = done | {told.planted: told for told in apart(tell, left, "losses")}
    told = [made[tuple(fault.name for fault in task)] for task in tasks]
    print("\n".join(page(told, given.every)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
