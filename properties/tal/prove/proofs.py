"""The proofs for task-aligned losses: every centre with a side, every 16-bit logit."""

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from yololoss.harness.engine.judge import Task
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.prove.centres import OfCentres, Shard, span
from yololoss.harness.prove.proof import Proof, Unprovable, chosen, subject, told_by
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.subject import Unsupported

from . import assignment
from .assignment import GRIDS, Odd
from .logits import OfLogits

ASSIGNMENT = (
    f"For each centre of x, which from {assignment.LEAST:g} on is the side of y too, the target's anchors are those "
    f"inside its box by exact arithmetic; one within {assignment.NEAR:g} pixels of an edge may be."
)
TELLING = ("run.no-exception", "assign.anchors")
ANCHORS = sum(rows * columns for rows, columns in GRIDS)


class OfAssignment(OfCentres):
    """The proof about all centres and sides."""

    def __init__(self, task: Task, first: int, stop: int) -> None:
        super().__init__(task, ASSIGNMENT, GRIDS, first, stop, assignment.changes())

    @override
    def require(self, subject: LossUnderTest) -> None:
        if subject.dialect.heads != "one" or subject.dialect.topk < ANCHORS:
            raise Unprovable(f"dialect {subject.dialect_text} has two heads, or a top-k below {ANCHORS}")
        try:
            subject.make(assignment.frame(), subject.device)
        except Unsupported as reason:
            raise Unprovable(f"it takes no {reason}") from reason

    @staticmethod
    @override
    def prove(part: Shard) -> Odd | None:
        """The first centre with wrong anchors."""
        each = (assignment.odd_in(subject(), *bits) for bits in part.ranges)
        return next((odd for odd in each if odd is not None), None)

    @override
    def told(self, subject: LossUnderTest, odd: Odd) -> tuple[str, LawBroken]:
        case, place = assignment.alone(odd), assignment.place(odd)
        shown = place, *assignment.shown(subject, odd)
        return told_by(TELLING, subject, case, shown, "others", assignment.BATCH)


def proofs(task: Task, part: str | None, centres: tuple[float, float], **of_grids: Any) -> Iterator[Proof[Any]]:
    """The proofs of these parts; the grids are always the same. Raises UsageError for an invalid part or range."""
    first, stop = span(*centres)
    if "assignment" in chosen(part):
        yield OfAssignment(task, first, stop)
    if "logits" in chosen(part):
        yield OfLogits(task)
