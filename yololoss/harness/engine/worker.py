"""A worker: makes cases, judges each by all laws about it, and writes down what it is doing before it does it."""

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
POOL = 64  # cases that came nearest to a limit, or lie where few do
VARIED = 0.4  # share of cases that are varied from these
# What ends a law's interest in a case: the loss gave no answer, so laws that run it again would wait for it again.
NO_ANSWER = ("raised", "did not return", "exited", "killed")


class Orders(NamedTuple):
    """What a worker is told."""

    task: Task
    laws: tuple[str, ...]
    waived: tuple[str, ...]
    folder: Path
    number: int  # of the worker; a new one has a new number
    place: int  # which of the devices is its own
    seed: int
    known: tuple[str, ...]  # fingerprints not to be written down again
    first: tuple[str, ...] = ()  # cases to judge first: the law each is saved under, a line break, JSON
    crew: int = 1  # workers at once


def run(orders: Orders, cases: int | None = None) -> None:
    """Judge cases until killed, or so many."""
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
        """Make a case and judge it. Raises DeviceLost where no other can be judged in this process."""
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
        """Judge the case by all laws about it; the largest error of each as a share of what is allowed."""
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
        """Count a finding; write it down where it is new."""
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
    """Chooses what cases are made of: at random, or varied from one that came near a limit or lay where few do."""

    def __init__(self, plan: Plan, chance: np.random.Generator) -> None:
        self.plan, self.chance = plan, chance
        self.best: dict[str, tuple[float, Origin]] = {}  # of each law, the case that came nearest to breaking it
        self.rare: deque[Origin] = deque(maxlen=POOL)
        self.seen: dict[str, int] = {}

    def next(self) -> Origin:
        """What to make a case of."""
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
        """Remember a case that came nearer than any to breaking a law, or that lies in a thin region."""
        for law, value in score.items():
            if 0 < value < 1 and value > self.best.get(law, (0.0, origin))[0]:
                self.best[law] = (value, origin)
        thin = sorted(self.seen.values())[: len(self.plan.regions) // 4]
        if any(self.seen.get(region, 0) <= (thin[-1] if thin else 0) for region in regions):
            self.rare.append(origin)
        for region in regions:
            self.seen[region] = self.seen.get(region, 0) + 1


def journal_path(folder: Path, number: int) -> Path:
    """Where a worker's journal is."""
    return folder / "journal" / f"{number:06d}.journal"


def error_path(folder: Path, number: int) -> Path:
    """Where a worker says what ended it, if that was no case."""
    return folder / "journal" / f"{number:06d}.error"
