"""State: a loss is a function of its inputs. It changes nothing in its inputs, in the process, or in itself."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.outcome import Call
from yololoss.harness.subjects.subject import Subject

from .budget import BECAUSE, Budget
from .case import Options
from .strategies import ALL_OPTIONS, ANY, EVERY_KIND, cases


def no_trouble(exam: Exam, kind: str, expected: str) -> None:
    """Expect that the subject did nothing of this kind."""
    found = [f"{t.kind}: {t.detail}" for t in exam.outcome.troubles if t.kind.startswith(kind)]
    exam.expect(not found, "what the subject did", expected, "; ".join(found))


@law("run.no-exception", source="SPEC 6", cases=EVERY_KIND, most=300)
def test_no_valid_case_raises(exam: Exam) -> None:
    """For a valid case the loss gives rows, values and gradients, and raises nothing."""
    no_trouble(exam, "raised", "rows, loss and gradients")


@law("run.time-limit", source="DESIGN", cases=ANY)
def test_every_case_returns_in_time(exam: Exam) -> None:
    """The loss returns within the time limit, which is a thousand times what a case takes."""
    no_trouble(exam, "did not return", "an answer in time")


@law("run.no-exit", source="DESIGN", cases=ANY)
def test_no_case_ends_the_interpreter(exam: Exam) -> None:
    """The loss never calls sys.exit or os._exit."""
    no_trouble(exam, "exited", "an answer")


@law("run.no-output", source="DESIGN", cases=ANY)
def test_the_loss_prints_nothing(exam: Exam) -> None:
    """The loss writes nothing to standard output or standard error."""
    no_trouble(exam, "printed", "nothing printed")


@law("state.inputs-unchanged", source="SPEC, drop-in form", cases=ANY)
def test_a_call_does_not_change_its_inputs(exam: Exam) -> None:
    """Neither build_targets nor the loss itself writes to predictions or targets."""
    no_trouble(exam, "changed its input", "inputs as they were")


@law("state.rng-unchanged", source="DESIGN", cases=ANY)
def test_a_call_does_not_use_the_global_generators(exam: Exam) -> None:
    """The loss neither seeds the global generators of torch, NumPy and random nor draws from them."""
    no_trouble(exam, "used the global generator", "generators as they were")


@law("state.global-settings-unchanged", source="DESIGN", cases=ANY)
def test_a_call_does_not_change_global_settings(exam: Exam) -> None:
    """A call does not change the default dtype, grad mode, threads, determinism or anomaly mode."""
    no_trouble(exam, "changed a setting", "settings as they were")


@law("state.repeated-calls", source="FAMILIES, relations", cases=cases(options=[Options(calls=2), Options(calls=3)]))
def test_a_second_call_gives_the_same_loss(exam: Exam) -> None:
    """Without autobalance every call on the same inputs returns the same numbers, up to rounding."""
    first, *others = exam.calls
    for n, call in enumerate(others, 1):
        same_numbers(exam, n, first, call)


@law("state.second-object", source="DESIGN", cases=ANY, most=60)
def test_a_second_object_gives_the_same_loss(exam: Exam) -> None:
    """A second loss object for the same case returns the same numbers and gradients, up to rounding."""
    _ = exam.calls
    close(exam, exam.on(exam.case))


@law("state.after-other-case", source="DESIGN", cases=cases(min_targets=1, options=ALL_OPTIONS), most=60)
def test_another_case_in_between_changes_nothing(exam: Exam) -> None:
    """If another case runs first in the same process, the results of this case do not change."""
    _ = exam.calls
    _ = exam.on(exam.case.with_logits(tuple(-x for x in exam.case.logits))).calls
    close(exam, exam.on(exam.case))


def close_gradients(exam: Exam, other: Exam) -> None:
    """The gradients differ by rounding only."""
    for i, off in enumerate(exam.of(Budget).gradients):
        exam.expect_close(f"gradient of layer {i}", other.gradients[i], exam.gradients[i], 2 * off, BECAUSE)


def same_numbers(exam: Exam, n: int, want: Call, got: Call) -> None:
    """Total and items of call n differ by rounding only: both are within the budget of the reference."""
    budget = exam.of(Budget)
    exam.expect_close(f"total of call {n}", want.total, got.total, 2 * budget.totals[n], BECAUSE)
    if exam.has_items:
        exam.expect_close(f"items of call {n}", want.items[:3], got.items[:3], 2 * budget.items[n], BECAUSE)


def close(exam: Exam, other: Exam) -> None:
    """Totals, items and gradients differ by rounding only.

    Even a second run need not give the same bits: torch may compile or choose another kernel after the first run.
    """
    for n, (here, there) in enumerate(zip(exam.calls, other.calls, strict=True)):
        same_numbers(exam, n, there, here)
    close_gradients(exam, other)


@law("state.after-other-sizes", source="DESIGN", cases=cases(), most=60)
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
        for batch in (fewer, upright, more) if subject.any_size else (other,):
            subject.loss(*batch.inputs(subject.device))

    # close, not equal: a buffer kept from a larger call may have another alignment or layout in memory
    close(exam, exam.on(case, called))


def turned(targets: Tensor) -> Tensor:
    """A copy with every centre rotated by 180 degrees about the centre of the image."""
    copy = targets.clone()
    copy[:, 2:4] = 1 - copy[:, 2:4]
    return copy


@law("state.reused-target-memory", source="DESIGN", cases=cases(min_targets=1), most=50)
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
    close(exam, exam.on(exam.case, calling=in_place))
    close(exam, exam.on(exam.case, calling=freed_and_taken))


@law("state.call-before-backward", source="DESIGN", cases=cases(min_targets=1), most=50)
def test_a_call_before_the_backward_pass_changes_nothing(exam: Exam) -> None:
    """The results of a call, and its gradient, do not change when the same object is then called on other targets."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        total, items = subject.loss(p, targets)
        second, _ = subject.loss(p, turned(targets))
        return total + 0 * second, items  # so one backward pass goes through both

    _ = exam.calls
    close(exam, exam.on(exam.case, calling=calling))


@law(
    "state.after-validation",
    source="DESIGN",
    cases=cases(options=[Options(calls=2), Options(sort_obj_iou=True, calls=2)]),
    most=50,
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
    close(exam, exam.on(exam.case, calling=calling))


@law("state.keeps-caller-settings", source="DESIGN", cases=ANY, most=30)
def test_settings_that_a_trainer_changed_stay_so(exam: Exam) -> None:
    """If the caller has turned gradients off, or deterministic algorithms on, they are still so after a call."""
    after = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with torch.no_grad():
                subject.loss([x.clone() for x in p], targets)
                after.append((torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()))
        finally:
            torch.use_deterministic_algorithms(before)
        return subject.loss(p, targets)

    _ = exam.calls
    _ = exam.on(exam.case, calling=calling).calls
    exam.expect_equal("gradients on, algorithms deterministic", [(False, True)] * len(after), after)


@law("state.frees-memory", source="DESIGN", cases=cases(min_targets=1), most=20)
def test_the_memory_of_earlier_calls_is_freed(exam: Exam) -> None:
    """The predictions of a finished training step are freed by the time that the next call returns."""
    kept: list[int] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        own = [x.detach().clone().requires_grad_() for x in p]
        total, _ = subject.loss(own, targets)
        total.sum().backward()  # type: ignore[no-untyped-call]
        first = [weakref.ref(x) for x in own]
        del own, total, _
        result = subject.loss(p, targets)
        if any(x() is not None for x in first):
            gc.collect()  # only if needed, since it takes longer than a case; a reference cycle is not a leak
        kept.extend(i for i, x in enumerate(first) if x() is not None)
        return result

    _ = exam.calls
    _ = exam.on(exam.case, calling=calling).calls
    exam.expect(not kept, "layers whose predictions are still in memory", "none", str(kept))


def survives(exam: Exam, copied: Callable[[Any], Any]) -> None:
    """A copy of the loss object, before or after a call, gives the same numbers, if the object can be copied."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        subject.put_through(copied)
        return subject.loss(p, targets)

    _ = exam.calls
    close(exam, exam.on(exam.case, calling=calling))


@law("state.deep-copy", source="DESIGN", cases=ANY, most=50)
def test_a_deep_copy_gives_the_same_loss(exam: Exam) -> None:
    """A deep copy of the loss object, before or after a call, gives the same numbers and gradients, up to rounding."""
    survives(exam, copy.deepcopy)


@law("state.pickle", source="DESIGN", cases=ANY, most=50)
def test_a_pickled_copy_gives_the_same_loss(exam: Exam) -> None:
    """A pickled and unpickled loss object, before or after a call, returns the same numbers, up to rounding."""
    survives(exam, lambda loss: pickle.loads(pickle.dumps(loss)))


@law("state.rng-independent", source="DESIGN", cases=cases(min_targets=1, options=ALL_OPTIONS), most=60)
def test_the_seed_of_the_global_generator_does_not_matter(exam: Exam) -> None:
    """The loss does not depend on the state of torch's global generator."""
    _ = exam.calls
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        close(exam, exam.on(exam.case))


@law(
    "state.non-contiguous",
    source="DESIGN",
    cases=cases(layouts=("channels_last", "sliced", "transposed"), options=ALL_OPTIONS),
    most=60,
)
def test_the_layout_in_memory_does_not_matter(exam: Exam) -> None:
    """Predictions that are not contiguous give the same loss as contiguous ones."""
    close(exam, exam.on(exam.case.changed(layout="contiguous")))


@law(
    "state.target-dtype",
    source="SPEC 1",
    cases=cases(min_targets=1, spots=False, target_dtypes=("float32",)),
    choices=("target dtype",),
)
def test_the_dtype_of_targets_does_not_matter(exam: Exam) -> None:
    """The same targets in float64 give the same rows, bit for bit: assignment is computed in float32."""
    rounded = tuple(tuple(row) for row in exam.case.target_rows.double().tolist())
    other = exam.on(exam.case.changed(targets=rounded, targets_dtype="float64"))
    for i, (here, there) in enumerate(zip(exam.rows, other.rows, strict=True)):
        exam.expect_equal(f"layer {i}, boxes", here.box, there.box)


@law("state.thread-count", source="DESIGN", cases=cases(min_targets=1, dtypes=("float32",)), most=30)
def test_the_number_of_threads_does_not_matter(exam: Exam) -> None:
    """Two threads give the same loss as one."""
    one = exam.calls[-1].total
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other = exam.on(exam.case).calls[-1].total
    finally:
        torch.set_num_threads(threads)
    exam.expect_close("total", one, other, 2 * exam.of(Budget).totals[-1], BECAUSE)
