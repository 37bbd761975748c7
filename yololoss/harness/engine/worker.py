"""A worker: makes cases, judges each by all laws about it, and writes each case to its journal before it runs it."""

import json
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.files import write_whole
from yololoss.harness.cases.vectors import Vector, kind
from yololoss.harness.devices.devices import DeviceLost
from yololoss.harness.engine.guard import UNWATCHED, is_watched
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import Told, assumes_in_vain, judged, lost, spoilt
from yololoss.harness.engine.plan import AGAIN, AGAIN_FOR_LONG, EARLY, OWN, Counters, Origin, Plan
from yololoss.harness.engine.raw import Raw, in_flight, write_raw
from yololoss.harness.engine.state import Settings
from yololoss.harness.laws.exam import Law, Run
from yololoss.harness.subjects.family import with_record

BAD_DISK = 74  # exit status of a worker that could not write
POOL = 64  # cases kept that lie in a rare region
VARIED = 0.4  # share of cases that are variations of an earlier one
TOLD = ("notes", "not_applicable", "explained")  # of a law's tally
PROBES = 2  # how often each law about bad input is looked after, in a process: it costs a run
NOTED = 1.0  # seconds between two writes of the notes


class Orders(NamedTuple):
    """What a worker needs to know."""

    settings: Settings
    folder: Path
    number: int  # of the worker; a worker that replaces another has a new number
    place: int  # index of its device
    start: int = 0  # number of its first case; it takes every so many-th one as there are workers
    known: tuple[str, ...] = ()  # fingerprints that are not written again
    first: tuple[str, ...] = ()  # vectors as JSON, to judge first
    broken: tuple[str, ...] = ()  # laws that broke in a worker before it, and nothing explained that
    spoilt: bool = False  # whether bad input spoilt the loss in a worker before it, so that it gets no more of it

    @property
    def largest(self) -> int:
        """Bytes that hold each of the given cases."""
        return max((len(text.encode()) for text in self.first), default=0)


def run(orders: Orders) -> None:
    """Judge cases until all are judged, or the process is killed."""
    try:
        worker = Worker(orders)
        while worker.more and is_watched(UNWATCHED * orders.settings.limit):
            worker.step()
        worker.write_notes()
    except OSError as error:
        sys.exit(BAD_DISK if error.errno else str(error))
    except Exception:
        error_path(orders.folder, orders.number).write_text(traceback.format_exc(), encoding="utf-8")
        raise


class Worker:
    """One worker's state: what it has seen, and the cases that it varies."""

    def __init__(self, orders: Orders) -> None:
        self.orders, self.settings = orders, orders.settings
        self.subject = self.settings.under_test(orders.place)
        self.plan = Plan(self.settings.laws, self.subject, AGAIN if self.settings.gate else AGAIN_FOR_LONG)
        for law in self.plan.laws.values():
            law.tally.clear()
        self.counters = Counters(self.plan)
        self.journal = Journal(journal_path(orders.folder, orders.number), self.counters.size, orders.largest)
        self.known = set(orders.known)
        self.kinds: dict[str, int] = {}
        self._fresh = 0  # 1 + the number of the case that it judges, unless that is given or varied
        self.guide = Guide(self.plan)
        self.first = deque(map(kind(self.subject.family.name).vector.model_validate_json, orders.first))
        self.number = orders.start  # of the next case
        self._broke = set(orders.broken)  # laws, where no earlier one explained it
        self._noted = time.monotonic()
        self._harmless: Counter[str] = Counter()  # by law: how often its bad input was seen to spoil nothing

    @property
    def more(self) -> bool:
        """Whether there is a case left for it."""
        return bool(self.first) or self._makes

    @property
    def _makes(self) -> bool:
        """Whether there is a case left that it makes."""
        return bool(self.plan.domains) and (self.settings.cases is None or self.number < self.settings.cases)

    def step(self) -> None:
        """Take a given case, or make one, and judge it. Ends the process if the device is lost."""
        chance = np.random.default_rng((self.settings.seed, self.number))
        waits = bool(self.first) and self.first[0].id == OWN and self.number < EARLY and self._makes
        if self.first and not waits:
            self._given(self.first.popleft(), chance)
        else:
            self._made(chance)
            self.number += self.settings.workers
        self.journal.counters[self.counters.at["milliseconds"]] = int(1000 * time.process_time())
        self.journal.write("")
        if time.monotonic() > self._noted + NOTED:
            self.write_notes()

    def _given(self, vector: Vector[Any, Any], chance: np.random.Generator) -> None:
        self._fresh = 0
        self._begin("first", vector.case, None)
        run = Run(with_record(self.subject, vector), vector.case)
        self._judge(run, self.plan.judges(vector.case, None, chance, vector.law or ""), None)
        self._count_regions(vector.case)

    def _made(self, chance: np.random.Generator) -> None:
        origin = self.plan.origin(self.number, chance) if self.settings.gate else self.guide.next(self.number, chance)
        case = self.plan.case(origin)
        self._fresh = 0 if self.guide.varies else self.number + 1
        self._begin("made", case, origin)
        self._count("fresh", self._fresh > 0)
        score = self._judge(Run(self.subject, case), self.plan.judges(case, origin.domain, chance), origin)
        self.guide.learn(origin, score, self._count_regions(case))

    def _begin(self, how: str, case: Case, origin: Origin | None) -> None:
        self.journal.write(in_flight(case, origin))
        self._count(how)
        self._count("cases")

    def _count_regions(self, case: Case) -> Sequence[str]:
        found = self.subject.family.regions_of(case)
        for region in found:
            self._count(f"region {region}")
        return found

    def _judge(self, run: Run, laws: list[Law], origin: Origin | None) -> dict[str, float]:
        """Judge a run by these laws. Returns each law's largest error as a share of the tolerance."""
        score: dict[str, float] = {}
        for law in laws:
            if (law.again and not run.answered) or (law.about_input and self.orders.spoilt):
                continue
            if (
                self.settings.gate
                and law.id in self._broke
                and not (law.several and law.id not in self.settings.waived)
            ):
                continue  # one finding of a law is enough, or one of each kind that it tells apart
            if law.tally.explained and assumes_in_vain(self.plan, law, run):
                continue
            self.journal.counters[self.counters.at["law"]] = self.plan.number[law.id]
            try:
                probed = law.about_input and self._harmless[law.id] < PROBES and run.trains
                broken, score[law.id] = judged(law, run, self.plan, self._broke)
            except DeviceLost as error:
                self._note(lost(law.id, error), run.case, origin)
                self.journal.write("")
                sys.exit(0)
            self._count(f"tried {law.id}")
            self._count(f"judged {law.id}", law.tally.judged)
            law.tally.judged = 0
            if broken is not None:
                self._note(broken, run.case, origin)
                self._note_causes(run, laws, origin)
            if probed:
                self._end_if_spoilt(law, run, origin)
        self._count("hung", run.hung)
        return score

    def _note_causes(self, run: Run, judging: Sequence[Law], origin: Origin | None) -> None:
        """Note earlier laws that broke here by themselves and are not known to, though the case was made for others."""
        for law in self.plan.laws.values():
            if law.everywhere and run.broke.get(law.id) and law.id not in self._broke and law not in judging:
                broken, _ = judged(law, run, self.plan, self._broke)
                if broken is not None and not broken.explained:
                    self._note(broken, run.case, origin)

    def _end_if_spoilt(self, law: Law, run: Run, origin: Origin | None) -> None:
        """After bad input that spoilt the loss for good, end the process: no other law can be judged in it."""
        found = spoilt(run)
        if found is None:
            self._harmless[law.id] += 1
            return
        self._note(found, run.case, origin)
        self._count("spoilt")
        self.journal.write("")
        sys.exit(0)

    def _note(self, broken: Told, case: Case, origin: Origin | None) -> None:
        """Count a broken law, and write the finding to a file if it is new.

        If an earlier law explains it, it is a finding only as long as that law has none: the session decides.
        """
        raw = Raw(broken, case, origin, self.number)
        if broken.explained:
            self.plan.laws[broken.law].tally.explained[broken.explained] += 1
        else:
            if broken.law in self.plan.laws:
                self._count(f"broke {broken.law}")
            self._broke.add(broken.law)
        if broken.law in self.settings.waived or broken.explained in self._broke:
            return
        if not broken.explained:
            self._count_kind(raw.kind)
        if raw.kind not in self.known:
            write_raw(self.orders.folder, self.settings.loss, raw)
            self.known.add(raw.kind)

    def _count_kind(self, kind: str) -> None:
        at = self.counters.kinds + 4 * self.kinds.setdefault(kind, len(self.kinds))
        if at < self.counters.size:
            self.journal.counters[at] = int(kind, 16)
            self.journal.counters[at + 1 : at + 4] += np.array((1, self._fresh > 0, self._fresh), np.uint64)

    def write_notes(self) -> None:
        """Write what the laws noted, and why they did not apply, for the table of laws."""
        self._noted = time.monotonic()
        notes = {id: {name: getattr(law.tally, name) for name in TOLD} for id, law in self.plan.laws.items()}
        write_whole(notes_path(self.orders.folder, self.orders.number), json.dumps(notes))

    def _count(self, name: str, more: int = 1) -> None:
        self.journal.counters[self.counters.at[name]] += np.uint64(more)


class Guide:
    """Chooses origins of cases: random ones, or variations of a case that came near a limit or lay in a rare region."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.best: dict[str, tuple[float, Origin]] = {}  # by law: the case that came nearest to breaking it
        self.rare: deque[Origin] = deque(maxlen=POOL)
        self.seen: dict[str, int] = {}
        self.varies = False  # whether the last case was a variation

    def next(self, number: int, chance: np.random.Generator) -> Origin:
        """What to make the next case from."""
        pool = [origin for _, origin in self.best.values()] + list(self.rare)
        self.varies = bool(pool) and chance.random() < VARIED
        if self.varies:
            return _varied(pool[chance.integers(len(pool))], chance)
        return self.plan.origin(number, chance)

    def learn(self, origin: Origin, score: dict[str, float], regions: Sequence[str]) -> None:
        """Keep a case that came nearer to breaking a law than any before, or that lies in a rare region."""
        for law, value in score.items():
            if 0 < value < 1 and value > self.best.get(law, (0.0, origin))[0]:
                self.best[law] = (value, origin)
        thin = sorted(self.seen.values())[: len(self.plan.regions) // 4]
        if any(self.seen.get(region, 0) <= (thin[-1] if thin else 0) for region in regions):
            self.rare.append(origin)
        for region in regions:
            self.seen[region] = self.seen.get(region, 0) + 1


def _varied(origin: Origin, chance: np.random.Generator) -> Origin:
    data = bytearray(origin.data)
    for at in chance.integers(len(data), size=chance.integers(1, 5)):
        data[at] = chance.integers(256)
    return Origin(origin.domain, bytes(data))


def journal_path(folder: Path, number: int) -> Path:
    """The path of a worker's journal."""
    return folder / "journal" / f"{number:06d}.journal"


def error_path(folder: Path, number: int) -> Path:
    """The file in which a worker writes the error that ended it, if no case did."""
    return folder / "journal" / f"{number:06d}.error"


def notes_path(folder: Path, number: int) -> Path:
    """The file of what the laws noted in a worker."""
    return folder / "notes" / f"{number:06d}.json"
