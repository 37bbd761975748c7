"""State: a loss is a function of its inputs. It changes nothing in its inputs, in the process, or in itself."""

import gc
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from ..shared.comparing import also_twice, close, same_numbers
from .budget import BECAUSE
from .case import Case, Options
from .pools import ALL_OPTIONS
from .strategies import cases


@law(
    "state.repeated-calls",
    title="A second call on the same inputs gives other results",
    source="FAMILIES, relations",
    cases=cases(options=[Options(calls=2), Options(calls=3)]),
    everywhere=True,
)
def test_a_second_call_gives_the_same_loss(exam: Exam) -> None:
    """Without autobalance every call on the same inputs returns the same numbers, up to rounding."""
    exam.only_if(not exam.case.options.autobalance, "with autobalance the balance changes")
    first, *others = exam.calls
    for n, call in enumerate(others, 1):
        same_numbers(exam, n, first, call, "compared with call 0")


@law(
    "state.after-other-case",
    title="Another loss object in the same process changes the results",
    source="DESIGN",
    cases=cases(min_targets=1, options=ALL_OPTIONS),
    again=True,
)
def test_another_case_in_between_changes_nothing(exam: Exam) -> None:
    """If another case runs first in the same process, the results of this case do not change."""
    _ = exam.calls
    _ = exam.on(exam.case.with_logits(tuple(-x for x in exam.case.logits))).calls
    close(exam, exam.on(exam.case), "after another case in this process")


@law(
    "state.after-other-sizes",
    title="A call with other sizes changes the results of the next one",
    source="DESIGN",
    cases=cases(),
    again=True,
)
def test_what_the_same_object_was_called_on_before_changes_nothing(exam: Exam) -> None:
    """Earlier calls of the same object, with other grids, batches and numbers of targets, do not change the results."""
    case = exam.case
    targets = case.targets or ((0.0, 0.0, 0.3, 0.6, 0.5, 0.5),)
    other = case.changed(
        batch=case.batch + 1,
        targets=tuple((case.batch - b, c, y, x, w, h) for b, c, x, y, w, h in targets),
        dtype="float32",
        layout="contiguous",
        predictions=case.predictions.model_copy(update={"overrides": ()}),
    )
    more = other.changed(
        targets=2 * other.targets, grids=tuple((rows + 1, columns + 2) for rows, columns in case.grids)
    )
    fewer = other.changed(
        batch=1,
        targets=tuple((0.0, *target[1:]) for target in other.targets[: len(targets) // 2]),
        grids=tuple((max(rows - 1, 1), max(columns - 1, 1)) for rows, columns in case.grids),
        dtype="bfloat16",
    )
    upright = other.changed(grids=tuple((columns, rows) for rows, columns in case.grids))

    _ = exam.calls  # if the loss raises, run.no-exception reports it

    def called(subject: Subject) -> None:
        batches = (fewer, upright, more) if subject.any_size else (other,)
        also_twice(exam, *batches)
        for batch in batches:
            subject.loss(*batch.inputs(subject.device))

    # close, not equal: a buffer kept from a larger call may have another alignment or layout in memory
    close(exam, exam.on(case, called), "after calls with other sizes")


def turned(targets: Tensor) -> Tensor:
    """A copy with every centre elsewhere, none on the far edge, where some dialects have no cell."""
    copy = targets.clone()
    copy[:, 2:4] = (1 - copy[:, 2:4]) * 0.875
    return copy


def turned_case(case: Case) -> Case:
    """The case with turned targets."""
    return case.changed(targets=tuple(map(tuple, turned(case.target_rows).double().tolist())))


@law(
    "state.reused-target-memory",
    title="New targets in the memory of earlier ones are not noticed",
    source="DESIGN",
    cases=cases(min_targets=1),
    again=True,
)
def test_what_stood_in_the_same_tensors_before_changes_nothing(exam: Exam) -> None:
    """If new targets of the same shape take the memory of earlier targets, the next call uses the new ones."""

    def in_place(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        own = targets.clone()
        targets.copy_(turned(own))
        subject.rows(p, targets)
        subject.loss(p, targets)
        targets.copy_(own)
        return subject.loss(p, targets)

    def freed_and_taken(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        fresh = turned(targets).clone()  # not written to afterwards, like the copies below, so the versions are equal
        place = fresh.data_ptr()
        subject.loss(p, fresh)
        del fresh
        copies = [targets.clone()]
        while copies[-1].data_ptr() != place and len(copies) < 16:  # until a copy gets its memory
            copies.append(targets.clone())
        return subject.loss(p, copies[-1])

    _ = exam.calls
    also_twice(exam, turned_case(exam.case))
    close(exam, exam.on(exam.case, calling=in_place), "after a call on other targets in the same tensor")
    close(exam, exam.on(exam.case, calling=freed_and_taken), "after a call on other targets in the same memory")


@law(
    "state.call-before-backward",
    title="A second call changes the gradient of the first",
    source="DESIGN",
    cases=cases(min_targets=1),
    again=True,
)
def test_a_call_before_the_backward_pass_changes_nothing(exam: Exam) -> None:
    """The results of a call, and its gradient, do not change when the same object is then called on other targets."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        total, items = subject.loss(p, targets)
        second, _ = subject.loss(p, turned(targets))
        return total + 0 * second, items  # so one backward pass goes through both

    _ = exam.calls
    also_twice(exam, turned_case(exam.case))
    close(exam, exam.on(exam.case, calling=calling), "with a call on other targets before its backward pass")


@law(
    "state.after-validation",
    title="A call without gradients gives other results, or changes the next call",
    source="DESIGN",
    cases=cases(options=[Options(calls=2), Options(sort_obj_iou=True, calls=2)]),
    again=True,
)
def test_validation_gives_the_same_loss_and_training_goes_on(exam: Exam) -> None:
    """A call under torch.no_grad or inference_mode returns the same numbers, and so does the training call after it."""
    training = iter((False, True))
    validating = (torch.no_grad, torch.inference_mode)[exam.case.batch % 2]

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        if next(training):
            return subject.loss(p, targets)
        with validating():  # validation also computes its predictions under this mode
            return subject.loss([x.clone() for x in p], targets)

    _ = exam.calls
    close(exam, exam.on(exam.case, calling=calling), f"with call 0 under {validating.__name__}")


def _alive(memory: dict[str, StorageWeakRef]) -> list[str]:
    """The names of those that are still in memory."""
    return [name for name, each in memory.items() if not each.expired()]  # type: ignore[no-untyped-call]


@law(
    "state.frees-memory",
    title="The loss keeps the inputs of a finished step in memory",
    source="DESIGN",
    cases=cases(min_targets=1),
    again=True,
)
def test_the_memory_of_a_finished_step_is_freed(exam: Exam) -> None:
    """After a training step neither its predictions nor its targets are kept in memory, not even until the next."""
    kept: list[str] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        own = {f"predictions[{i}]": x.detach().clone().requires_grad_() for i, x in enumerate(p)}
        own["targets"] = targets.clone()
        total, _ = subject.loss(list(own.values())[:-1], own["targets"])
        total.sum().backward()  # type: ignore[no-untyped-call]
        memory = {
            name: StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
            for name, x in own.items()
            if x.numel()
        }
        del own, total, _
        if _alive(memory):
            gc.collect()  # only if needed, since it takes longer than a case; a reference cycle is not a leak
        kept.extend(_alive(memory))
        return subject.loss(p, targets)

    _ = exam.calls
    also_twice(exam)
    _ = exam.on(exam.case, calling=calling).calls
    exam.expect(not kept, "inputs of a finished step that are still in memory", "none", ", ".join(kept))


@law(
    "state.non-contiguous",
    title="Predictions that are not contiguous give another loss",
    source="DESIGN",
    cases=cases(layouts=("channels_last", "sliced", "transposed"), options=ALL_OPTIONS),
    again=True,
)
def test_the_layout_in_memory_does_not_matter(exam: Exam) -> None:
    """Predictions that are not contiguous give the same loss as contiguous ones."""
    close(exam, exam.on(exam.case.changed(layout="contiguous")), "compared with contiguous predictions", right=True)


@law(
    "state.target-dtype",
    title="Targets in float64 give other rows",
    source="SPEC 1",
    cases=cases(min_targets=1, spots=False, target_dtypes=("float32",)),
    only={"target_dtype": "float32"},
    again=True,
)
def test_the_dtype_of_targets_does_not_matter(exam: Exam) -> None:
    """The same targets in float64 give the same rows, bit for bit: assignment is computed in float32."""
    rounded = tuple(tuple(row) for row in exam.case.target_rows.double().tolist())
    other = exam.on(exam.case.changed(targets=rounded, targets_dtype="float64"))
    for i, (here, there) in enumerate(zip(exam.rows, other.rows, strict=True)):
        exam.expect_equal(f"layer {i}, boxes", here.box, there.box)


@law(
    "state.thread-count",
    title="Two threads give another loss than one",
    source="DESIGN",
    cases=cases(min_targets=1, dtypes=("float32",)),
    again=True,
)
def test_the_number_of_threads_does_not_matter(exam: Exam) -> None:
    """Two threads give the same loss as one."""
    one = exam.calls[-1].total
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other = exam.on(exam.case).calls[-1].total
    finally:
        torch.set_num_threads(threads)
    exam.expect_close("total", one, other, 2 * exam.budget.totals[-1], BECAUSE)
