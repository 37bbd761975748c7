"""A session: watches and replaces workers, runs a clerk, keeps time and counts. Everything is on disk.

Every finding is in a file before it is reported, and every file is complete or absent. So any process may be killed at
any moment, and a resumed session continues from these files:

    session.json   settings, seed, counts, time used
    journal/       one file for each worker: its counts, the case in flight
    notes/         one file for each worker: what its laws noted
    raw/           failing cases as they were found
    known/         the clerk's record of each, by fingerprint
    findings/      minimised cases, and pictures
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import RootModel

from yololoss.harness.cases.files import read_file, write_whole
from yololoss.harness.cases.vectors import make_vector
from yololoss.harness.engine.clerk import Duty, Record, attend, give_up, read_records, record_path
from yololoss.harness.engine.faults import behind
from yololoss.harness.engine.guard import Death, Guarded
from yololoss.harness.engine.handles import LocalWorker, StartWorker, WorkerHandle
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import died
from yololoss.harness.engine.plan import KINDS, OWN, Counters, Counts, Plan
from yololoss.harness.engine.raw import Raw, from_flight, read_raw, write_raw
from yololoss.harness.engine.residual import Risk, residual
from yololoss.harness.engine.state import Settings, State
from yololoss.harness.engine.worker import BAD_DISK, TOLD, Orders, error_path, journal_path
from yololoss.harness.errors import BadFile, UsageError, short
from yololoss.harness.findings.finding import Finding
from yololoss.harness.laws.law import find_laws

STEP = 0.05  # seconds between two checks of the workers
SAVED = 1.0  # seconds between two saves of the session
SMALL = 60.0  # seconds to minimise a finding in; for findings that wait at the end, SMALL_AT_END
SMALL_AT_END = 10.0
EACH = 3  # findings of one law that are minimised
PATIENCE = 10  # a gate ends after so many cases that ended a worker or did not return
FAILED = 3  # the session ends after so many workers in a row that ended before their first case


class Notes(RootModel[dict[str, dict[str, dict[str, int]]]]):
    """What a worker noted, by law: see `Session.told`."""


class Session:
    """Runs workers until the time or the cases are used up."""

    def __init__(self, folder: Path, state: State, start_worker: StartWorker = LocalWorker) -> None:
        self.folder, self.state, self._make_worker = folder, state, start_worker
        self.settings = state.settings
        self.subject = self.settings.under_test()
        self.plan = Plan(self.settings.laws, self.subject)
        if not self.plan.laws:
            raise UsageError("none of these laws applies to this loss and device")
        self.counters = Counters(self.plan)
        for name in ("journal", "notes", "raw", "known", "findings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._every_law = find_laws(self.subject.family)
        self.records: dict[str, Record] = read_records(folder)
        for kind, record in self.records.items():
            self._must_be_own(record_path(folder, kind), record.finding)
        self.workers: list[WorkerHandle] = []
        self.clerks: dict[Path, tuple[Guarded, str]] = {}  # by the finding that each minimises, with its law
        self.failed = 0
        self.interrupted = False
        self._saved = time.monotonic()
        self._start = self._saved - state.used
        self._ended: float | None = None
        self._recover()
        reached = self.state.reached
        if reached and len(reached) != self.settings.workers:  # another number of workers than before shares the rest
            self.state.reached = {place: max(reached.values()) + place for place in range(self.settings.workers)}

    def _must_be_own(self, path: Path, finding: Finding | None) -> None:
        """Raise BadFile for a record that this session cannot have written: a report would show any file it names."""
        if finding is not None:
            if finding.law not in self._every_law:
                raise BadFile(f"{path}: finding.law: {short(finding.law)}: no such law")
            own = self.settings.findings_in(self.folder).resolve()
            for name in filter(None, (finding.path, finding.picture)):
                if not Path(name).resolve().is_relative_to(own):
                    raise BadFile(f"{path}: {short(name)}: not in the session's folder")

    # Its state

    @property
    def used(self) -> float:
        """Seconds used, including those before the session was resumed."""
        return (self._ended or time.monotonic()) - self._start

    def counts(self) -> Counts:
        """The counts of all workers so far."""
        journals = (worker.journal for worker in self.workers if worker.journal is not None)
        return sum((self.counters.read(journal.counters) for journal in journals), self.state.counts)

    def risk(self) -> Risk | None:
        """How likely the next case shows a new kind of finding; None if that cannot be estimated."""
        counts = self.counts()
        return None if len(counts.kinds) >= KINDS else residual(counts.alone, counts.named["fresh"])

    def told(self) -> dict[str, dict[str, Counter[str]]]:
        """By law: what it noted in all workers, why it did not apply, and what explained that it broke."""
        found = {id: {name: Counter[str]() for name in TOLD} for id in self.plan.laws}
        for path in sorted((self.folder / "notes").glob("*.json")):
            for id, told in read_file(path, Notes).root.items():
                for name in TOLD if id in found else ():
                    found[id][name].update(told.get(name, {}))
        return found

    @property
    def findings(self) -> dict[str, Finding]:
        """Confirmed findings, by fingerprint."""
        return {kind: record.finding for kind, record in self.records.items() if record.finding is not None}

    # What it does

    def run(self, show: Callable[["Session"], object]) -> None:
        """Run the session to its end. Ctrl-C ends it early, and what was found is kept. So does a true ``show``."""
        try:
            for place in range(self.settings.workers):
                self._start_worker(place)
            while self.workers and not (self._out_of_time() or self._out_of_patience() or self._safe_enough()):
                time.sleep(STEP)
                self._look_after_workers()
                self._look_after_clerks(SMALL)
                if time.monotonic() - self._saved > SAVED:
                    self._save()
                if show(self):
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            for worker in self.workers:
                worker.end()
        self._end(show)

    def _out_of_time(self) -> bool:
        return self.settings.seconds is not None and self.used >= self.settings.seconds

    def _out_of_patience(self) -> bool:
        """Whether cases of a gate ended its workers, or hung, so often that the rest would take hours."""
        return self.settings.gate and self.state.restarts + self.counts().named["hung"] >= PATIENCE

    @property
    def stopped(self) -> str:
        """Why not all cases of a gate were judged; "" if they were."""
        if not self._out_of_patience():
            return ""
        many = f"{PATIENCE} cases ended their process or did not return"
        return f"cut short: {many}; {self.counts().named['cases']} of {self.settings.cases} cases were judged"

    def _safe_enough(self) -> bool:
        """Whether new findings are as unlikely as the settings ask."""
        if self.settings.until_risk is None:
            return False
        risk = self.risk()
        return risk is not None and risk.at_most <= self.settings.until_risk

    def _end(self, show: Callable[["Session"], object]) -> None:
        """Read what the workers left, and minimise the last findings."""
        if self.settings.seconds is not None:
            self._ended = time.monotonic()
        for worker in self.workers:
            self._absorb(worker.orders.number)
        self.workers = []
        if self._out_of_time():
            self._dismiss_clerks()  # they have more time than is left: their findings are minimised again, in less time
        try:
            while self._look_after_clerks(SMALL_AT_END) and not show(self):
                time.sleep(STEP)
        except KeyboardInterrupt:  # a resumed session minimises the rest
            self.interrupted = True
        self._dismiss_clerks()
        show(self)
        self._ended = self._ended or time.monotonic()
        self._save()

    def _start_worker(self, place: int) -> None:
        state, settings = self.state, self.settings
        number, start = state.next, state.reached.get(place, place)
        waiting = settings.workers - place if not state.reached else 1  # workers that share the given cases
        share = -(-len(state.first) // waiting)
        first, state.first = state.first[:share], state.first[share:]
        state.running[number] = place, start, settings.workers, first
        state.next += 1
        self._save()
        broken = tuple(id for id in self.plan.laws if state.counts.named[f"broke {id}"])
        spoilt = state.counts.named["spoilt"] > 0
        orders = Orders(settings, self.folder, number, place, start, tuple(self.findings), first, broken, spoilt)
        self.workers.append(self._make_worker(orders))

    def _look_after_workers(self) -> None:
        for worker in list(self.workers):
            death = worker.watch()
            if death is not None:
                self._replace(worker, death)

    def _replace(self, worker: WorkerHandle, death: Death) -> None:
        """Read what a worker left, and start another one in its place, if there are cases left for it."""
        self.workers.remove(worker)
        number, place, cases = worker.orders.number, worker.orders.place, self.settings.cases
        done = self._absorb(number, death)
        no_more = not self.plan.domains or (cases is not None and self.state.reached.get(place, place) >= cases)
        if no_more and not self.state.first and death.ended:
            return
        error = error_path(self.folder, number)
        self.failed = 0 if done else self.failed + 1
        if death.status == BAD_DISK:
            raise UsageError(f"{self.folder}: a worker could not write to it; is the disk full?")
        if self.failed >= FAILED:
            why = error.read_text(encoding="utf-8").splitlines()[-1] if error.exists() else death.kind
            said = why.removeprefix(f"{UsageError.__module__}.{UsageError.__name__}: ")
            raise UsageError(f"{self.settings.loss}: workers end before their first case: {said}")
        self.state.restarts += 1
        self._start_worker(place)

    def _absorb(self, number: int, death: Death | None = None) -> bool:
        """Add a worker's counts to the session's, once. If it died on a case, write that as a finding.

        Returns whether the worker began any case.
        """
        path, state = journal_path(self.folder, number), self.state
        try:
            journal = Journal(path)
        except (FileNotFoundError, BadFile):
            path.unlink(missing_ok=True)
            *_, given = state.running.pop(number, ((),))
            state.first = (*given, *state.first)
            return False
        counts = self.counters.read(journal.counters)
        named = counts.named
        entry = journal.read()
        journal.close()
        if number in state.running:
            place, start, crew, given = state.running[number]
            at = start + crew * named["made"]
            if entry.text and death is not None:
                case, source = from_flight(entry.text, self.subject.family.case)
                law = list(self.plan.laws.values())[named["law"]]
                write_raw(self.folder, self.settings.loss, Raw(died(death, law), case, source, at - crew))
            left = _left(given, named["first"], entry.text, told=death is not None)
            del named["law"]
            state.counts += counts
            state.first = (*left, *state.first)
            state.reached[place] = at
            del state.running[number]
            self._save()
        path.unlink(missing_ok=True)
        return bool(named["cases"] or entry.text)

    def _recover(self) -> None:
        """Read what the workers of a killed session left."""
        left = {int(path.stem) for path in (self.folder / "journal").glob("*.journal") if path.stem.isdecimal()}
        for number in sorted(left | self.state.running.keys()):
            self.state.next = max(self.state.next, number + 1)
            self._absorb(number)

    # The clerks

    def _look_after_clerks(self, seconds: float) -> bool:
        """Give clerks the next findings: one while workers run, then as many as there were. Returns whether any works.

        Findings of the earliest law come first. Of a gate's findings of one law, or of one kind if it tells several
        apart, only the earliest case's is minimised, once all workers are beyond that case: so every run of the gate
        shows the same ones.
        """
        for path, (guarded, _) in list(self.clerks.items()):
            if not guarded.alive:
                guarded.process.join()
                self._take_record(path)
                del self.clerks[path]
        room = (1 if self.workers else self.settings.workers) - len(self.clerks)
        for path, raw in self._waiting()[:room] if room else ():
            small = self.settings.shrink and self._known(raw.told.law) < EACH
            duty = Duty(self.settings, self.folder, seconds if small else 0.0)
            self.clerks[path] = Guarded(attend, (duty, path), 2**30), raw.told.law
        return bool(self.clerks)

    def _waiting(self) -> list[tuple[Path, Raw]]:
        """The findings that no clerk has, the earliest law first."""
        found: list[tuple[Path, Raw]] = []
        for path in (self.folder / "raw").glob("*.json"):
            if path.stem in self.findings:  # two workers found it, or it was known before
                path.unlink()
            elif path not in self.clerks:
                try:
                    raw = read_raw(path)
                    if raw.told.law not in self._every_law:
                        raise BadFile(f"{path}: {raw.told.law}: no such law")
                    found.append((path, raw))
                except BadFile:  # not written by the harness: keep it under another name, for a person to look at
                    path.replace(path.with_suffix(".unreadable"))
        found.sort(key=lambda each: (self.plan.number.get(each[1].told.law, 0), each[1].number))
        explained = [each for each in found if each[1].told.explained]
        found = [each for each in found if not each[1].told.explained]
        if explained and not (found or self.workers or self.clerks):
            found = self._unexplained(explained)
        return self._earliest(found) if self.settings.gate else found

    def _unexplained(self, explained: list[tuple[Path, Raw]]) -> list[tuple[Path, Raw]]:
        """Of findings that an earlier law explains, the first of each such law that has no finding. Deletes the others.

        That law broke on a case that this one derived from its own, and on no case of the session.
        """
        known = {record.explained for record in self.records.values()} | {*self.settings.waived}
        known |= {finding.law for finding in self.findings.values()}
        causes = {law: told["explained"] for law, told in self.told().items()}
        kept: dict[str, tuple[Path, Raw]] = {}
        for path, raw in explained:
            law = raw.told.explained
            if law in kept or not (behind(raw.told.law, causes) | behind(law, causes)).isdisjoint(known):
                path.unlink()
            else:
                kept[law] = path, raw
        return list(kept.values())

    def _earliest(self, found: list[tuple[Path, Raw]]) -> list[tuple[Path, Raw]]:
        """Of a gate's findings, the one of the earliest case for each law that has none. Deletes the others.

        If the law tells several kinds apart, up to `EACH` of them have one.
        """
        passed = min((self._at(worker) for worker in self.workers), default=None)
        kept: list[tuple[Path, Raw]] = []
        for path, raw in found:
            law = raw.told.law
            most = EACH if raw.told.kind else 1
            has = self._known(law) + sum(law == other for _, other in self.clerks.values())
            has += sum(law == other.told.law for _, other in kept)
            if has >= most:
                path.unlink()
            elif passed is None or raw.number < passed:
                kept.append((path, raw))
        return kept

    def _at(self, worker: WorkerHandle) -> int:
        """The number of the case that a worker is at."""
        made = 0 if worker.journal is None else self.counters.read(worker.journal.counters).named["made"]
        return worker.orders.start + worker.orders.settings.workers * max(made - 1, 0)

    def _known(self, law: str) -> int:
        """How many findings there are of a law."""
        return sum(finding.law == law for finding in self.findings.values())

    def _dismiss_clerks(self) -> None:
        """End the clerks, and read the records that they have written."""
        for path, (guarded, _) in self.clerks.items():
            guarded.kill()
            if record_path(self.folder, path.stem).exists():
                self._take_record(path)
        self.clerks = {}

    def _take_record(self, path: Path) -> None:
        """Read the clerk's record of a finding. If there is none, the clerk died: keep the finding as it was found."""
        known = record_path(self.folder, path.stem)
        if not known.exists():
            give_up(Duty(self.settings, self.folder, 0.0), path, self.subject)
        self.records[path.stem] = read_file(known, Record)
        if self.records[path.stem].finding is None:
            self.state.unexplained += 1
        path.unlink(missing_ok=True)

    def _save(self) -> None:
        self._saved = time.monotonic()
        self.state.used = self.used
        write_whole(self.folder / "session.json", self.state.model_dump_json(indent=1))


def _left(given: tuple[str, ...], begun: int, in_flight: str, *, told: bool) -> tuple[str, ...]:
    """The given cases that a worker did not begin, and the case in flight unless it is a finding."""
    if not in_flight:
        return given[begun:]
    case = in_flight.partition("\n")[2]
    again = next((vector for vector in given if case in vector), f'{{"id":"in-flight","case":{case}}}')
    return (*(() if told else (again,)), *(vector for vector in given[begun:] if case not in vector))


def begin(
    folder: Path, settings: Settings, first: tuple[str, ...] = (), start_worker: StartWorker = LocalWorker
) -> Session:
    """Start a new session in a folder. Findings that the folder has are kept. Raises UsageError."""
    path = folder / "session.json"
    if path.exists():
        raise UsageError(f"{folder}: already has a session; continue it with --resume, or give another --out")
    seed = settings.seed or secrets.randbits(32)
    made = Session(folder, State(settings=replace(settings, seed=seed), first=first), start_worker)
    if settings.cases != 0:  # laws that draw no cases have their own
        own = (make_vector(case, id=OWN).model_dump_json() for case in made.plan.own_cases())
        made.state.first = (*first, *own)
    return made


def resume(folder: Path, start_worker: StartWorker = LocalWorker, **changed: Any) -> Session:
    """Continue a session; ``changed`` has settings to replace. Raises BadFile if there is none."""
    path = folder / "session.json"
    try:
        state = read_file(path, State)
    except BadFile as error:
        raise BadFile(f"{error}; there is no session to resume") from error
    if state.settings.modules or state.settings.findings:  # files that are imported, a folder elsewhere
        raise BadFile(f"{path}: settings: modules and findings are those of a check, which cannot be resumed")
    given = {name: value for name, value in changed.items() if value is not None}
    state.settings = replace(state.settings, **given)
    return Session(folder, state, start_worker)
