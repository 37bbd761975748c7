"""Two heads: a loss of a one-to-many and a one-to-one head is the weighted sum of theirs (SPEC 8).

All other laws judge one head, while the other one adds nothing (`forms.ClassSubject`).
"""

from typing import Any

import numpy as np
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject, Unsupported

from ..shared.comparing import close_gradients
from .budget import BECAUSE
from .case import Case, Head, SeededLogits
from .forms import ClassSubject, as_batch
from .reading import decided
from .strategies import STANDARD


@law("totals.two-heads", title="The loss of two heads is not the sum of theirs", source="SPEC 8", cases=STANDARD,
     only={"heads": ("YOLO26", "YOLOv10")}, again=True)  # fmt: skip
def test_the_total_is_that_of_both_heads(exam: Exam) -> None:
    """The total is the sum of the totals of each head alone, and so is the gradient; so are the items in YOLOv10.

    In YOLO26 the items are those of the one-to-one head.
    """
    alone = exam.on(other_head(exam.case))

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        if not isinstance(subject, ClassSubject):
            raise Unsupported("predictions of two heads")
        other = alone.case.inputs(targets.device)[0]
        return subject.both(subject.heads(p, other), as_batch(targets))

    together, sides = exam.on(exam.case, calling=calling), (exam, alone)
    budgets = [each.budget for each in sides]
    total, off = sum(each.calls[0].total for each in sides), 2 * sum(b.totals[0] for b in budgets)
    exam.expect_close("total", total, together.calls[0].total, off, BECAUSE)
    close_gradients(exam, exam, together, "with predictions in both heads")
    counted = [decided(each) for each in sides if exam.subject.dialect.heads == "YOLOv10" or is_one_to_one(each.case)]
    want = np.sum([each.reference.calls[0].items for each in counted], axis=0)
    allowed = np.sum([each.items[0] for each in counted], axis=0)
    exam.expect_close("items (box, cls, third)", want, together.items, allowed, BECAUSE)


def is_one_to_one(case: Case) -> bool:
    """Whether the case's predictions are those of the one-to-one head."""
    return (case.head or Head()).name == "one2one"


def other_head(case: Case) -> Case:
    """A case of the same targets for the other head. Its predictions are others, if a seed makes them."""
    made, name = case.predictions, "one2many" if is_one_to_one(case) else "one2one"
    if isinstance(made, SeededLogits):
        made = made.model_copy(update={"seed": made.seed ^ 1})
    head = (case.head or Head()).model_copy(update={"name": name})
    return case.changed(head=head, predictions=made)
