"""A proof: a claim in parts. Workers try the parts in order, and a certificate says how many are done."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.files import read_file
from yololoss.harness.engine.guard import begin, server
from yololoss.harness.engine.judge import Task, judged
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.exam import LawBroken, Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.prove.certificate import Certificate, Claim, write_certificate
from yololoss.harness.subjects.family import LossUnderTest

Part = TypeVar("Part")
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
PARTS = ("assignment", "logits")
HUNG = 600.0  # seconds after which a worker without an answer is ended

_SUBJECT: list[LossUnderTest] = []  # in a worker: its loss


class Unprovable(Exception):
    """Nothing can be proven about this loss. The message says why."""


def subject() -> LossUnderTest:
    """The worker's loss."""
    return _SUBJECT[0]


class Proof(ABC, Generic[Part]):
    """A claim about a loss, and the means to prove it."""

    hint = ""  # what can be proven instead, if this cannot

    def __init__(self, task: Task, claim: Claim, parts: Sequence[Part]) -> None:
        self.task, self.claim, self.parts = task, claim, parts

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(kind.count for kind in self.claim.enumerated)

    def require(self, subject: LossUnderTest) -> None:
        """Raise Unprovable if this cannot be proven about the loss."""

    @staticmethod
    @abstractmethod
    def prove(part: Part) -> Any:
        """The value that refutes the claim in this part; None if none does. Runs in a worker."""

    @abstractmethod
    def size(self, part: Part) -> int:
        """How many values the part has."""

    @abstractmethod
    def told(self, subject: LossUnderTest, odd: Any) -> tuple[str, LawBroken]:
        """The value that refutes the claim, in one line, and as a broken law with its case."""

    def run(
        self, folder: Path, work: Map, findings: Path, options: dict[str, str | None], show: Callable[[int], None]
    ) -> tuple[Certificate, Finding | None]:
        """Run the proof, from where the certificate in the folder says. Raises Unprovable and UsageError."""
        self.require(self.task.under_test())
        path = folder / f"{self.claim.name}.json"
        so_far = read_file(path, Certificate) if path.exists() else Certificate(claim=self.claim, parts=len(self.parts))
        show(so_far.done)
        left, before = self.parts[so_far.done :], time.monotonic()
        for part, odd in zip(left, work(self.prove, left), strict=True):
            if odd is not None:
                line, broken = self.told(self.task.under_test(), odd)
                finding = keep(broken, self.task.under_test(), findings, options)
                so_far = so_far.refuted(line, finding.path)
                write_certificate(path, so_far)
                return so_far, finding
            now = time.monotonic()
            so_far, before = so_far.after(self.size(part), now - before), now
            write_certificate(path, so_far)
            show(so_far.done)
        return so_far, None


def chosen(part: str | None) -> tuple[str, ...]:
    """The parts to prove: this one, or all. Raises UsageError for a part that is not known."""
    if part not in (None, *PARTS):
        raise UsageError(f"--part {part}: no such part{closest(part, PARTS)} (known: {', '.join(PARTS)})")
    return PARTS if part is None else (part,)


def told_by(
    names: Sequence[str], subject: LossUnderTest, case: Case, shown: tuple[str, str, str], others: str, batch: int
) -> tuple[str, LawBroken]:
    """A value that refutes a claim, in one line, and as the first of these laws that breaks on its case.

    ``shown``: what it is, what was expected, what was observed. If all laws hold, it shows only among ``others`` of a
    ``batch``; then the last law stands for it.
    """
    laws, (what, expected, observed) = find_laws(subject.family), shown
    line = f"{what}: expected {expected}, observed {observed}"
    for name in names:
        told, _ = judged(laws[name], Run(subject, case))
        if told is not None:
            return line, told.broken(laws[name], case)
    observed = f"{observed}; {others} with other targets"
    broken = LawBroken(laws[names[-1]], case, what, expected, observed, "none: this is exact")
    broken.repeats = False
    return f"{line}, but {others} with {batch} targets", broken


def _start(task: Task, number: Any) -> None:
    with number.get_lock():
        number.value += 1
        mine = number.value
    _SUBJECT[:] = [task.under_test(mine - 1)]  # several workers take one GPU each


@contextmanager
def working(task: Task, workers: int) -> Iterator[Map]:
    """A function like ``map``, in order: in this process, or in several at the same time. Raises UsageError."""
    if workers == 1:
        _SUBJECT[:] = [task.under_test()]
        yield map
        return
    context = server()
    arguments = (_start, str(Path.cwd()), (task, context.Value("i", 0)))
    pool = ProcessPoolExecutor(workers, context, begin, arguments)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise UsageError(
            f"{task.loss}: a worker ended, or gave no answer for {HUNG:g} s; yololoss fuzz can find the case"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
