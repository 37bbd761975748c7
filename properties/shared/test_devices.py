"""Devices: the results of a loss do not depend on the device of its tensors.

An accelerator sums in another order, refuses an operation on tensors of two devices, does not define which of two
writes to one place comes last, and makes the host wait whenever the host reads a value. So rows must equal the CPU's
bit for bit, numbers must equal the CPU's up to rounding, and a second run must give the results of the first. On hosts
without an accelerator, the mirror simulates one (`--device mirror`).
"""

import math

from yololoss.harness.devices.devices import Around
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .comparing import (
    ACCELERATOR,
    AGAIN,
    close,
    close_gradients,
    complaints,
    on_cpu,
    results_there,
    same_bits,
    same_rows,
    same_values,
)


@law(
    "devices.rows",
    title="The rows differ from those on the CPU",
    source="SPEC 7",
    cases="any",
    again=True,
    on=ACCELERATOR,
)
def test_rows_are_those_of_the_cpu(exam: Exam) -> None:
    """The rows equal those built on the CPU, bit for bit."""
    _ = exam.rows
    same_rows(exam, on_cpu(exam))


@law(
    "devices.values",
    title="Totals or gradients differ from those on the CPU",
    source="SPEC 7",
    cases="any",
    again=True,
    on=ACCELERATOR,
)
def test_values_and_gradients_are_those_of_the_cpu(exam: Exam) -> str | None:
    """Totals and gradients equal those of the CPU, up to rounding.

    On CUDA the note says how much memory a step takes beyond its inputs.
    """
    close(exam, on_cpu(exam), "on this device and not the CPU", right=True)
    peak = exam.outcome.peak
    logits = sum(gradient.size for gradient in exam.gradients)
    return None if peak is None else f"peak of 2^{math.ceil(math.log2(peak / logits + 1))} bytes a logit"


@law(
    "devices.repeatable",
    title="Two runs on this device differ",
    source="SPEC 7",
    cases="crowded",
    again=True,
    on=ACCELERATOR,
)
def test_a_second_run_gives_the_same(exam: Exam) -> None:
    """Two runs give the same rows, totals and items, bit for bit, and gradients that differ at most by rounding."""
    again = exam.on(exam.case, around=AGAIN)
    same_rows(exam, again)
    same_values(exam, again)
    close_gradients(exam, exam, again, "in a second run")


@law(
    "devices.deterministic-algorithms",
    title="With deterministic algorithms the loss raises, or two runs differ",
    source="SPEC 7",
    cases="crowded",
    again=True,
    on=ACCELERATOR,
)
def test_deterministic_algorithms_are_enough(exam: Exam) -> None:
    """With torch.use_deterministic_algorithms(True) the loss raises nothing, and two runs are equal, bit for bit."""
    _ = exam.calls
    one, two = (exam.on(exam.case, around=Around(chance=n, deterministic=True)) for n in (0, 1))
    raised = complaints(one.outcome)
    exam.expect(not raised, "with deterministic algorithms", "nothing raised", raised)
    same_bits(one, two)


@law(
    "devices.result-device",
    title="The results are on another device than the predictions",
    source="SPEC 6",
    cases="any",
)
def test_results_lie_where_the_predictions_lie(exam: Exam) -> None:
    """The total, and the items if they are a tensor, are on the device of the predictions."""
    results_there(exam, exam)


@law(
    "devices.no-cpu-tensors",
    title="A call makes a tensor on the CPU",
    source="SPEC 7",
    cases="with targets",
    again=True,
    on=ACCELERATOR,
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
