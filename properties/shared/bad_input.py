"""What laws about bad input share: a target with a bad value, and what a loss did with it."""

from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from yololoss.harness.cases.case import Case
from yololoss.harness.laws.exam import Exam
from yololoss.harness.subjects.subject import Subject

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


def expect_shown(exam: Exam, name: str, part: tuple[Any, ...]) -> None:
    """If one logit is NaN, the total is not finite, or an error tells: the one of a part with the largest gradient."""
    sizes = [np.zeros(level.shape) for level in exam.gradients]
    for size, got, want in zip(sizes, exam.gradients, exam.budget.reference.gradients, strict=True):
        size[part] = np.abs(got * (want != 0))[part]
    layer = max(range(len(sizes)), key=lambda i: sizes[i].max(initial=0.0))
    if not sizes[layer].any():
        return
    place = tuple(map(int, np.unravel_index(sizes[layer].argmax(), sizes[layer].shape)))

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        p = [level.clone() for level in p]
        p[layer][place] = NAN
        return subject.loss(p, targets)

    totals = [call.total for call in exam.on(exam.case, calling=calling, valid=False).outcome.calls]
    shown = not np.isfinite(totals).all() or not totals
    exam.expect(shown, f"the total, if one {name} logit is NaN", "nan, or an error", str(totals))
