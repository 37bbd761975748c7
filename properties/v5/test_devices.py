"""Devices: the results of a loss do not depend on the device of its tensors.

An accelerator sums in another order, refuses an operation on tensors of two devices, does not define which of two
writes to one place comes last, and makes the host wait whenever the host reads a value. So rows must equal the CPU's
bit for bit, numbers must equal the CPU's up to rounding, and a second run must give the results of the first. On hosts
without an accelerator, the mirror simulates one (`--device mirror`).
"""

import math

import torch

from yololoss.harness.cases.case import Dtype
from yololoss.harness.devices.devices import Around
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.outcome import Outcome

from .budget import BECAUSE, Budget
from .strategies import ALL_OPTIONS, ANY, cases
from .test_state import close, close_gradients, no_trouble

CPU = torch.device("cpu")
ACCELERATOR = ("mirror", "cuda", "mps")
AGAIN = Around(chance=1)  # a second run, in which the mirror takes other orders where an accelerator defines none
CROWDED = cases(crowded=True, min_targets=2, options=ALL_OPTIONS)
# Both sides are within the budget of the reference, so they differ by at most twice the budget. The budget covers
# accelerators too. The error of CUDA's exp, log and atan is at most 2 units in the last place (CUDA C programming
# guide, mathematical functions); the budget allows 8 for a coordinate and 16 for a result. A sum on CUDA is a tree over
# threads, and each thread first adds up at most 32 of the 65,536 elements that a case may have; the budget allows 16
# roundings in addition to the tree.


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


@law("devices.rows", source="SPEC 7", cases=ANY, most=30, on=ACCELERATOR)
def test_rows_are_those_of_the_cpu(exam: Exam) -> None:
    """The rows equal those built on the CPU, bit for bit."""
    _ = exam.rows
    same_rows(exam, on_cpu(exam))


@law("devices.values", source="SPEC 7", cases=ANY, most=30, on=ACCELERATOR)
def test_values_and_gradients_are_those_of_the_cpu(exam: Exam) -> str | None:
    """Totals and gradients equal those of the CPU, up to rounding.

    On CUDA the note says how much memory a step takes beyond its inputs.
    """
    close(exam, on_cpu(exam))
    peak = exam.outcome.peak
    logits = sum(math.prod(exam.case.shape(i)) for i in range(exam.case.layers))
    return None if peak is None else f"peak of 2^{math.ceil(math.log2(peak / logits + 1))} bytes a logit"


@law("devices.repeatable", source="SPEC 7", cases=CROWDED, most=30, on=ACCELERATOR)
def test_a_second_run_gives_the_same(exam: Exam) -> None:
    """Two runs give the same rows, totals and items, bit for bit, and gradients that differ at most by rounding."""
    again = exam.on(exam.case, around=AGAIN)
    same_rows(exam, again)
    same_values(exam, again)
    close_gradients(exam, again)


@law("devices.shared-cells", source="SPEC 7", cases=CROWDED, choices=("shared cells",), most=30, on=ACCELERATOR)
def test_shared_cells_are_decided_as_on_the_cpu(exam: Exam) -> None:
    """If rows share a cell, its objectness target comes from the same row as on the CPU, in every run."""
    cpu = on_cpu(exam)
    for run in (exam, exam.on(exam.case, around=AGAIN)):
        for i, off in enumerate(exam.of(Budget).gradients):
            want, got = cpu.gradients[i][..., 4], run.gradients[i][..., 4]
            exam.expect_close(f"objectness gradient of layer {i}", want, got, 2 * off[..., 4], BECAUSE)


@law("devices.deterministic-algorithms", source="SPEC 7", cases=CROWDED, most=30, on=ACCELERATOR)
def test_deterministic_algorithms_are_enough(exam: Exam) -> None:
    """With torch.use_deterministic_algorithms(True) the loss raises nothing, and two runs are equal, bit for bit."""
    _ = exam.calls
    one, two = (exam.on(exam.case, around=Around(chance=n, deterministic=True)) for n in (0, 1))
    raised = complaints(one.outcome)
    exam.expect(not raised, "with deterministic algorithms", "nothing raised", raised)
    same_bits(one, two)


@law("devices.result-device", source="SPEC 6", cases=ANY)
def test_results_lie_where_the_predictions_lie(exam: Exam) -> None:
    """The total, and the items if they are a tensor, are on the device of the predictions."""
    results_there(exam, exam)


@law(
    "devices.no-cpu-tensors", source="SPEC 7", cases=cases(min_targets=1, options=ALL_OPTIONS), most=30, on=ACCELERATOR
)
def test_no_tensor_is_created_on_another_device(exam: Exam) -> str | None:
    """A call creates no tensor with dimensions on the CPU: it would have to be copied in every step.

    On the mirror the note says how often the host waits for the device in a step.
    """
    watched = exam.on(exam.case, around=Around(watched=True))
    _ = watched.calls
    made = watched.outcome.elsewhere
    exam.expect(not made, "tensors created on the CPU", "none", "; ".join(made[:3]))
    waits = watched.outcome.waits
    return f"{sum(w.times for w in waits)} waits a step" if exam.subject.device.type == "mirror" else None


@law("devices.targets-on-cpu", source="SPEC 7", cases=cases(min_targets=1), most=30, on=ACCELERATOR)
def test_targets_on_the_cpu_are_refused_or_used(exam: Exam) -> None:
    """Targets on the CPU are refused, or give the same results, on the device of the predictions."""
    host = exam.on(exam.case, around=Around(targets_on_host=True))
    if any(t.kind in ("raised in loss", "raised in backward") for t in host.outcome.troubles):
        exam.expect(True, "targets on the CPU", "refused", "refused")
        return
    results_there(exam, host)
    close(exam, host)


@law(
    "devices.autocast",
    source="SPEC 7",
    # under autocast, torch itself refuses to concatenate tensors of the other half-precision dtype
    cases=cases(min_targets=1, dtypes=("float32", "float16", "bfloat16"), target_dtypes=("float32",)),
    most=60,
)
def test_autocast_changes_rounding_only(exam: Exam) -> None:
    """Under autocast rows stay the same, and total and gradients change at most by rounding to the predictions' dtype.

    With float32 predictions, autocast may not run any part of the loss in half precision.
    """
    _ = exam.calls
    half: Dtype = "bfloat16" if exam.case.dtype == "float32" else exam.case.dtype
    under = exam.on(exam.case, around=Around(autocast=half))
    raised = complaints(under.outcome)
    exam.expect(not raised, "under autocast", "nothing raised", raised)
    no_trouble(under, "changed a setting", "autocast as it was")
    same_rows(exam, under)
    close(exam, under)
