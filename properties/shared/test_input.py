"""Bad input, for losses of all families."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from .comparing import also_twice, close


@law(
    "input.spoils-nothing",
    title="After bad input the loss gives other results",
    source="DESIGN",
    cases="a few",
    again=True,
    everywhere=True,
)
def test_bad_input_does_not_spoil_the_next_call(exam: Exam) -> None:
    """After a call on NaN, refused or not, the same object and a new one give the same results as before."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        for logits, rows in (([x.detach() for x in p], nan(targets)), ([nan(x) for x in p], targets)):
            with suppress(Exception):
                subject.loss(logits, rows)
        return subject.loss(p, targets)

    _ = exam.calls
    also_twice(exam)
    close(exam, exam.on(exam.case, calling=calling), "after calls on targets and on logits that are NaN")
    close(exam, exam.on(exam.case), "of a new object, after such calls")


def nan(values: Tensor) -> Tensor:
    """A tensor of the same shape, all NaN. Whole numbers stay as they are."""
    values = values.detach()
    return torch.full_like(values, torch.nan) if values.is_floating_point() else values
