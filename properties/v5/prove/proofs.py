"""The proofs for v5 losses: every centre on some grids, every 16-bit logit."""

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from yololoss.harness.engine.judge import Task
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.prove.centres import Grid, OfCentres, Shard, centre, span
from yololoss.harness.prove.proof import Proof, Unprovable, chosen, subject, told_by
from yololoss.harness.subjects.family import LossUnderTest

from ..dialects import UPSTREAM
from . import assignment
from .assignment import Odd, passes
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
    "assign.rows",
)
OWN = ("neighbours", "cell")  # choices that change the assignment


class OfAssignment(OfCentres):
    """The proof about all centres on some grids."""

    def __init__(self, task: Task, grids: tuple[Grid, ...], first: int, stop: int) -> None:
        super().__init__(task, ASSIGNMENT, grids, first, stop, assignment.changes(grids))

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
    def told(self, subject: LossUnderTest, odd: Odd) -> tuple[str, LawBroken]:
        case = assignment.at_centre(odd.grid, odd.bits)
        rows, columns = odd.grid
        place = f"centre {centre(odd.bits)!r} (bits {odd.bits:#010x}) on {columns} columns, {rows} rows"
        shown = place, *assignment.shown(subject, odd)
        return told_by(TELLING, subject, case, shown, "other rows", assignment.BATCH)


def proofs(task: Task, part: str | None, widths: tuple[int, ...], centres: tuple[float, float]) -> Iterator[Proof[Any]]:
    """The proofs of these parts, one after another. Raises UsageError for an invalid part or range of centres."""
    first, stop = span(*centres)
    if "assignment" in chosen(part):
        for grids in passes(widths):
            yield OfAssignment(task, grids, first, stop)
    if "logits" in chosen(part):
        yield OfLogits(task)
