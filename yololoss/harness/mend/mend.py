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
from yololoss.harness.mend.search import SCOUTING, Candidate, Scout, Search, Show
from yololoss.harness.subjects.family import Family

SECONDS = 60.0  # for all faults
SHORT = 0.5  # share of the time in which each fault has its first turn: most are mended in some seconds
FIRST = 0.6  # share of the time that is left then for the next fault, if others follow: the first fault says most
AGAIN = 1.0  # seconds for each fault that is left, to try what mends others
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
        searches = [_search(bench, scout, n, faults, known, family.numbers) for n in range(len(faults))]
        _run(searches, began + seconds, show)
        found = [fault.model_copy(update={"mends": each.mends}) for fault, each in zip(faults, searches, strict=True)]
    return tuple(found)


def _search(
    bench: Bench, scout: Scout, n: int, faults: Sequence[Finding], known: frozenset[str], numbers: Sequence[float]
) -> Search:
    """The search for what mends one of the faults; laws of the others may break."""
    fault, seen = faults[n], scout.of(n, faults[n])
    others = frozenset(law for each in faults if each is not fault for law in each.laws) - {fault.law} | known
    questions = scout.questions(n, fault, others, known)
    return Search(bench, fault, _lines(bench, seen.lines), questions, others, known, seen.observed, numbers)


def _run(searches: Sequence[Search], until: float, show: Show) -> None:
    """Search for all faults: for each a while; then for those that are left. What mends one may mend another."""
    each = SHORT * (until - time.monotonic()) / len(searches)
    for search in searches if len(searches) > 1 else ():
        search.run(time.monotonic() + each, show, _cures(searches))
    left = [search for search in searches if search.found is None]
    for n, search in enumerate(left):
        now = time.monotonic()
        search.run(now + (FIRST if n + 1 < len(left) else 1.0) * (until - now), show, _cures(searches))
    for search in left if _cures(searches) else ():
        search.run(max(until, time.monotonic() + AGAIN), show, _cures(searches))
    cures = _cures(searches)
    if 1 < len(searches) == len(cures) and len({each.key for each in cures}) == 1:
        everything = searches[0].cures_everything(until)
        for search in searches:
            search.everything = everything


def _cures(searches: Sequence[Search]) -> list[Candidate]:
    """What mends some of the faults."""
    return [search.found for search in searches if search.found is not None]


def _lines(bench: Bench, ran: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """The lines that an edit may change: those that run, also when their file is imported. Without any, all."""
    files = bench.files
    if ran:
        own = {path for path, _ in ran}
        return ran | {place for place in files.at_import if place[0] in own}
    return frozenset((path, n + 1) for path, text in files.texts.items() for n in range(len(text.splitlines())))
