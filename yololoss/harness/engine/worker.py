"""A worker: makes cases, judges each by all laws about it, and writes each case to its journal before it runs it."""

import sys
import time
import traceback
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np

from yololoss.harness.cases.case import Case
from yololoss.harness.devices.devices import DeviceLost
from yololoss.harness.engine.guard import is_watched
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import Task, Told, judged, lost
from yololoss.harness.engine.plan import Counters, Origin, Plan
from yololoss.harness.engine.raw import Raw, in_flight, write_raw

BAD_DISK = 74  # exit status of a worker that could not write
POOL = 64  # cases kept that lie in a rare region
VARIED = 0.4  # share of cases that are variations of an earlier one
# After such an observation, laws that run the loss again skip the case: the loss gave no result, and would give none.
NO_ANSWER = ("raised", "did not return", "exited", "killed")


class Orders(NamedTuple):
    """What a worker needs to know."""

    task: Task
    laws: tuple[str, ...]
    waived: tuple[str, ...]
    folder: Path
    number: int  # of the worker; a worker that replaces another has a new number
    place: int  # index of its device
    seed: int
    known: tuple[str, ...]  # fingerprints that are not written again
    first: tuple[str, ...] = ()  # cases to judge first: the law that each is saved under, a line break, JSON
    crew: int = 1  # workers at the same time


def run(orders: Orders, cases: int | None = None) -> None:
    """Judge cases until the process is killed, or ``cases`` of them."""
    try:
        worker = Worker(orders)
        while (cases is None or worker.done < cases) and is_watched(2 * orders.task.limit):
            worker.step()
    except OSError as error:
        sys.exit(BAD_DISK if error.errno else str(error))
    except Exception:
        error_path(orders.folder, orders.number).write_text(traceback.format_exc(), encoding="utf-8")
        raise


class Worker:
    """One worker's state: what it has seen, and the cases that it varies."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.subject = orders.task.under_test(orders.place)
        self.plan = Plan(orders.laws, self.subject, orders.waived)
        self.chance = np.random.default_rng((orders.seed, orders.number))
        for law in self.plan.laws.values():
            law.tally.clear()
        self.counters = Counters(self.plan)
        self.journal = Journal(journal_path(orders.folder, orders.number), self.counters.size)
        self.known = set(orders.known)
        self.kinds: dict[str, int] = {}
        self.guide = Guide(self.plan, self.chance)
        self.first = deque(orders.first)
        self.done = 0

    def step(self) -> None:
        """Make a case and judge it. Ends the process if the device is lost."""
        origin: Origin | None = None
        saved_under = ""
        if self.first:
            saved_under, _, text = self.first.popleft().partition("\n")
            case = self.subject.family.case.model_validate_json(text)
        else:
            origin = self.guide.next()
            case = self.plan.case(origin)
        self.journal.write(in_flight(case, origin))
        score = self._judge(case, origin, saved_under)
        regions = self.plan.regions_of(case)
        for region in regions:
            self._count(f"region {region}")
        if origin is None:
            self._count("first")
        else:
            self.guide.learn(origin, score, regions)
        self._count("cases")
        self.journal.counters[self.counters.at["milliseconds"]] = int(1000 * time.process_time())
        self.done += 1
        self.journal.write("")

    def _judge(self, case: Case, origin: Origin | None, saved_under: str) -> dict[str, float]:
        """Judge the case by all laws about it. Returns each law's largest error as a share of the tolerance."""
        score: dict[str, float] = {}
        answered = True
        domain = None if origin is None else origin.domain
        for law in self.plan.judges(case, domain, self.chance, saved_under):
            if not answered and law.anew:
                continue
            self.journal.counters[self.counters.at["law"]] = self.plan.number[law.id]
            try:
                broken, nearest = judged(law, self.subject, case)
            except DeviceLost as error:
                self._note(lost(law.id, error), case, origin)
                self.journal.write("")
                sys.exit(0)
            self._count(f"tried {law.id}")
            self._count(f"judged {law.id}", law.tally.judged)
            law.tally.clear()
            score[law.id] = nearest
            if broken is not None:
                self._count(f"broke {law.id}")
                self._note(broken, case, origin)
                answered = answered and not broken.observed.startswith(NO_ANSWER)
        return score

    def _note(self, broken: Told, case: Case, origin: Origin | None) -> None:
        """Count a finding, and write it to a file if it is new."""
        raw = Raw(broken, case, origin)
        at = self.counters.kinds + 2 * self.kinds.setdefault(raw.kind, len(self.kinds))
        if at < self.counters.size:
            self.journal.counters[at] = int(raw.kind, 16)
            self.journal.counters[at + 1] += np.uint64(1)
        if raw.kind not in self.known:
            write_raw(self.orders.folder, self.orders.task.loss, raw)
            self.known.add(raw.kind)

    def _count(self, name: str, more: int = 1) -> None:
        self.journal.counters[self.counters.at[name]] += np.uint64(more)


class Guide:
    """Chooses origins of cases: random ones, or variations of a case that came near a limit or lay in a rare region."""

    def __init__(self, plan: Plan, chance: np.random.Generator) -> None:
        self.plan, self.chance = plan, chance
        self.best: dict[str, tuple[float, Origin]] = {}  # by law: the case that came nearest to breaking it
        self.rare: deque[Origin] = deque(maxlen=POOL)
        self.seen: dict[str, int] = {}

    def next(self) -> Origin:
        """What to make the next case from."""
        pool = [origin for _, origin in self.best.values()] + list(self.rare)
        if pool and self.chance.random() < VARIED:
            return self._varied(pool[self.chance.integers(len(pool))])
        domain = int(self.chance.choice(len(self.plan.domains), p=self.plan.weights))
        return Origin(domain, self.chance.bytes(self.plan.domains[domain].size))

    def _varied(self, origin: Origin) -> Origin:
        data = bytearray(origin.data)
        for at in self.chance.integers(len(data), size=self.chance.integers(1, 5)):
            data[at] = self.chance.integers(256)
        return Origin(origin.domain, bytes(data))

    def learn(self, origin: Origin, score: dict[str, float], regions: list[str]) -> None:
        """Keep a case that came nearer to breaking a law than any before, or that lies in a rare region."""
        for law, value in score.items():
            if 0 < value < 1 and value > self.best.get(law, (0.0, origin))[0]:
                self.best[law] = (value, origin)
        thin = sorted(self.seen.values())[: len(self.plan.regions) // 4]
        if any(self.seen.get(region, 0) <= (thin[-1] if thin else 0) for region in regions):
            self.rare.append(origin)
        for region in regions:
            self.seen[region] = self.seen.get(region, 0) + 1


def journal_path(folder: Path, number: int) -> Path:
    """The path of a worker's journal."""
    return folder / "journal" / f"{number:06d}.journal"


def error_path(folder: Path, number: int) -> Path:
    """The file in which a worker writes the error that ended it, if no case did."""
    return folder / "journal" / f"{number:06d}.error"
