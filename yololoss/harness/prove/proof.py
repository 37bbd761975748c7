"""A proof: a claim in parts, tried one after another by workers, with a certificate that says how far it got."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from typing_extensions import override

from yololoss import _suite
from yololoss.harness.errors import UsageError
from yololoss.harness.families import FAMILIES
from yololoss.harness.files import read_file
from yololoss.harness.finding import Finding, keep
from yololoss.harness.fuzz.guard import begin, server
from yololoss.harness.fuzz.judge import Task, Told, judged
from yololoss.harness.law import LawBroken
from yololoss.harness.prove import assignment, logits
from yololoss.harness.prove.assignment import Grid, Odd
from yololoss.harness.prove.certificate import Certificate, Claim, Enumerated, claimed, write_certificate
from yololoss.harness.prove.errors import Unprovable
from yololoss.harness.subject import LossUnderTest

Part = TypeVar("Part")
Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
ASSIGNMENT = (
    "For each centre, the same on both axes, the rows are those of whole-number arithmetic, in any order: how many, in "
    "which cells, clamped, boxes bit for bit, offsets in [-0.5, 1.5]."
)
LOGITS = (
    "For each logit, and pair of width and height, in a row of its own the laws hold: finite, and as the reference."
)
# Laws by which a centre is told, the one that tells most first.
TELLING = (
    "run.no-exception",
    "assign.clamped-indices",
    "assign.centre-cell",
    "assign.neighbours",
    "assign.box-plus-cell",
)
ALL = "assign.rows"
ALONE = "none: this is exact"
OWN = ("grid lines", "far edge")  # choices with which another family's assignment is another

_SUBJECT: list[LossUnderTest] = []  # of a worker


class Proof(ABC, Generic[Part]):
    """A claim about a loss, and what it takes to prove it."""

    def __init__(self, task: Task, claim: Claim, parts: Sequence[Part]) -> None:
        self.task, self.claim, self.parts = task, claim, parts

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(kind.count for kind in self.claim.enumerated)

    @staticmethod
    @abstractmethod
    def prove(part: Part) -> Any:
        """What refutes the claim in this part; None where nothing does. In a worker."""

    @abstractmethod
    def size(self, part: Part) -> int:
        """How many values it has."""

    @abstractmethod
    def told(self, subject: LossUnderTest, odd: Any) -> tuple[str, LawBroken]:
        """In one line what refutes the claim, and the same as a broken law with its case."""

    def run(
        self, folder: Path, work: Map, findings: Path, options: dict[str, str | None], show: Callable[[int], None]
    ) -> tuple[Certificate, Finding | None]:
        """Go on from where the certificate in the folder says. Raises Unprovable, and UsageError."""
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


class Shard:
    """Ranges of bits of centres, on some grids. One that ``looks`` ahead is tried again later, and not counted."""

    def __init__(self, grids: tuple[Grid, ...], ranges: Sequence[tuple[int, int]], *, looks: bool = False) -> None:
        self.grids, self.ranges, self.looks = grids, ranges, looks


class OfAssignment(Proof[Shard]):
    """Of all centres on some grids."""

    def __init__(self, task: Task, grids: tuple[Grid, ...], first: int, stop: int) -> None:
        claim = claimed(
            task,
            "assignment",
            ASSIGNMENT,
            grids=grids,
            bits=(first, stop),
            enumerated=(Enumerated(what="float32 centres", count=stop - first),),
        )
        # where the cells change a fault is most likely, and is found in the first second
        ahead = Shard(grids, assignment.turns(grids, first, stop), looks=True)
        super().__init__(task, claim, [ahead, *(Shard(grids, [each]) for each in assignment.shards(first, stop))])
        theirs = [choice for choice in OWN if choice in FAMILIES[task.family]]
        if theirs:
            raise Unprovable(f"family {task.family} has its own {', '.join(theirs)}")

    @staticmethod
    @override
    def prove(part: Shard) -> Odd | None:
        """The first centre that is not treated as it must be."""
        each = (assignment.odd_in(_SUBJECT[0], part.grids, *bits) for bits in part.ranges)
        return next((odd for odd in each if odd is not None), None)

    @override
    def size(self, part: Shard) -> int:
        return 0 if part.looks else sum(stop - first for first, stop in part.ranges)

    @override
    def told(self, subject: LossUnderTest, odd: Odd) -> tuple[str, LawBroken]:
        laws, case = _suite.laws(), assignment.at_centre(odd.grid, odd.bits)
        rows, columns = odd.grid
        place = f"centre {assignment.centre(odd.bits)!r} (bits {odd.bits:#010x}) on {columns} columns, {rows} rows"
        expected, observed = assignment.shown(subject, odd)
        line = f"{place}: expected {expected}, observed {observed}"
        for name in (*TELLING, ALL):
            told, _ = judged(laws[name], subject, case)
            if told is not None:
                return line, told.broken(laws[name], case)
        broken = LawBroken(laws[ALL], case, place, expected, f"{observed}; other rows among other targets", ALONE)
        broken.repeats = False
        return f"{line}, but among {assignment.BATCH} targets other rows", broken


class OfLogits(Proof[int]):
    """Of all logits of 16 bits; a part is the number of a batch."""

    def __init__(self, task: Task, batches: int | None = None) -> None:
        own = task.under_test()
        every = (*logits.ENDS, *logits.OF_GRADIENTS, *logits.OF_VALUES)
        chosen = logits.batches()[:batches]
        kinds = dict.fromkeys((batch.dtype, batch.channels) for batch in chosen)
        enumerated = tuple(Enumerated(what=_kind(*kind), count=_count(chosen, *kind)) for kind in kinds)
        laws = tuple(name for name in every if _suite.laws()[name].assumes(own) is None)
        claim = claimed(task, "logits", LOGITS, laws=laws, enumerated=enumerated)
        super().__init__(task, claim, range(len(chosen)))

    @staticmethod
    @override
    def prove(part: int) -> tuple[logits.Batch, Told] | None:
        """The smallest batch on which a law breaks, and how."""
        return logits.broken_in(_SUBJECT[0], logits.batches()[part])

    @override
    def size(self, part: int) -> int:
        return len(logits.batches()[part].bits)

    @override
    def told(self, subject: LossUnderTest, odd: tuple[logits.Batch, Told]) -> tuple[str, LawBroken]:
        batch, told = odd
        shown = ", ".join(str(tuple(v)) for v in batch.values[:3].tolist()) + (", ..." if len(batch.bits) > 3 else "")
        line = f"{_kind(batch.dtype, batch.channels)} {shown}: {told.law}: {told.what}: expected {told.expected}"
        return f"{line}, observed {told.observed}", told.broken(_suite.laws()[told.law], batch.case)


def _kind(dtype: str, channels: tuple[int, ...]) -> str:
    return f"{dtype} logits of {' and '.join(logits.CHANNELS[channel] for channel in channels)}"


def _count(batches: Sequence[logits.Batch], dtype: str, channels: tuple[int, ...]) -> int:
    return sum(len(batch.bits) for batch in batches if (batch.dtype, batch.channels) == (dtype, channels))


def _start(task: Task, number: Any) -> None:
    with number.get_lock():
        number.value += 1
        mine = number.value
    _SUBJECT[:] = [task.under_test(mine - 1)]  # each of several workers takes a GPU of its own


@contextmanager
def working(task: Task, workers: int) -> Iterator[Map]:
    """What maps a function over parts, in order: in this process, or in several at once. Raises UsageError."""
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
            f"{task.loss}: a worker ended, or gave no answer for {assignment.HUNG:g} s; yololoss fuzz finds on what"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
