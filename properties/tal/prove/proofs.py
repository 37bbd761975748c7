"""The proofs for task-aligned losses: every 16-bit logit."""

from collections.abc import Iterator
from typing import Any

from yololoss.harness.engine.judge import Task
from yololoss.harness.errors import UsageError
from yololoss.harness.prove.proof import Proof

from .logits import OfLogits


def proofs(task: Task, part: str | None, **of_centres: Any) -> Iterator[Proof[Any]]:
    """The proof of all logits; what is asked of centres has no proof here. Raises UsageError for another part."""
    if part not in (None, "logits"):
        raise UsageError(f"--part {part}: of task-aligned losses only logits can be proven")
    yield OfLogits(task)
