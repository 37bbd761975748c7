"""Devices: where the results of a v5 loss could depend on the device of its tensors.

The laws that all families share are in ``properties/shared/test_devices.py``.
"""

from yololoss.harness.cases.case import Dtype
from yololoss.harness.devices.devices import Around
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from ..shared.comparing import (
    ACCELERATOR,
    AGAIN,
    close,
    complaints,
    on_cpu,
    results_there,
    same_rows,
    same_settings_left,
)
from .budget import BECAUSE
from .strategies import CROWDED, cases


@law(
    "devices.shared-cells",
    title="Chance decides which row wins a shared cell",
    source="SPEC 7",
    cases=CROWDED,
    again=True,
    on=ACCELERATOR,
)
def test_shared_cells_are_decided_as_on_the_cpu(exam: Exam) -> None:
    """If rows share a cell, its objectness target comes from the same row as on the CPU, in every run."""
    cpu = on_cpu(exam)
    for run in (exam, exam.on(exam.case, around=AGAIN)):
        for i, off in enumerate(exam.budget.gradients):
            want, got = cpu.gradients[i][..., 4], run.gradients[i][..., 4]
            exam.expect_close(f"objectness gradient of layer {i}", want, got, 2 * off[..., 4], BECAUSE)


@law(
    "devices.targets-on-cpu",
    title="Targets on the CPU give other results",
    source="SPEC 7",
    cases=cases(min_targets=1),
    again=True,
    on=ACCELERATOR,
)
def test_targets_on_the_cpu_are_refused_or_used(exam: Exam) -> None:
    """Targets on the CPU are refused, or give the same results, on the device of the predictions."""
    host = exam.on(exam.case, around=Around(targets_on_host=True))
    if any(t.kind in ("raised in loss", "raised in backward") for t in host.outcome.troubles):
        exam.expect(True, "targets on the CPU", "refused", "refused")
        return
    results_there(exam, host)
    close(exam, host, "with targets on the CPU")


@law(
    "devices.autocast",
    title="Autocast changes more than rounding does",
    source="SPEC 7",
    # under autocast, torch itself refuses to concatenate tensors of the other half-precision dtype
    cases=cases(min_targets=1, dtypes=("float32", "float16", "bfloat16"), target_dtypes=("float32",)),
    again=True,
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
    same_settings_left(exam, under, "a call under autocast")
    same_rows(exam, under)
    close(exam, under, "under autocast")
