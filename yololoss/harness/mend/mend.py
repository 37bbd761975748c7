"""Mends the faults of a check, one after another, within a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.judge import Task
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.finding import Finding
from yololoss.harness.mend.bench import Bench
from yololoss.harness.mend.search import SCOUTING, Scout, Search
from yololoss.harness.subjects.family import Family

SECONDS = 60.0  # for all faults
FIRST = 0.6  # share of the time that is left for the next fault, if others follow: the first fault says most
LIMIT = 5.0  # seconds for an edit: a thousand times as long as usual
MEMORY = 4096  # MiB more than the loaded loss has


def mend(
    faults: Sequence[Finding],
    task: Task,
    family: Family,
    *,
    known: frozenset[str] = frozenset(),
    seconds: float = SECONDS,
    workers: int = 2,
    show: Callable[[int], object] = lambda _: None,
) -> tuple[Finding, ...]:
    """The faults with what would mend each. ``known``: laws that are waived.

    Raises UsageError if the loss has no file that may be changed.
    """
    given = tuple(read_vectors(Path(fault.path)).vectors[0].model_dump_json() for fault in faults)
    task = replace(task, limit=LIMIT, memory=MEMORY)
    with Bench(task, family.name, given, workers) as bench:
        if not bench.files.texts:
            raise UsageError(f"{task.loss}: it is in an installed package; mend changes only files of your own")
        began = time.monotonic()  # a process takes seconds to start on a busy machine
        scout = Scout(bench).look(began + SCOUTING * seconds)
        found = []
        for n, fault in enumerate(faults):
            now = time.monotonic()
            left = began + seconds - now
            until = now + (FIRST if n + 1 < len(faults) else 1.0) * left
            others = frozenset(law for each in faults if each is not fault for law in each.laws) - {fault.law} | known
            seen = scout.of(n, fault)
            search = Search(
                bench=bench,
                fault=fault,
                lines=_lines(bench, seen.lines),
                questions=scout.questions(n, fault, others),
                others=others,
                known=known,
                observed=seen.observed,
                numbers=family.numbers,
            )
            found.append(fault.model_copy(update={"mends": search.run(until, show)}))
    return tuple(found)


def _lines(bench: Bench, ran: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """The lines that an edit may change: those that run. Where the case ends its process, all."""
    files = bench.files
    if ran:
        return ran | files.at_import
    return frozenset((path, n + 1) for path, text in files.texts.items() for n in range(len(text.splitlines())))
