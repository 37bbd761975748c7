"""The proofs for v5 losses: every centre on some grids, every 16-bit logit."""

from collections.abc import Iterator, Sequence
from typing import Any

from typing_extensions import override

from yololoss.harness.engine.judge import Task, judged
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.laws.exam import LawBroken, Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.prove.certificate import Enumerated, claimed
from yololoss.harness.prove.proof import Proof, Unprovable, subject
from yololoss.harness.subjects.family import LossUnderTest

from ..dialects import UPSTREAM
from . import assignment
from .assignment import Grid, Odd, passes
from .exact import bits
from .logits import OfLogits

PARTS = ("assignment", "logits")
ASSIGNMENT = (
    "For each centre, the same on both axes, the rows are those of whole-number arithmetic, in any order: how many, in "
    "which cells, clamped, boxes bit for bit, offsets in [-0.5, 1.5]."
)
# Laws that may say what is wrong with a centre, the most specific first.
TELLING = (
    "run.no-exception",
    "assign.clamped-indices",
    "assign.centre-cell",
    "assign.neighbours",
    "assign.box-plus-cell",
)
ALL = "assign.rows"
ALONE = "none: this is exact"
OWN = ("neighbours", "cell")  # choices that change the assignment


class Shard:
    """Ranges of centres (as bits), on some grids. If it ``looks`` ahead, it is tried again later and not counted."""

    def __init__(self, grids: tuple[Grid, ...], ranges: Sequence[tuple[int, int]], *, looks: bool = False) -> None:
        self.grids, self.ranges, self.looks = grids, ranges, looks


class OfAssignment(Proof[Shard]):
    """The proof about all centres on some grids."""

    hint = "; --part logits proves the rest"

    def __init__(self, task: Task, grids: tuple[Grid, ...], first: int, stop: int) -> None:
        claim = claimed(
            task,
            "assignment",
            ASSIGNMENT,
            grids=grids,
            bits=(first, stop),
            enumerated=(Enumerated(what="float32 centres", count=stop - first),),
        )
        # a fault is most likely where the cells change, so it is found in the first second
        ahead = Shard(grids, assignment.turns(grids, first, stop), looks=True)
        super().__init__(task, claim, [ahead, *(Shard(grids, [each]) for each in assignment.shards(first, stop))])

    @override
    def require(self, subject: LossUnderTest) -> None:
        theirs = [choice for choice in OWN if getattr(subject.dialect, choice) != getattr(UPSTREAM, choice)]
        if theirs:
            raise Unprovable(f"dialect {subject.dialect_text} has its own {', '.join(theirs)}")

    @staticmethod
    @override
    def prove(part: Shard) -> Odd | None:
        """The first centre with wrong rows."""
        each = (assignment.odd_in(subject(), part.grids, *bits) for bits in part.ranges)
        return next((odd for odd in each if odd is not None), None)

    @override
    def size(self, part: Shard) -> int:
        return 0 if part.looks else sum(stop - first for first, stop in part.ranges)

    @override
    def told(self, subject: LossUnderTest, odd: Odd) -> tuple[str, LawBroken]:
        laws, case = find_laws(subject.family), assignment.at_centre(odd.grid, odd.bits)
        rows, columns = odd.grid
        place = f"centre {assignment.centre(odd.bits)!r} (bits {odd.bits:#010x}) on {columns} columns, {rows} rows"
        expected, observed = assignment.shown(subject, odd)
        line = f"{place}: expected {expected}, observed {observed}"
        for name in (*TELLING, ALL):
            told, _ = judged(laws[name], Run(subject, case))
            if told is not None:
                return line, told.broken(laws[name], case)
        broken = LawBroken(laws[ALL], case, place, expected, f"{observed}; other rows with other targets", ALONE)
        broken.repeats = False
        return f"{line}, but other rows with {assignment.BATCH} targets", broken


def proofs(task: Task, part: str | None, widths: tuple[int, ...], centres: tuple[float, float]) -> Iterator[Proof[Any]]:
    """The proofs of these parts, one after another. Raises UsageError for an invalid part or range of centres."""
    if part not in (None, *PARTS):
        raise UsageError(f"--part {part}: no such part{closest(part, PARTS)} (known: {', '.join(PARTS)})")
    first, last = map(bits, centres)
    if first > last:
        raise UsageError(f"--centres {centres[0]:g} {centres[1]:g}: expected the lower one first")
    if part != "logits":
        for grids in passes(widths):
            yield OfAssignment(task, grids, first, last + 1)
    if part != "assignment":
        yield OfLogits(task)
