"""What laws about bad input share: a target with a bad value, and what a loss did with it."""

from typing import TypeVar

import numpy as np

from yololoss.harness.cases.case import Case
from yololoss.harness.laws.exam import Exam

NAN, INFINITY = float("nan"), float("inf")
SILENT = "silent"
IMAGE, CLASS, CENTRE, SIZE = (0,), (1,), (2, 3), (4, 5)  # columns of targets
AnyCase = TypeVar("AnyCase", bound=Case)


def noted(exam: Exam) -> str:
    """An error and its type, silence, or a crash."""
    for trouble in exam.outcome.troubles:
        if trouble.kind in ("exited", "did not return"):
            return f"crash: {trouble.kind}"
        if trouble.kind.startswith("raised in"):
            return f"error: {trouble.detail.split(':')[0]}"
    numbers = np.array([(call.total, *call.items[:3]) for call in exam.outcome.calls])
    return SILENT if np.isfinite(numbers).all() else "silent, and the loss is NaN"


def spoilt(case: AnyCase, row: int, column: int, value: float) -> AnyCase:
    """The case with another value in one place of its targets."""
    rows = [list(each) for each in case.targets]  # type: ignore[attr-defined]  # all families have them
    rows[row][column] = value
    return case.changed(targets=tuple(map(tuple, rows)))
