"""The mutation score of the loss: ``python -m tests.mutation > docs/measured/mutation.md`` (an hour on two cores).

It needs the extra ``mutation``: ``python -m pip install -c constraints.txt -e '.[mutation]'``.

Every mutant is judged by the gate: its cases in their order, each by all laws about it, until a law breaks. What the
gate cannot reach (GIoU, the quality focal loss, error texts) is judged by the tests of it; they come after the first
`SOON` cases, because they are quicker than the rest. What survives both must be argued to be equivalent in
`tests.equivalent`; an argument for a mutant that does not survive is an error.

The cases of the gate, and what the reference makes of them, are the same for every mutant: they are made once, and
inherited by the processes that judge.
"""

import argparse
import ast
import gc
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from coverage import Coverage
from rich.console import Console
from rich.progress import track

from tests.all_laws import ROOT
from tests.equivalent import argument, unused
from tests.faults import PACKAGES, Fault, plant_text
from tests.faults.tal import LOSSES as TAL_LOSSES
from tests.judging import Made, apart, breaks, on_its_device, whole
from tests.mutants import MODULES, Mutant, mutants
from yololoss.harness.engine.judge import judged as judged_by
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.laws.exam import Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device

# The tests of what the gate cannot reach, by loss and its module.
BESIDE = {
    "v5": {
        "assign": ("loss", "unchecked"),
        "boxes": ("boxes",),
        "criteria": ("criteria",),
        "gather": ("gather",),
        "loss": ("loss", "contract", "unchecked"),
        "checks": ("contract",),
    },
    "tal": {
        "boxes": ("tal_boxes", "tal_loss", "tal_contract"),
        "inputs": ("tal_loss", "tal_contract", "tal_unchecked"),
        **dict.fromkeys(("checks", "parts"), ("tal_contract", "tal_loss", "tal_unchecked")),
        **dict.fromkeys(("assign", "explain"), ("tal_assign", "tal_contract", "tal_unchecked")),
        **dict.fromkeys(("terms", "loss", "ends"), ("tal_loss", "tal_contract", "tal_unchecked")),
    },
}
LOSSES = {"v5": Fault.loss, "tal": TAL_LOSSES["one"]}
SOON = 300
PACKAGE = "v5"
ON_MIRROR = 30
NOTICED, TESTS, SURVIVED = "a law", "tests beside the gate", "nothing"


@dataclass(frozen=True)
class Judged:
    """What noticed a mutant, which law, and the processor time to it."""

    key: str
    by: str
    law: str
    seconds: float


@dataclass(frozen=True)
class Gate:
    """The gate on the bundled loss: its cases, what is computed of each, and the lines of the loss that run."""

    cases: list[tuple[Made, dict[Any, Any]]]
    lines: dict[str, set[int]]

    def reaches(self, mutant: Mutant) -> bool:
        """Whether a mutant's line runs in the gate; what stands outside functions runs when it is imported."""
        return mutant.line in self.lines[mutant.module] or mutant.line not in _inside_functions(mutant.module)


def run_gate() -> Gate:
    """Run the gate on the bundled loss, remember all that the reference makes of its cases, and watch the lines."""
    home, subject = PACKAGES / PACKAGE, on_its_device(f"yololoss.{PACKAGE}.loss:{LOSSES[PACKAGE][1]}", "cpu")
    sequence = list(whole(Plan((), subject)))
    cases = []
    watch = Coverage(data_file=None, config_file=False, source=[str(home)])
    # threads that OpenMP once had here, the processes that judge would wait for in vain
    with watch.collect(), patch.object(torch, "set_num_threads", lambda n: None):
        for each in track(sequence, "the gate", console=Console(stderr=True)):
            run = Run(subject, each.case)
            if any(judged_by(law, run)[0] for law in each.laws):
                raise SystemExit(f"the gate breaks on the loss as it is, on case {each.number}")
            cases.append((each, run._made))
    lines = {module: set(watch.get_data().lines(str(home / f"{module}.py")) or ()) for module in MODULES[PACKAGE]}
    gc.freeze()  # so that the processes that judge share it
    return Gate(cases, lines)


@lru_cache
def _inside_functions(module: str) -> set[int]:
    tree = ast.parse((PACKAGES / PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {line for f in functions for line in range(f.body[0].lineno, (f.end_lineno or 0) + 1)}


def judge(mutant: Mutant) -> Judged:
    """What noticed the mutant, and which law; in a process of its own. Written to the results at once."""
    start = time.process_time()
    by, law = _judge(mutant)
    judged = Judged(mutant.key, by, law, time.process_time() - start)
    with RESULTS.open("a", encoding="utf-8") as results:
        results.write(json.dumps(asdict(judged)) + "\n")
    return judged


def _judge(mutant: Mutant) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = plant_text("mutant", {mutant.module: mutant.text}, Path(folder), PACKAGE, LOSSES[PACKAGE])
            subject = on_its_device(spec, "cpu")
        except UsageError:
            return NOTICED, "it cannot be imported"
        reached = GATE.reaches(mutant)
        law = _by_gate(subject, slice(SOON)) if reached else None
        if law is None and _by_tests(mutant):
            return TESTS, ""
        law = law or (_by_gate(subject, slice(SOON, None)) or _on_mirror(subject) if reached else None)
        return NOTICED if law else SURVIVED, law or ""


def _by_gate(subject: LossUnderTest, part: slice) -> str | None:
    for each, known in GATE.cases[part]:
        run = Run(subject, each.case)
        run._made.update(known)
        for law in each.laws:
            if judged_by(law, run)[0] is not None:
                return law.id
    return None


def _on_mirror(subject: LossUnderTest) -> str | None:
    """The same on the pretend accelerator, for what lies on the wrong device."""
    there = replace(subject, device=find_device("mirror"))
    law = find_laws(subject.family)["run.no-exception"]
    cases = [each for each, _ in GATE.cases if law in each.laws][:ON_MIRROR]
    return f"{law.id}, on the mirror" if any(breaks(there, cases, [law.id])) else None


def _by_tests(mutant: Mutant) -> bool:
    """Whether the tests beside the gate notice the mutant in the place of the bundled loss, in this process alone."""
    for module in MODULES[PACKAGE]:  # each takes what it needs from those before it
        path = PACKAGES / PACKAGE / f"{module}.py"
        text = mutant.text if module == mutant.module else path.read_text(encoding="utf-8")
        names = vars(import_module(f"yololoss.{PACKAGE}.{module}"))
        for name in [name for name in names if not name.startswith("__")]:
            del names[name]
        try:
            exec(compile(text, str(path), "exec"), names)
        except Exception:
            return True  # it cannot be imported
    slow = (
        "not docs_show and not gradient_is_that_of and not distributed and not graph"  # and about what the gate judges
    )
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in BESIDE[PACKAGE][mutant.module]]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # Hypothesis's plugin wants to come before any strategy is used
        plugins = ["-n", "0", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--assert=plain"]
        return pytest.main(["-x", "-q", *plugins, "-k", slow, *tests]) != 0


def page(judged: dict[Mutant, Judged]) -> Iterator[str]:
    """The Markdown page."""
    count = Counter(each.by for each in judged.values())
    minutes = sum(each.seconds for each in judged.values()) / 60
    yield f"# Mutation score{'' if PACKAGE == 'v5' else ' of the task-aligned loss'}\n"
    names = ", ".join(f"`{module}.py`" for module in MODULES[PACKAGE])
    option, suffix = ("", "") if PACKAGE == "v5" else (f"--family {PACKAGE} ", f"-{PACKAGE}")
    kept_in = f"{option}> docs/measured/mutation{suffix}.md"
    yield f"{len(judged)} mutants of {names}, each one small change: operators and numbers"
    yield "by cosmic-ray; calls, arguments and statements taken away, functions exchanged (`tests/mutants.py`)."
    yield f"Made by `python -m tests.mutation {kept_in}` in {minutes:.0f} minutes of one processor.\n"
    yield "| noticed by | mutants |\n|---|---:|"
    yield f"| a law of the gate | {count[NOTICED]} |"
    beside = ", ".join(sorted({f"`test_{name}.py`" for names in BESIDE[PACKAGE].values() for name in names}))
    yield f"| only tests of what the gate cannot reach: {beside} | {count[TESTS]} |"
    yield f"| nothing: equivalent, argued below | {count[SURVIVED]} |"
    yield "\n## Survivors\n"
    for reason, group in _by_reason(judged).items():
        yield f"{reason}\n"
        yield from (f"- `{mutant}`" for mutant in group)
        yield ""
    laws = Counter(each.law for each in judged.values() if each.by == NOTICED)
    yield "## Which laws noticed\n\n| law | mutants |\n|---|---:|"
    yield from (f"| {law} | {n} |" for law, n in laws.most_common())


def _by_reason(judged: dict[Mutant, Judged]) -> dict[str, list[Mutant]]:
    groups: dict[str, list[Mutant]] = {}
    for mutant, each in judged.items():
        if each.by == SURVIVED:
            groups.setdefault(argument(mutant, PACKAGE) or "**Not argued**", []).append(mutant)
    return groups


def _read_results() -> dict[str, Judged]:
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {each.key: each for each in (Judged(**json.loads(line)) for line in lines)}


def _judge_all(wanted: list[Mutant]) -> None:
    global GATE  # noqa: PLW0603  # too large to be sent to each process, so they inherit it
    GATE = run_gate()
    texts = {m: (PACKAGES / PACKAGE / f"{m}.py").read_text(encoding="utf-8") for m in MODULES[PACKAGE]}
    loss = [Mutant(module, 0, "", "", text) for module, text in texts.items()]
    if any([*apart(_by_tests, loss, "the loss itself")]):
        raise SystemExit("the tests beside the gate fail on the loss as it is")
    list(apart(judge, wanted, "mutants"))


def main() -> int:
    """Judge every mutant and print the page; the exit status says whether each survivor is argued."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="which modules (default: all)")
    parser.add_argument("--family", choices=MODULES, default="v5", help="of the loss (default: v5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th mutant")
    parser.add_argument("--results", type=Path, help="judge only what this file does not have, and add to it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        global PACKAGE, RESULTS  # noqa: PLW0603  # inherited, as the gate
        PACKAGE, modules = given.family, given.modules or MODULES[given.family]
        RESULTS = given.results or Path(folder) / "results"
        wanted = [m for module in modules for m in mutants(module, PACKAGE)][:: given.every]
        known = _read_results()
        if not {m.key for m in wanted} <= set(known):
            _judge_all([m for m in wanted if m.key not in known])
            known = _read_results()
    judged = {m: known[m.key] for m in wanted}
    print("\n".join(page(judged)))
    survivors = [mutant for mutant, each in judged.items() if each.by == SURVIVED]
    wrong = [f"not argued: {m}" for m in survivors if argument(m, PACKAGE) is None]
    if given.every == 1 and tuple(modules) == MODULES[PACKAGE]:
        wrong += [f"argued, but it does not survive: {entry}" for entry in unused(survivors, PACKAGE)]
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
