"""A session: workers that are watched and replaced, a clerk, a time, counts; all of it on disk.

Everything that is found lies in files before anybody is told, and each file is there as a whole or not at all. So
whoever is killed, at any moment, a session that is resumed finds what there was:

    session.json   settings, seed, counts, time used
    journal/       a file a worker: its counts, the case in flight
    raw/           what broke something, as it was found
    known/         what became of it
    findings/      cases made small, and pictures
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from yololoss.harness.case import Data
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.fuzz.clerk import Duty, Record, attend, read_records, record_path, write_record
from yololoss.harness.fuzz.guard import Death, Guarded
from yololoss.harness.fuzz.journal import Journal
from yololoss.harness.fuzz.judge import LIMIT, MEMORY, Task, died
from yololoss.harness.fuzz.plan import Counters, Plan
from yololoss.harness.fuzz.raw import Raw, from_flight, read_raw, write_raw
from yololoss.harness.fuzz.worker import BAD_DISK, Orders, error_path, journal_path, run
from yololoss.harness.vectors import write_whole

STEP = 0.05  # seconds between two looks at the workers
SAVED = 1.0  # seconds between two savings of the session
SMALL = 60.0  # seconds to make a finding small in; of those that wait at the end, a few
SMALL_AT_END = 10.0
EACH = 3  # findings of one law that are made small
FAILED = 3  # workers in a row that end before their first case: then none will do better


class Settings(Data):
    """What a session is about; a session that is resumed keeps them."""

    loss: str
    device: str
    family: str
    laws: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    workers: int = 1
    memory: int = MEMORY
    limit: float = LIMIT
    seed: int = 0
    seconds: float | None = None
    cases: int | None = None
    options: dict[str, str | None] = Field(default_factory=dict)  # that a replay needs

    @property
    def task(self) -> Task:
        """What is put to the test."""
        return Task(self.loss, self.device, self.family, self.memory, self.limit)


class State(Data):
    """What is saved of a session."""

    settings: Settings
    used: float = 0.0  # seconds
    next: int = 0  # number of the next worker
    absorbed: tuple[int, ...] = ()  # workers whose counts are in here already
    counts: dict[str, int] = Field(default_factory=dict)
    kinds: dict[str, int] = Field(default_factory=dict)
    restarts: int = 0
    first: tuple[str, ...] = ()  # cases that a worker is to judge first


class Worker:
    """A worker's process and journal, as the session sees them."""

    def __init__(self, orders: Orders, memory: int) -> None:
        self.orders = orders
        self.guarded = Guarded(run, (orders,), memory)
        self.journal: Journal | None = None

    def watch(self, limit: float) -> Death | None:
        """What it died of."""
        if self.journal is None:
            try:
                self.journal = Journal(journal_path(self.orders.folder, self.orders.number))
            except (BadFile, FileNotFoundError):  # not yet made
                return self.guarded.watch(None, limit)
        entry = self.journal.read()
        return self.guarded.watch(entry.began if entry.text else None, limit)


class Session:
    """Runs workers until the time or the cases are used up."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder, self.state = folder, state
        self.settings = state.settings
        self.plan = Plan(self.settings.laws, self.settings.task.under_test(), self.settings.waived)
        if not self.plan.laws:
            raise UsageError("none of these laws can be fuzzed on this loss and device")
        self.counters = Counters(self.plan)
        for name in ("journal", "raw", "known", "findings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.records: dict[str, Record] = read_records(folder)
        self.workers: list[Worker] = []
        self.clerk: tuple[Guarded, Path] | None = None
        self.failed = 0
        self._base = state.used
        self._start = self._saved = time.monotonic()
        self._ended: float | None = None
        self._recover()

    # What there is

    @property
    def used(self) -> float:
        """Seconds, those before it was resumed included."""
        return self._base + (self._ended or time.monotonic()) - self._start

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Counts by name, and by fingerprint, of all workers that there were and are."""
        named, kinds = Counter(self.state.counts), Counter(self.state.kinds)
        for worker in self.workers:
            if worker.journal is not None:
                more, seen = self.counters.read(worker.journal.counters)
                named, kinds = named + more, kinds + seen
        return named, kinds

    @property
    def findings(self) -> dict[str, Record]:
        """What was found, by fingerprint."""
        return {kind: record for kind, record in self.records.items() if record.finding is not None}

    # What it does

    def run(self, show: Callable[["Session"], None]) -> None:
        """Go on until the end; Ctrl-C ends it orderly."""
        try:
            for place in range(self.settings.workers):
                self._hire(place)
            while not self._over():
                time.sleep(STEP)
                self._look_after_workers()
                self._look_after_clerk(SMALL)
                if time.monotonic() - self._saved > SAVED:
                    self._save()
                show(self)
        except KeyboardInterrupt:
            pass
        finally:
            for worker in self.workers:
                worker.guarded.kill()
        self._end(show)

    def _over(self) -> bool:
        seconds, cases = self.settings.seconds, self.settings.cases
        return (seconds is not None and self.used >= seconds) or (
            cases is not None and self.counts()[0]["cases"] >= cases
        )

    def _end(self, show: Callable[["Session"], None]) -> None:
        """Take in what the workers leave; make the last findings small."""
        self._ended = time.monotonic()
        for worker in self.workers:
            self._absorb(worker.orders.number)
        self.workers = []
        if self.clerk is not None:  # it has more time than is left: begin that finding anew
            self.clerk[0].kill()
            self.clerk = None
        try:
            while self._look_after_clerk(SMALL_AT_END):
                time.sleep(STEP)
                show(self)
        except KeyboardInterrupt:  # what is not small yet is so when it is resumed
            if self.clerk is not None:
                self.clerk[0].kill()
        self._save()

    def _hire(self, place: int) -> None:
        number = self.state.next
        first, later = (self.state.first, ()) if not self.workers else ((), self.state.first)
        self.state = self.state.model_copy(update={"next": number + 1, "first": later})
        self._save()
        orders = Orders(
            self.settings.task,
            self.settings.laws,
            self.settings.waived,
            self.folder,
            number,
            place,
            self.settings.seed,
            tuple(self.records),
            first,
        )
        self.workers.append(Worker(orders, self.settings.memory))

    def _look_after_workers(self) -> None:
        for worker in list(self.workers):
            death = worker.watch(self.settings.limit)
            if death is not None:
                self._bury(worker, death)

    def _bury(self, worker: Worker, death: Death) -> None:
        """Take in what a worker left, and hire another in its place."""
        self.workers.remove(worker)
        number = worker.orders.number
        done = self._absorb(number, death)
        error = error_path(self.folder, number)
        self.failed = 0 if done else self.failed + 1
        if worker.guarded.process.exitcode == BAD_DISK:
            raise UsageError(f"{self.folder}: a worker could not write to it; is the disk full?")
        if self.failed >= FAILED:
            why = error.read_text(encoding="utf-8").splitlines()[-1] if error.exists() else death.kind
            raise UsageError(f"{self.settings.loss}: workers end before their first case: {why}")
        left = worker.orders.first[done:]  # the one that it died of is told already
        self.state = self.state.model_copy(
            update={"restarts": self.state.restarts + 1, "first": (*left, *self.state.first)}
        )
        self._hire(worker.orders.place)

    def _absorb(self, number: int, death: Death | None = None) -> int:
        """Add a worker's counts to the session's, once; of a case that it died of make a finding. How many it began."""
        path = journal_path(self.folder, number)
        try:
            journal = Journal(path)
        except (FileNotFoundError, BadFile):
            path.unlink(missing_ok=True)
            return 0
        named, kinds = self.counters.read(journal.counters)
        entry = journal.read()
        update: dict[str, Any] = {}
        if entry.text and death is not None:
            case, source = from_flight(entry.text)
            law = list(self.plan.laws.values())[named["law"]]
            write_raw(self.folder, self.settings.loss, Raw(died(death, law), case, source))
        elif entry.text:  # nobody knows whether it is to blame
            update["first"] = (*self.state.first, "\n" + entry.text.partition("\n")[2])
        del named["law"]
        if number not in self.state.absorbed:
            update["counts"] = dict(Counter(self.state.counts) + named)
            update["kinds"] = dict(Counter(self.state.kinds) + kinds)
            update["absorbed"] = (*self.state.absorbed, number)
        self.state = self.state.model_copy(update=update)
        self._save()
        journal.close()
        path.unlink(missing_ok=True)
        return named["first"] + bool(entry.text) if named["first"] or entry.text else named["cases"]

    def _recover(self) -> None:
        """Take in what the workers of a session that was killed left."""
        for path in sorted((self.folder / "journal").glob("*.journal")):
            number = int(path.stem)
            self.state = self.state.model_copy(update={"next": max(self.state.next, number + 1)})
            self._absorb(number)

    # The clerk

    def _look_after_clerk(self, seconds: float) -> bool:
        """Give it the next finding; whether there is something left to do."""
        if self.clerk is not None:
            guarded, path = self.clerk
            if guarded.alive:
                return True
            guarded.process.join()
            self._take_record(path)
            self.clerk = None
        waiting = sorted((self.folder / "raw").glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in waiting:
            if path.stem in self.records:  # two workers found it at once, or it was known before
                path.unlink()
                continue
            law = read_raw(path).told.law
            same = sum(record.finding is not None and record.finding.law == law for record in self.records.values())
            duty = Duty(
                self.settings.task,
                self.settings.laws,
                self.settings.waived,
                self.folder,
                self.settings.options,
                seconds if same < EACH else 0.0,
            )
            self.clerk = Guarded(attend, (duty, path), 2**30), path
            return True
        return False

    def _take_record(self, path: Path) -> None:
        """What the clerk wrote of a finding; if nothing, it died, and the finding is kept as it was found."""
        known = record_path(self.folder, path.stem)
        if not known.exists():
            write_record(self.folder, self._unconfirmed(path))
        self.records[path.stem] = Record.model_validate_json(known.read_bytes())
        path.unlink(missing_ok=True)

    def _unconfirmed(self, path: Path) -> Record:
        from yololoss import _suite  # noqa: PLC0415
        from yololoss.harness.finding import keep  # noqa: PLC0415

        raw = read_raw(path)
        broken = raw.told.broken(_suite.laws()[raw.told.law], raw.case)
        broken.repeats = False
        subject = self.settings.task.under_test()
        return Record(
            kind=path.stem,
            finding=keep(broken, subject, self.folder / "findings", self.settings.options, drawn=False),
        )

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.state = self.state.model_copy(update={"used": self.used})
        write_whole(self.folder / "session.json", self.state.model_dump_json(indent=1))


def begin(folder: Path, settings: Settings, first: tuple[str, ...] = ()) -> Session:
    """A new session in a folder; what is known there stays known."""
    path = folder / "session.json"
    if path.exists():
        raise UsageError(f"{folder}: it holds a session already; --resume goes on with it, or give another --out")
    seed = settings.seed or secrets.randbits(32)
    return Session(folder, State(settings=settings.model_copy(update={"seed": seed}), first=first))


def resume(folder: Path, **changed: Any) -> Session:
    """Go on with a session; ``changed`` settings may be other than they were. Raises BadFile where there is none."""
    path = folder / "session.json"
    try:
        state = State.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}; there is no session to resume") from error
    except ValueError as error:
        raise BadFile(f"{path}: no session: {str(error).splitlines()[0]}") from error
    settings = state.settings.model_copy(update={name: value for name, value in changed.items() if value is not None})
    return Session(folder, state.model_copy(update={"settings": settings}))
