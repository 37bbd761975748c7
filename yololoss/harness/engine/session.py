"""A session: watches and replaces workers, runs a clerk, keeps time and counts. Everything is on disk.

Every finding is in a file before it is reported, and every file is complete or absent. So any process may be killed at
any moment, and a resumed session continues from these files:

    session.json   settings, seed, counts, time used
    journal/       one file for each worker: its counts, the case in flight
    raw/           failing cases as they were found
    known/         the clerk's record of each, by fingerprint
    findings/      minimised cases, and pictures
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yololoss.harness.cases.files import read_file, write_whole
from yololoss.harness.engine.clerk import Duty, Record, attend, read_records, record_path, write_record
from yololoss.harness.engine.guard import Death, Guarded
from yololoss.harness.engine.handles import LocalWorker, StartWorker, WorkerHandle
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import died
from yololoss.harness.engine.plan import Counters, Plan
from yololoss.harness.engine.raw import Raw, from_flight, read_raw, write_raw
from yololoss.harness.engine.state import Settings, State
from yololoss.harness.engine.worker import BAD_DISK, Orders, error_path, journal_path
from yololoss.harness.errors import BadFile, UsageError

STEP = 0.05  # seconds between two checks of the workers
SAVED = 1.0  # seconds between two saves of the session
SMALL = 60.0  # seconds to minimise a finding in; for findings that wait at the end, SMALL_AT_END
SMALL_AT_END = 10.0
EACH = 3  # findings of one law that are minimised
FAILED = 3  # the session ends after so many workers in a row that ended before their first case


class Session:
    """Runs workers until the time or the cases are used up."""

    def __init__(self, folder: Path, state: State, start_worker: StartWorker = LocalWorker) -> None:
        self.folder, self.state, self._make_worker = folder, state, start_worker
        self.settings = state.settings
        self.subject = self.settings.task.under_test()
        self.plan = Plan(self.settings.laws, self.subject, self.settings.waived)
        if not self.plan.laws:
            raise UsageError("none of these laws can be fuzzed on this loss and device")
        self.counters = Counters(self.plan)
        for name in ("journal", "raw", "known", "findings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.records: dict[str, Record] = read_records(folder)
        self.workers: list[WorkerHandle] = []
        self.clerk: tuple[Guarded, Path] | None = None
        self.failed = 0
        self._base = state.used
        self._start = self._saved = time.monotonic()
        self._ended: float | None = None
        self._recover()

    # Its state

    @property
    def used(self) -> float:
        """Seconds used, including those before the session was resumed."""
        return self._base + (self._ended or time.monotonic()) - self._start

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Counts by name, and by fingerprint, of all workers so far."""
        named, kinds = Counter(self.state.counts), Counter(self.state.kinds)
        for worker in self.workers:
            if worker.journal is not None:
                more, seen = self.counters.read(worker.journal.counters)
                named, kinds = named + more, kinds + seen
        return named, kinds

    @property
    def findings(self) -> dict[str, Record]:
        """The records of confirmed findings, by fingerprint."""
        return {kind: record for kind, record in self.records.items() if record.finding is not None}

    # What it does

    def run(self, show: Callable[["Session"], None]) -> None:
        """Run the session to its end. Ctrl-C ends it early, and what was found is kept."""
        try:
            for place in range(self.settings.workers):
                self._start_worker(place)
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
                worker.end()
        self._end(show)

    def _over(self) -> bool:
        seconds, cases = self.settings.seconds, self.settings.cases
        return (seconds is not None and self.used >= seconds) or (
            cases is not None and self.counts()[0]["cases"] >= cases
        )

    def _end(self, show: Callable[["Session"], None]) -> None:
        """Read what the workers left, and minimise the last findings."""
        self._ended = time.monotonic()
        for worker in self.workers:
            self._absorb(worker.orders.number)
        self.workers = []
        self._dismiss_clerk()  # it was given more time than is left: its finding is minimised again, in less time
        try:
            while self._look_after_clerk(SMALL_AT_END):
                time.sleep(STEP)
                show(self)
        except KeyboardInterrupt:  # a resumed session minimises the rest
            self._dismiss_clerk()
        self._save()

    def _start_worker(self, place: int) -> None:
        number, first = self.state.next, self.state.first
        given = {**self.state.given, number: first} if first else self.state.given
        self.state = self.state.model_copy(update={"next": number + 1, "first": (), "given": given})
        self._save()
        orders = Orders(
            self.settings.task,
            self.settings.laws,
            self.settings.waived,
            self.folder,
            number,
            place,
            self.settings.seed,
            tuple(self.findings),
            first,
            self.settings.workers,
        )
        self.workers.append(self._make_worker(orders))

    def _look_after_workers(self) -> None:
        for worker in list(self.workers):
            death = worker.watch()
            if death is not None:
                self._replace(worker, death)

    def _replace(self, worker: WorkerHandle, death: Death) -> None:
        """Read what a worker left, and start another one in its place."""
        self.workers.remove(worker)
        number = worker.orders.number
        done = self._absorb(number, death)
        error = error_path(self.folder, number)
        self.failed = 0 if done else self.failed + 1
        if death.status == BAD_DISK:
            raise UsageError(f"{self.folder}: a worker could not write to it; is the disk full?")
        if self.failed >= FAILED:
            why = error.read_text(encoding="utf-8").splitlines()[-1] if error.exists() else death.kind
            raise UsageError(f"{self.settings.loss}: workers end before their first case: {why}")
        self.state = self.state.model_copy(update={"restarts": self.state.restarts + 1})
        self._start_worker(worker.orders.place)

    def _absorb(self, number: int, death: Death | None = None) -> bool:
        """Add a worker's counts to the session's, once. If it died on a case, write that as a finding.

        Returns whether the worker began any case.
        """
        path = journal_path(self.folder, number)
        try:
            journal = Journal(path)
        except (FileNotFoundError, BadFile):
            path.unlink(missing_ok=True)
            self._take_back(number, 0)
            return False
        named, kinds = self.counters.read(journal.counters)
        entry = journal.read()
        journal.close()
        if number not in self.state.absorbed:
            if entry.text and death is not None:
                case, source = from_flight(entry.text, self.subject.family.case)
                law = list(self.plan.laws.values())[named["law"]]
                write_raw(self.folder, self.settings.loss, Raw(died(death, law), case, source))
            self._take_back(number, named["first"], entry.text, told=death is not None)
            del named["law"]
            update = {
                "counts": dict(Counter(self.state.counts) + named),
                "kinds": dict(Counter(self.state.kinds) + kinds),
                "absorbed": (*self.state.absorbed, number),
            }
            self.state = self.state.model_copy(update=update)
            self._save()
        path.unlink(missing_ok=True)
        return bool(named["cases"] or entry.text)

    def _take_back(self, number: int, judged: int, in_flight: str = "", *, told: bool = False) -> None:
        """Queue again the given cases that a worker did not judge, and the case in flight unless it is a finding."""
        given = dict(self.state.given)
        left = given.pop(number, ())[judged:]
        if in_flight and told:
            left = left[1:]
        elif in_flight and not left:  # a case that it made; it may have ended the worker
            left = ("\n" + in_flight.partition("\n")[2],)
        self.state = self.state.model_copy(update={"given": given, "first": (*left, *self.state.first)})

    def _recover(self) -> None:
        """Read what the workers of a killed session left."""
        left = {int(path.stem) for path in (self.folder / "journal").glob("*.journal")}
        for number in sorted(left | self.state.given.keys()):
            self.state = self.state.model_copy(update={"next": max(self.state.next, number + 1)})
            self._absorb(number)

    # The clerk

    def _look_after_clerk(self, seconds: float) -> bool:
        """Give the clerk the next finding. Returns whether it has work."""
        if self.clerk is not None:
            guarded, path = self.clerk
            if guarded.alive:
                return True
            guarded.process.join()
            self._take_record(path)
            self.clerk = None
        waiting = sorted((self.folder / "raw").glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in waiting:
            if path.stem in self.findings:  # two workers found it, or it was known before
                path.unlink()
                continue
            try:
                law = read_raw(path).told.law
            except BadFile:  # not written by the harness: keep it under another name, for a person to look at
                path.replace(path.with_suffix(".unreadable"))
                continue
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

    def _dismiss_clerk(self) -> None:
        """End the clerk, and read the record if it has written one."""
        if self.clerk is None:
            return
        guarded, path = self.clerk
        guarded.kill()
        self.clerk = None
        if record_path(self.folder, path.stem).exists():
            self._take_record(path)

    def _take_record(self, path: Path) -> None:
        """Read the clerk's record of a finding. If there is none, the clerk died: keep the finding as it was found."""
        known = record_path(self.folder, path.stem)
        if not known.exists():
            write_record(self.folder, self._unconfirmed(path))
        self.records[path.stem] = read_file(known, Record)
        if self.records[path.stem].finding is None:
            self.state = self.state.model_copy(update={"unexplained": self.state.unexplained + 1})
        path.unlink(missing_ok=True)

    def _unconfirmed(self, path: Path) -> Record:
        from yololoss.harness.findings.finding import keep  # noqa: PLC0415
        from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

        raw = read_raw(path)
        broken = raw.told.broken(find_laws(self.subject.family)[raw.told.law], raw.case)
        broken.repeats = False
        return Record(
            kind=path.stem,
            finding=keep(broken, self.subject, self.folder / "findings", self.settings.options, drawn=False),
        )

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.state = self.state.model_copy(update={"used": self.used})
        write_whole(self.folder / "session.json", self.state.model_dump_json(indent=1))


def begin(
    folder: Path,
    settings: Settings,
    first: tuple[str, ...] = (),
    start_worker: StartWorker = LocalWorker,
) -> Session:
    """Start a new session in a folder. Findings that the folder has are kept. Raises UsageError."""
    path = folder / "session.json"
    if path.exists():
        raise UsageError(f"{folder}: already has a session; continue it with --resume, or give another --out")
    seed = settings.seed or secrets.randbits(32)
    return Session(folder, State(settings=settings.model_copy(update={"seed": seed}), first=first), start_worker)


def resume(folder: Path, start_worker: StartWorker = LocalWorker, **changed: Any) -> Session:
    """Continue a session; ``changed`` has settings to replace. Raises BadFile if there is none."""
    path = folder / "session.json"
    try:
        state = read_file(path, State)
    except BadFile as error:
        raise BadFile(f"{error}; there is no session to resume") from error
    settings = state.settings.model_copy(update={name: value for name, value in changed.items() if value is not None})
    return Session(folder, state.model_copy(update={"settings": settings}), start_worker)
