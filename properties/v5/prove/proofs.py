"""The proofs for v5 losses: every centre on some grids, every 16-bit logit."""

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from yololoss.harness.engine.judge import Task
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.prove.centres import Shard, centre, shards, span
from yololoss.harness.prove.certificate import Enumerated, claimed
from yololoss.harness.prove.proof import Proof, Unprovable, broken_by, chosen, not_alone, subject
from yololoss.harness.subjects.family import LossUnderTest

from ..dialects import UPSTREAM
from . import assignment
from .assignment import Grid, Odd, passes
from .logits import OfLogits

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
Part = tuple[tuple[Grid, ...], Shard]  # some centres on some grids
OWN = ("neighbours", "cell")  # choices that change the assignment


class OfAssignment(Proof[Part]):
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
        parts = shards(first, stop, assignment.changes(grids))
        super().__init__(task, claim, [(grids, shard) for shard in parts])

    @override
    def require(self, subject: LossUnderTest) -> None:
        theirs = [choice for choice in OWN if getattr(subject.dialect, choice) != getattr(UPSTREAM, choice)]
        if theirs:
            raise Unprovable(f"dialect {subject.dialect_text} has its own {', '.join(theirs)}")

    @staticmethod
    @override
    def prove(part: Part) -> Odd | None:
        """The first centre with wrong rows."""
        grids, shard = part
        each = (assignment.odd_in(subject(), grids, *bits) for bits in shard.ranges)
        return next((odd for odd in each if odd is not None), None)

    @override
    def size(self, part: Part) -> int:
        return part[1].size

    @override
    def told(self, subject: LossUnderTest, odd: Odd) -> tuple[str, LawBroken]:
        case = assignment.at_centre(odd.grid, odd.bits)
        rows, columns = odd.grid
        place = f"centre {centre(odd.bits)!r} (bits {odd.bits:#010x}) on {columns} columns, {rows} rows"
        expected, observed = assignment.shown(subject, odd)
        line = f"{place}: expected {expected}, observed {observed}"
        broken = broken_by((*TELLING, ALL), subject, case)
        if broken is not None:
            return line, broken
        broken = not_alone(ALL, subject, case, (place, expected, f"{observed}; other rows with other targets"))
        return f"{line}, but other rows with {assignment.BATCH} targets", broken


def proofs(task: Task, part: str | None, widths: tuple[int, ...], centres: tuple[float, float]) -> Iterator[Proof[Any]]:
    """The proofs of these parts, one after another. Raises UsageError for an invalid part or range of centres."""
    first, stop = span(*centres)
    if "assignment" in chosen(part):
        for grids in passes(widths):
            yield OfAssignment(task, grids, first, stop)
    if "logits" in chosen(part):
        yield OfLogits(task)
