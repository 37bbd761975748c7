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

from yololoss.harness.cases.files import read_file, write_whole
from yololoss.harness.engine.clerk import Duty, Record, attend, read_records, record_path, write_record
from yololoss.harness.engine.guard import Death, Guarded
from yololoss.harness.engine.hired import Here, Hired
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import died
from yololoss.harness.engine.plan import Counters, Plan
from yololoss.harness.engine.raw import Raw, from_flight, read_raw, write_raw
from yololoss.harness.engine.state import Settings, State
from yololoss.harness.engine.worker import BAD_DISK, Orders, error_path, journal_path
from yololoss.harness.errors import BadFile, UsageError

STEP = 0.05  # seconds between two looks at the workers
SAVED = 1.0  # seconds between two savings of the session
SMALL = 60.0  # seconds to make a finding small in; of those that wait at the end, a few
SMALL_AT_END = 10.0
EACH = 3  # findings of one law that are made small
FAILED = 3  # workers in a row that end before their first case: then none will do better


class Session:
    """Runs workers until the time or the cases are used up."""

    def __init__(self, folder: Path, state: State, hire: Callable[[Orders], Hired] = Here) -> None:
        self.folder, self.state, self._put_to_work = folder, state, hire
        self.settings = state.settings
        self.subject = self.settings.task.under_test()
        self.plan = Plan(self.settings.laws, self.subject, self.settings.waived)
        if not self.plan.laws:
            raise UsageError("none of these laws can be fuzzed on this loss and device")
        self.counters = Counters(self.plan)
        for name in ("journal", "raw", "known", "findings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.records: dict[str, Record] = read_records(folder)
        self.workers: list[Hired] = []
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
                worker.end()
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
        self._dismiss_clerk()  # it has more time than is left: that finding is begun anew
        try:
            while self._look_after_clerk(SMALL_AT_END):
                time.sleep(STEP)
                show(self)
        except KeyboardInterrupt:  # what is not small yet is so when it is resumed
            self._dismiss_clerk()
        self._save()

    def _hire(self, place: int) -> None:
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
        self.workers.append(self._put_to_work(orders))

    def _look_after_workers(self) -> None:
        for worker in list(self.workers):
            death = worker.watch()
            if death is not None:
                self._bury(worker, death)

    def _bury(self, worker: Hired, death: Death) -> None:
        """Take in what a worker left, and hire another in its place."""
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
        self._hire(worker.orders.place)

    def _absorb(self, number: int, death: Death | None = None) -> bool:
        """Add a worker's counts to the session's, once; of a case that it died of make a finding. Did it begin any?"""
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
        """Of the cases that a worker was given the rest; the one in flight as well, if nobody told of it."""
        given = dict(self.state.given)
        left = given.pop(number, ())[judged:]
        if in_flight and told:
            left = left[1:]
        elif in_flight and not left:  # one of its own; nobody knows whether it is to blame
            left = ("\n" + in_flight.partition("\n")[2],)
        self.state = self.state.model_copy(update={"given": given, "first": (*left, *self.state.first)})

    def _recover(self) -> None:
        """Take in what the workers of a session that was killed left."""
        left = {int(path.stem) for path in (self.folder / "journal").glob("*.journal")}
        for number in sorted(left | self.state.given.keys()):
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
            if path.stem in self.findings:  # two workers found it at once, or it was known before
                path.unlink()
                continue
            try:
                law = read_raw(path).told.law
            except BadFile:  # nothing of ours left it so: it is there to be looked at, and is in nobody's way
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
        """End it; what it has written down is taken in."""
        if self.clerk is None:
            return
        guarded, path = self.clerk
        guarded.kill()
        self.clerk = None
        if record_path(self.folder, path.stem).exists():
            self._take_record(path)

    def _take_record(self, path: Path) -> None:
        """What the clerk wrote of a finding; if nothing, it died, and the finding is kept as it was found."""
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
    folder: Path, settings: Settings, first: tuple[str, ...] = (), hire: Callable[[Orders], Hired] = Here
) -> Session:
    """A new session in a folder; what is known there stays known."""
    path = folder / "session.json"
    if path.exists():
        raise UsageError(f"{folder}: it holds a session already; --resume goes on with it, or give another --out")
    seed = settings.seed or secrets.randbits(32)
    return Session(folder, State(settings=settings.model_copy(update={"seed": seed}), first=first), hire)


def resume(folder: Path, hire: Callable[[Orders], Hired] = Here, **changed: Any) -> Session:
    """Go on with a session; ``changed`` settings may be other than they were. Raises BadFile where there is none."""
    path = folder / "session.json"
    try:
        state = read_file(path, State)
    except BadFile as error:
        raise BadFile(f"{error}; there is no session to resume") from error
    settings = state.settings.model_copy(update={name: value for name, value in changed.items() if value is not None})
    return Session(folder, state.model_copy(update={"settings": settings}), hire)
