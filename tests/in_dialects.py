"""The catalogue's faults in other dialects: ``python -m tests.in_dialects > docs/measured/in_dialects.md``.

First, each fault is planted into the bundled loss in six dialects (`tests.faults.dialects`), each of which is named.
The gate's cases are judged by the law that the fault names, and if that holds, by all laws. What is no fault in a
dialect, or has no text there, is left out. Then each is planted into the bundled loss, and no dialect is named: so the
loss is looked at, and judged by the dialect that it is found to have. There a fault is told by a law that breaks, or
as a choice other than the bundled loss's.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from properties.v5.dialects import DIALECTS
from properties.v5.recognise import PROMISES
from tests.all_laws import V5
from tests.faults import Fault, faulty_text, plant, plant_text
from tests.faults.catalogue import BY_NAME, FAULTS
from tests.faults.dialects import BASES
from tests.judging import Made, apart, breaks, on_its_device, whole
from tests.subjects.told import alike
from yololoss.harness.engine.plan import Plan
from yololoss.harness.subjects.dialect import differences, read_dialect, write_dialect

RESULTS: Path | None = None
UNNAMED = "none is named"
FEWER = 10  # of a fault that is told as a choice, only every so many-th case: an overlap taken from the loss is slow
# Faults that are none in a dialect: by an option that it has, and by their step or name; and why.
NO_FAULT = (
    (("bad_input", "noted"), ("INPUT",), "it does not say what becomes of invalid input"),
    (("overlap", "own"), ("IOU", "DECODE"), "the overlap is the loss's own, whatever its formula"),
    (
        ("cell", "none"),
        (
            *("far_edge_dropped", "clamp_dropped", "clamp_one_far", "clamp_columns_only"),
            *("wraps_at_the_edge", "box_from_unclamped_cell"),
        ),
        "a centre on the far edge is an error there",
    ),
    (
        ("smoothing", "ignored"),
        ("smoothing_over_classes", "weight_forgotten_when_smoothed"),
        "there is no smoothing",
    ),
    (("overlap_eps", 1e-9), ("diagonal_without_eps",), "an epsilon of 1e-9 is lost in rounding"),
    (
        ("drop_in", "no"),
        ("gains_of_construction", "limit_of_first_call"),
        "it does not promise that hyperparameters may be changed between calls",
    ),
)


class Planted(NamedTuple):
    """What became of a fault in a dialect."""

    base: str
    fault: Fault
    law: str | None  # that broke
    choice: str  # what the loss was found to have in place of the bundled one's choices


@cache
def sequence(device: str, name: str) -> list[Made]:
    """The gate's cases in a dialect."""
    base, package = BASES[name], f"on_{device}_{[*BASES].index(name)}"
    with tempfile.TemporaryDirectory() as folder:
        return list(whole(Plan((), on_its_device(plant_text(package, base.texts, Path(folder)), device, base.dialect))))


def judge(task: tuple[str, Fault]) -> Planted:
    """Plant a fault, and see which law breaks, in a process of its own."""
    name, fault = task
    where = "upstream" if name == UNNAMED else name
    base, choice = BASES[where], ""
    dialect = base.dialect
    with tempfile.TemporaryDirectory() as folder:
        spec = plant(fault, Path(folder), texts=base.texts)
        if name == UNNAMED:
            found = V5.recognise(on_its_device(spec, fault.device, dialect), None).dialect
            own = read_dialect(dialect, DIALECTS, "upstream")
            if not alike(found, own):
                texts = (text for text in differences(found, own) if text.partition(" =")[0] not in PROMISES)
                choice, dialect = ", ".join(texts), write_dialect(found, DIALECTS)
        subject = on_its_device(spec, fault.device, dialect)
        laws, cases = set(Plan((), subject).laws), sequence(fault.device, where)[:: FEWER if choice else 1]
        first = next(breaks(subject, cases, laws & {fault.law}), None) if fault.law in laws else None
        first = first or next(breaks(subject, cases, laws), None)
    found = Planted(name, fault, None if first is None else first.told.law, choice)
    if RESULTS is not None:
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write(json.dumps((name, fault.name, found.law, choice)) + "\n")
    return found


def known(path: Path | None) -> list[Planted]:
    """What an earlier run wrote."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    return [Planted(name, BY_NAME[fault], law, choice) for name, fault, law, choice in map(json.loads, lines)]


def why_not(name: str, fault: Fault) -> str | None:
    """Why something is no fault in a dialect; None if it is one."""
    dialect = read_dialect(BASES["upstream" if name == UNNAMED else name].dialect, DIALECTS, "upstream")
    for (choice, option), what, why in NO_FAULT:
        if getattr(dialect, choice) == option and not {fault.name, *fault.steps}.isdisjoint(what):
            return why
    return None


def plantable(name: str) -> Iterator[Fault]:
    """The faults that are faults in a dialect, and whose text the loss has there."""
    texts = BASES["upstream" if name == UNNAMED else name].texts
    for fault in FAULTS:
        if why_not(name, fault) is not None:
            continue
        try:
            faulty_text(fault, texts.get(fault.module))
        except ValueError:
            continue
        yield fault


def page(found: Sequence[Planted]) -> Iterator[str]:
    """The Markdown page."""
    yield "# Faults in other dialects\n"
    yield f"What the gate tells of the catalogue's {len(FAULTS)} faults, planted into the bundled loss in six dialects."
    yield "Made by `python -m tests.in_dialects > docs/measured/in_dialects.md`.\n"
    yield "## A dialect is named\n"
    yield "| dialect | no fault there | has no such text | planted | noticed | not noticed |"
    yield "|---|---:|---:|---:|---:|---|"
    missing = [name for name in (*BASES, UNNAMED) if all(each.base != name for each in found)]
    for name in [name for name in BASES if name not in missing]:
        of = [each for each in found if each.base == name]
        none = sum(why_not(name, fault) is not None for fault in FAULTS)
        missed = [each.fault.name for each in of if each.law is None]
        noticed = len(of) - len(missed)
        share = f"{noticed} ({noticed / max(len(of), 1):.1%})"
        rest = len(FAULTS) - none - len(of)
        yield f"| {name} | {none} | {rest} | {len(of)} | {share} | {', '.join(missed) or 'none'} |"
    yield "\nWhat is no fault there, and why:\n\n| a dialect with | faults, or their step | why |\n|---|---|---|"
    for (choice, option), what, why in NO_FAULT:
        yield f"| `{choice} = {option}` | {', '.join(what)} | {why} |"
    yield ""
    if missing:
        yield f"Not measured in this run: {', '.join(missing)}."
    if UNNAMED in missing:
        return
    of = [each for each in found if each.base == UNNAMED]
    chosen = [each for each in of if each.choice]
    only = [each for each in chosen if each.law is None]
    yield "## No dialect is named\n"
    broke = sum(each.law is not None for each in of)
    yield f"Of {len(of)} faults, {broke} break a law in the dialect that the loss is found to have."
    yield f"{len(chosen)} are told as a choice other than the bundled loss's; {len(only)} of these break no law on"
    yield f"every {FEWER}th case of the gate. They ask the one who reads the line: is that what you meant? With the"
    yield "dialect named, each of them is a fault.\n"
    yield "| fault | told as | and this law breaks |\n|---|---|---|"
    for each in chosen:
        yield f"| {each.fault.name} | `{each.choice}` | {f'`{each.law}`' if each.law else 'none'} |"


def main() -> int:
    """Print the page; what is not noticed, though it is a fault, goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th fault, and no page")
    parser.add_argument("names", nargs="*", help=f"only these dialects, of {', '.join(BASES)}, {UNNAMED}")
    parser.add_argument("--results", type=Path, help="plant only what this file does not have, and add to it")
    given = parser.parse_args()
    global RESULTS  # noqa: PLW0603  # inherited by the processes that judge
    RESULTS = given.results
    names = given.names or [*BASES, UNNAMED]
    before = known(RESULTS)
    done = {(each.base, each.fault) for each in before}
    tasks = [(name, fault) for name in names for fault in plantable(name)][:: given.every]
    left = [task for task in tasks if task not in done]
    for name, fault in left:
        sequence(fault.device, "upstream" if name == UNNAMED else name)  # before the processes are forked
    made = {(each.base, each.fault): each for each in (*before, *apart(judge, left, "faults"))}
    found = [made[task] for task in tasks]
    if given.every == 1:
        print("\n".join(page(found)))
    missed = [each for each in found if each.law is None and not each.choice]
    print("\n".join(f"{each.base}: {each.fault.name} breaks no law" for each in missed), file=sys.stderr)
    return 0 if len(missed) <= 0.03 * len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
