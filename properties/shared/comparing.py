"""What the laws of several families compare."""

import torch

from yololoss.harness.cases.case import Case
from yololoss.harness.devices.devices import Around
from yololoss.harness.laws.exam import Exam
from yololoss.harness.subjects.outcome import Call, Outcome

ACCELERATOR = ("mirror", "cuda", "mps")
CPU = torch.device("cpu")
AGAIN = Around(chance=1)  # a second run, in which the mirror takes other orders where an accelerator defines none


def also_twice(exam: Exam, *others: Case) -> None:
    """Say that the law calls a loss more than once: on its case, and perhaps on others."""
    exam.also(exam.case.called(exam.case.calls + 1), *others)


def no_trouble(exam: Exam, kind: str | tuple[str, ...], expected: str) -> None:
    """Expect that the subject did nothing of this kind, or these."""
    found = [t for t in exam.outcome.troubles if t.kind.startswith(kind)]
    told = [f"{t.kind}: {t.said}" for t in found]
    first = [f"{t.kind} {t.detail.partition(':')[0]} {t.place}" for t in found[:1]]
    exam.expect(not found, "what the subject did", expected, "; ".join(told), kind="".join(first))


def same_settings_left(exam: Exam, other: Exam, what: str) -> None:
    """Expect that the other run left no setting of the process changed which the first one did not. ``what``: after it.

    What every call leaves changed, `state.global-settings-unchanged` reports.
    """
    always, now = (
        [t.detail for t in each.outcome.troubles if t.kind.startswith("changed a setting")] for each in (exam, other)
    )
    left = [detail for detail in now if detail not in always]
    exam.expect(not left, f"settings after {what}", "as they were", "; ".join(left))


def close_gradients(exam: Exam, want: Exam, got: Exam, which: str) -> None:
    """The gradients of both runs differ by rounding only. ``which`` says what the second one is."""
    budget = exam.budget
    for i, off in enumerate(budget.gradients):
        place = f"gradient of layer {i}, {which}, at image, anchor, row, column, channel"
        exam.expect_close(place, want.gradients[i], got.gradients[i], 2 * off, budget.because)


def same_numbers(exam: Exam, n: int, want: Call, got: Call, which: str) -> None:
    """Total and items of call n differ by rounding only: both are within the budget of the reference."""
    budget = exam.budget
    exam.expect_close(f"total of call {n}, {which}", want.total, got.total, 2 * budget.totals[n], budget.because)
    if exam.has_items:
        known = len(exam.subject.family.items)
        place = f"items of call {n}, {which}"
        exam.expect_close(place, want.items[:known], got.items[:known], 2 * budget.items[n], budget.because)


def close(exam: Exam, other: Exam, which: str, *, right: bool = False) -> None:
    """Totals, items and gradients of two runs differ by rounding only.

    Even a second run need not give the same bits: torch may compile or choose another kernel after the first run.
    ``which`` says what the run is that is compared with the other: that of ``other``, unless ``other`` is ``right``.
    """
    here, there = exam.calls, other.calls
    want, got = (there, here) if right else (here, there)
    for n, (expected, observed) in enumerate(zip(want, got, strict=True)):
        same_numbers(exam, n, expected, observed, which)
    close_gradients(exam, *((other, exam) if right else (exam, other)), which)


def same_rows(exam: Exam, other: Exam) -> None:
    """The rows are equal, bit for bit, if the subject shows them."""
    all_here, all_there = exam.outcome.rows or (), other.outcome.rows or ()
    exam.expect_equal("layers whose rows are shown", len(all_there), len(all_here))
    for i, (here, there) in enumerate(zip(all_here, all_there, strict=True)):
        for name, got in vars(here).items():
            exam.expect_equal(f"layer {i}, {name}", getattr(there, name), got)


def same_values(exam: Exam, other: Exam) -> None:
    """Total and items of every call are equal, bit for bit."""
    for n, (here, there) in enumerate(zip(exam.calls, other.calls, strict=True)):
        want, got = ((c.total, *c.items) for c in (there, here))
        exam.expect_equal(f"total and items of call {n}", want, got)


def results_there(exam: Exam, run: Exam) -> None:
    """The results of every call are on the device of the predictions."""
    for n, call in enumerate(run.calls):
        exam.expect_equal(f"devices of call {n}", [exam.subject.device.type] * len(call.devices), list(call.devices))


def on_cpu(exam: Exam) -> Exam:
    """The same case on the CPU."""
    return exam.on(exam.case, device=CPU)


def same_bits(exam: Exam, other: Exam) -> None:
    """Totals, items and gradients are equal, bit for bit."""
    for here, there in zip(exam.calls, other.calls, strict=True):
        exam.expect_equal("total and items", (here.total, *here.items), (there.total, *there.items))
    for i, (one, two) in enumerate(zip(exam.gradients, other.gradients, strict=True)):
        exam.expect_equal(f"gradient of layer {i}", one, two)


def complaints(outcome: Outcome) -> str:
    """The exceptions and crashes of a run."""
    return "; ".join(t.detail for t in outcome.troubles if t.kind.startswith(("raised", "killed")))
