"""What laws say of the items of a call, and of their sum."""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.subjects.outcome import Call

from .budget import BECAUSE

NAMES = ("box", "objectness", "class")
OF_RIGHT_TOTAL = "(box + obj + cls) x batch, where the total is right"


def sum_of_items(exam: Exam, call: Call) -> tuple[float, float]:
    """(box + obj + cls) x batch, and how far it may be from the total."""
    items = call.items[: None if exam.subject.dialect.added_term == "an item" else 3]
    batch = exam.budget.reference.batch
    # three roundings of float32 sums, whatever the dtype of the predictions
    return batch * sum(items), 8 * 2.0**-24 * batch * float(np.abs(items).sum())


def of_another_total(exam: Exam, n: int) -> bool:
    """Whether the items of call n do not add up to its total, which is right: so they are not what was trained on."""
    budget, call = exam.budget, exam.calls[n]
    added, allowed = sum_of_items(exam, call)
    if abs(added - call.total) <= allowed:
        return False
    want = budget.reference.calls[n].total
    # by which of both is nearer: in half precision the budget may be wider than what lies between them
    return bool(abs(call.total - want) <= min(budget.totals[n], abs(added - want) / 2))


def expect_item(exam: Exam, which: int) -> None:
    """The item of every call equals the reference's, unless all its items are those of another total."""
    budget, last = exam.budget, len(exam.calls) - 1
    if which != 1 and not (all(map(len, budget.reference.rows)) and budget.reference.calls[0].items[which]):
        exam.also(exam.case.changed(targets=()))  # there, what is given in place of a sum over rows is all that counts
    for n, (call, want) in enumerate(zip(exam.calls, budget.reference.calls, strict=True)):
        exam.only_if(len(call.items) > which, "the subject returns no items")
        exam.only_if(not of_another_total(exam, n), "the items are not those of the total, as totals.sum says")
        place = f"{NAMES[which]} item" + (f" of call {n}" if n < last else "")
        exam.expect_close(place, want.items[which], call.items[which], budget.items[n][which], BECAUSE)
