"""Judges one case by one law in another process, which may die: for replay, and to minimise cases."""

import multiprocessing
import sys
import time
from collections.abc import Container, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import Vector, kind, read_vectors
from yololoss.harness.devices.devices import DeviceLost
from yololoss.harness.engine.guard import UNWATCHED, Death, Guarded, is_watched
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.laws.exam import ELSEWHERE, Law, LawBroken, Run, Tally
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects import compiled
from yololoss.harness.subjects.compiled import NAME as COMPILE
from yololoss.harness.subjects.execute import TIME_LIMIT
from yololoss.harness.subjects.family import LossUnderTest, find_family, with_record
from yololoss.harness.subjects.load import find_devices, load_loss

STEP = 0.02  # seconds between two checks of a process
ALIVE = "a result, and a process that keeps running"
MEMORY = 4096  # MiB that a process may use
LIMIT = 30.0  # seconds that a case may take, with all laws
# Where an earlier law uses so much of its tolerance, it explains a later one too. Right losses use less than 0.36,
# or all of it where a gradient may be anything between two values.
NEAR = 0.5
CONDUCT = ("run", "state")  # parts of the laws about what a loss does besides its work
OFTEN = 8  # where a law explained another one so often, it does so wherever both break
WAITS = 3600.0  # seconds that a process waits for the next case
START = 120.0  # seconds that a process may take to start, on a busy machine


def usual_limit(device: str) -> float:
    """Seconds that a case may take, with all laws. Compilation takes a minute for each shape."""
    return 2 * compiled.TIME_LIMIT if device == COMPILE else LIMIT


@dataclass(frozen=True)
class Task:
    """The loss under test, as data that can be sent to another process."""

    loss: str
    device: str
    dialect: str | None = None
    memory: int = MEMORY
    limit: float = LIMIT
    laws: tuple[str, ...] = ()  # that may explain one another; empty: all
    baseline: str | None = None  # a file of what the loss did when it was recorded
    modules: tuple[str, ...] = ()  # files with laws that belong to no family's package: a user's own

    def under_test(self, worker: int = 0) -> LossUnderTest:
        """Load the loss in this process."""
        for path in self.modules:
            _import(path)
        torch.set_num_threads(1)  # cases are small: a second thread costs more time than it saves
        name, where = next(iter(find_devices(self.device, worker)[0].items()))
        found = load_loss(self.loss, where, self.dialect, compiled=name == COMPILE)
        limit = found.limit if found.compile else min(TIME_LIMIT, self.limit / 2)
        recorded = {} if self.baseline is None else read_vectors(Path(self.baseline)).recorded
        return replace(found, limit=limit, recorded=recorded)


def _import(path: str) -> None:
    """Import a file with laws, unless this process has imported it."""
    if all(getattr(module, "__file__", None) != path for module in list(sys.modules.values())):
        sys.path.insert(0, str(Path(path).parent))
        import_module(Path(path).stem)


class Told(NamedTuple):
    """How a law broke, as data that can be sent to another process."""

    law: str
    what: str
    expected: str
    observed: str
    because: str
    died: bool = False  # the case ended its process
    outside: bool = False  # or the process was killed from outside
    explained: str = ""  # the earlier law that breaks on a case that this law ran
    kind: str = ""  # of the fault, if the law tells several apart
    by_gradient: bool = False  # whether gradients were read

    def broken(self, law: Law, case: Case) -> LawBroken:
        """The same as a LawBroken error."""
        broken = LawBroken(law, case, self.what, self.expected, self.observed, self.because)
        broken.died, broken.kind = self.died, self.kind
        return broken


class Answer(NamedTuple):
    """The result of judging a case."""

    told: Told | None  # how the law broke, if it did
    nothing: str | None = None  # why there was nothing to judge, if there was not


def died(death: Death, law: Law) -> Told:
    """The finding of a case that ended its process.

    If the law runs the loss again, the finding is this law's, since that run may be the reason; else the law about the
    process is broken.
    """
    broke, because = law.id if law.again else death.law, "none: the process ended"
    return Told(broke, "the process of the loss", ALIVE, death.kind, because, died=True, outside=death.outside)


def lost(law: str, error: DeviceLost) -> Told:
    """The finding of a case after which the device does not respond any more."""
    return Told(law, "the device, after this case", "a response", error.detail, "none: the device is lost", died=True)


def spoilt(run: Run) -> Told | None:
    """The finding of a loss that gives no finite result any more for a case, in a process that has seen bad input."""
    again = Run(run.subject, run.case)
    if not all(run.finite) or (again.outcome.gradients and all(again.finite)):
        return None
    what = "the same case, after bad input in this process"
    return Told("input.spoils-nothing", what, "finite, as before", "not finite", "none: this is exact")


def judged(law: Law, run: Run, plan: Plan | None = None, broken: Container[str] = ()) -> tuple[Told | None, float]:
    """How the law breaks on this run, if it does, and the largest error as a share of the tolerance.

    An error in a law itself is also reported: a loss may return something that the law does not expect. With a plan,
    it is also told which earlier law explains that this one broke: of several, one that is known to have ``broken`` by
    itself. Where a law about what the loss shows of its own steps breaks, such as its rows, later steps are judged by
    what it shows: they may be right.
    """
    try:
        return None, law.examine(run)
    except LawBroken as error:
        seen = error.what, error.expected, error.observed, error.because
        told = Told(law.id, *seen, kind=error.kind, by_gradient=error.by_gradient)
        runs, by_budget = error.runs, error.by_budget and not law.again
        of_values, raised = error.by_budget and not error.by_gradient, error.what == ELSEWHERE
    except Exception as error:
        because = "none: the law could not judge"
        told = Told(law.id, "the judgement", "no error", f"{type(error).__name__}: {error}", because)
        runs, by_budget, of_values, raised = (run,), False, False, False
    if plan is None:
        return told, 1.0
    if by_budget and (shown := _as_shown(plan, law, run)) is not None:
        found, nearest = judged(law, shown, plan, broken)
        given = f", given {plan.subject.family.shows}"
        return None if found is None else found._replace(what=found.what + given), nearest
    return told._replace(explained=_explained(plan, law, run, runs, broken, of_values, raised)), 1.0


def _as_shown(plan: Plan, law: Law, run: Run) -> Run | None:
    """The run to judge a law by, if what the loss shows of an earlier step is wrong there, and can be used."""
    if run.judged_as_shown or plan.is_shown(law.id):
        return None
    showing = (each for each in plan.explaining(law.id) if plan.is_shown(each.id))
    return run.as_shown if any(_breaks(plan, each, run) for each in showing) else None


def _explained(
    plan: Plan, law: Law, first: Run, runs: Sequence[Run], broken: Container[str], of_values: bool, raised: bool
) -> str:
    """A law before this one that breaks on a case that this law ran, if possible one of the same part; "" if all hold.

    The subject is judged as it is, even if the law changed it or called it in another way. What is hidden on a case,
    and seen on a clearer one, explains as well. A wrong gradient explains no wrong value (``of_values``), unless it
    tells which rows there are. An error that only another run raises is explained by what the loss does besides its
    work, or by what is wrong in further calls alone.
    """
    before = plan.explaining(law.id)
    ran = {first.case: first}
    for run in runs:
        ran.setdefault(run.case, run if run.subject == first.subject else Run(first.subject, run.case))

    def explains(each: Law, run: Run) -> bool:
        if raised and each.id.partition(".")[0] not in CONDUCT:
            return run.case in ran and _breaks(plan, each, run) and not _breaks(plan, each, first)
        return _breaks(plan, each, run, of_values)

    clearer = (Run(first.subject, other) for case in ran for other in case.clearer if other not in ran)
    if first.judged_as_shown:
        clearer = (run.as_shown or run for run in clearer)
    for some in chain([[*ran.values()]], ([run] for run in clearer)):
        found = [each.id for each in before if any(explains(each, run) for run in some)]
        if found:
            other = _without(plan, law, first, found, of_values)
            return next((id for id in found if id in broken), found[0]) if other is None else other
    return ""


def _without(plan: Plan, law: Law, first: Run, causes: Sequence[str], of_values: bool) -> str | None:
    """What explains that a law breaks on the case on which faults of these earlier laws should have no effect on it.

    One of them, if it breaks there too; "" if nothing does. None if the law holds there, or there is no such case: then
    one of these laws explains it.
    """
    case = plan.without(causes, law, first.case)
    run = None if case is None else Run(first.subject, case)
    run = run and (run.as_shown if first.judged_as_shown else run)
    if run is None or judged(replace(law, tally=Tally()), run)[0] is None:
        return None
    unseen = plan.subject.family.half_seen.intersection(id.partition(".")[0] for id in causes)
    others = (each for each in plan.explaining(law.id) if each.id.partition(".")[0] not in unseen)
    return next((each.id for each in others if _breaks(plan, each, run, of_values)), "")


def _breaks(plan: Plan, law: Law, run: Run, of_values: bool = False) -> bool:
    if run.judged_as_shown and plan.is_shown(law.id):
        return False  # the run is judged by what this law is about
    if law.id not in run.broke:
        told, nearest = judged(law, run) if plan.holds_for(law, run.case) else (None, 0.0)
        run.broke[law.id] = NEAR <= nearest < 1 if told is None else told
    broke = run.broke[law.id]
    alone = plan.subject.family.seen_in_gradients.isdisjoint((law.id, law.id.partition(".")[0]))
    return bool(broke) and not (of_values and alone and isinstance(broke, Told) and broke.by_gradient)


def assumes_in_vain(plan: Plan, law: Law, run: Run) -> bool:
    """Whether a law breaks on this run that has explained this one often: so this one has nothing new to say.

    A wrong gradient says nothing of a law that runs the loss again: that may compare values before it.
    """
    seen = {id for id, count in law.tally.explained.items() if count >= OFTEN}
    run = (None if law.again or not seen else _as_shown(plan, law, run)) or run
    return any(_breaks(plan, each, run, of_values=law.again) for each in plan.explaining(law.id) if each.id in seen)


class Judge(AbstractContextManager["Judge"]):
    """Judges cases one after another, in another process. If a case ends it, this is reported, and a new one starts."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._guarded: Guarded | None = None
        self._pipe: Any = None

    def ask(self, vector: Vector[Any, Any]) -> Answer:
        """Judge a case by the law that it is saved under."""
        if self._guarded is None:
            self._start()
        assert self._guarded is not None
        began, death = time.monotonic(), None
        try:
            self._pipe.send(vector.model_dump_json())
            while not self._pipe.poll(STEP):
                death = self._guarded.watch(began, self.task.limit)
                if death is not None and not self._pipe.poll(0):
                    break
            else:
                return Answer(*self._pipe.recv())
        except (EOFError, OSError):  # it died between two checks
            self._guarded.process.join()
            death = self._guarded.watch(began, self.task.limit)
        self.close()
        assert death is not None
        return Answer(died(death, find_laws(find_family(vector.case.family))[str(vector.law)]))

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._guarded = Guarded(serve, (theirs, self.task), self.task.memory)
        theirs.close()
        if not self._pipe.poll(START):
            raise TimeoutError(f"a process was not ready after {START:g} s")  # pragma: no cover
        try:
            self._pipe.recv()
        except EOFError as error:
            raise UsageError(f"{self.task.loss}: a process that judges it ended before its first case") from error

    def close(self) -> None:
        """End the process."""
        if self._guarded is not None:
            self._guarded.kill()
            self._pipe.close()
        self._guarded = None

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(pipe: Connection, task: Task) -> None:
    """The other process: receives cases with their laws, and sends how they broke."""
    subject = task.under_test()
    laws, vectors = find_laws(subject.family), kind(subject.family.name).vector
    plan = Plan(task.laws, subject)
    pipe.send("ready")
    asker = multiprocessing.parent_process()
    ends: list[Any] = [pipe, *([] if asker is None else [asker.sentinel])]
    while is_watched(WAITS):
        if pipe not in wait(ends):
            return  # a forked process also holds the other end of the pipe, so that end does not close
        try:
            vector = vectors.model_validate_json(pipe.recv())
        except EOFError:
            return
        law = laws[str(vector.law)]
        law.tally.clear()
        is_watched(UNWATCHED * task.limit)
        try:
            broke, _ = judged(law, Run(with_record(subject, vector), vector.case), plan)
        except DeviceLost as error:
            broke = lost(law.id, error)
        pipe.send(Answer(broke, next(iter(law.tally.not_applicable), None)))
        if broke is not None and broke.died:
            return
