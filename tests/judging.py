"""What commands that judge many losses share: the gate in this process, one law's search, all processors at once."""

import multiprocessing
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from yololoss.harness.cases.case import Case
from yololoss.harness.devices.mirror import NAME as MIRROR
from yololoss.harness.engine.clerk import repeats
from yololoss.harness.engine.gate import LEAST, MIRROR_SHARE, usual_cases
from yololoss.harness.engine.judge import judged
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.engine.plan import EARLY, Origin, Plan
from yololoss.harness.engine.raw import Raw
from yololoss.harness.laws.exam import Law, LawBroken, Run
from yololoss.harness.laws.law import SEED
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device, load_loss

T = TypeVar("T")
R = TypeVar("R")
ENOUGH = 60.0  # seconds to minimise a case in


def on_its_device(spec: str, name: str, dialect: str = "yololoss") -> LossUnderTest:
    """The loss on the device of that name, held to all that the bundled one is, or to another dialect."""
    return load_loss(spec, find_device(name), dialect, compiled=name == "compile")


class Made(NamedTuple):
    """A case of the gate, and the laws that judge it, in their order."""

    number: int
    origin: Origin | None  # None: it is some laws' own
    case: Case
    laws: list[Law]


def how_many(plan: Plan) -> int:
    """How many cases the gate has for these laws on this device."""
    share = MIRROR_SHARE if plan.subject.device.type == MIRROR else 1
    return int(share * usual_cases(len(plan.laws))) if plan.domains else 0


def made(plan: Plan, numbers: Iterable[int], seed: int = SEED) -> Iterator[Made]:
    """These cases of the gate."""
    for number in numbers:
        chance = np.random.default_rng((seed, number))
        origin = plan.origin(number, chance)
        case = plan.case(origin)
        yield Made(number, origin, case, plan.judges(case, origin.domain, chance))


def own(plan: Plan) -> Iterator[Made]:
    """The cases that some laws have as their own."""
    for number, case in enumerate(plan.own_cases()):
        yield Made(number, None, case, [law for law in plan.laws.values() if case in law.own(plan.subject)])


def whole(plan: Plan) -> Iterator[Made]:
    """All cases of the gate, in its order."""
    count = how_many(plan)
    yield from made(plan, range(min(EARLY, count)))
    yield from own(plan)
    yield from made(plan, range(EARLY, count))


def breaks(subject: LossUnderTest, cases: Iterable[Made], laws: Collection[str] | None = None) -> Iterator[Raw]:
    """Judge these cases by these laws alone, or all. Yields how each law breaks first."""
    broke: set[str] = set()
    for number, origin, case, about in cases:
        run = Run(subject, case)
        for law in about:
            if law.again and not run.answered:
                continue  # as a worker does
            if law.id not in broke and (laws is None or law.id in laws):
                told, _ = judged(law, run)
                if told is not None:
                    broke.add(law.id)
                    yield Raw(told, case, origin, number)


def gate(plan: Plan, numbers: Iterable[int], seed: int = SEED) -> Iterator[Raw]:
    """Judge these cases of the gate, in this process. Yields how each law breaks first."""
    return breaks(plan.subject, made(plan, numbers, seed))


def search(law: Law, subject: LossUnderTest, cases: int = LEAST, seed: int = SEED) -> LawBroken | None:
    """How the law breaks on the subject, on its own cases or on some that are drawn; None if it holds."""
    law.tally.clear()
    for case in law.own(subject):
        told, _ = judged(law, Run(subject, case))
        if told is not None:
            return told.broken(law, case)
    plan = Plan((law.id,), subject)
    raw = next(gate(plan, range(cases) if plan.domains else (), seed), None)
    return None if raw is None else raw.told.broken(law, raw.case)


def minimised(raw: Raw, plan: Plan) -> LawBroken:
    """How the law breaks on a minimised case; on the case as it is, if that is the law's own."""
    law, origin = plan.laws[raw.told.law], raw.origin
    broken = raw.told.broken(law, raw.case)

    def told(data: bytes) -> LawBroken | None:
        assert origin is not None
        case = plan.case(origin._replace(data=data))
        found, _ = judged(law, Run(plan.subject, case))
        return None if found is None else found.broken(law, case)

    if origin is not None:
        data = smallest(origin.data, lambda data: told(data) is not None, time.monotonic() + ENOUGH)
        broken = told(data) or broken
    broken.repeats = repeats(plan.subject, broken.case)
    return broken


def apart(function: Callable[[T], R], tasks: Sequence[T], what: str) -> Iterator[R]:
    """What the function makes of each task, in a process of its own, as many at once as there are processors.

    Raises BrokenProcessPool if such a process dies.
    """
    torch.set_num_threads(1)

    def alone(task: T) -> R:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
            return process.submit(function, task).result()

    with ThreadPoolExecutor(multiprocessing.cpu_count()) as threads:
        yield from track(threads.map(alone, tasks), what, len(tasks), console=Console(stderr=True))
