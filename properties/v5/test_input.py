"""Bad input: what a loss does with input that no data loader should give it.

A loss may leave such checks to others. So for most dialects these laws only note what happens: an error and its type;
silence, in which case training continues with a wrong or useless loss; or the end of the interpreter. A loss of the
dialect yololoss, such as the bundled loss, must refuse bad input with a ValueError or TypeError. A fork that also
checks its input can be tested for this with --dialect yololoss.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from ..shared.bad_input import CENTRE, CLASS, IMAGE, INFINITY, NAN, SILENT, SIZE, expect_shown, noted, spoilt
from ..shared.comparing import same_settings_left
from .case import Case, Options, SeededLogits
from .pools import ONE_CALL
from .strategies import cases

Loss = Callable[[list[Tensor], Tensor], tuple[Tensor, Any]]
GOOD = cases(
    min_targets=1,
    max_targets=2,
    dtypes=("float32",),
    target_dtypes=("float32",),
    layouts=("contiguous",),
    options=ONE_CALL[:1],
)
REFUSED = "an error, or the loss of what is valid"


def what_happens(exam: Exam, other: Exam, what: str = "bad input") -> str:
    """Note what happens in ``other``, on bad input; if the subject's dialect refuses bad input, require an error."""
    note = noted(other)
    before = exam.on(_other_logits(exam.case), _alone).calls[-1].total if note == SILENT else None
    kept = before is not None and before == other.calls[-1].total != exam.calls[-1].total
    exam.expect(not kept, what, REFUSED, "the total of the call before, on other logits")
    # A target that is ignored leaves the objectness loss of all cells, which is 0 only for logits far below 0.
    hidden = note == SILENT and _zero(other) and not _zero(exam.on(other.case.changed(targets=())))
    exam.expect(not hidden, what, REFUSED, "a total of 0, as if an error was caught")
    if exam.subject.dialect.bad_input == "refused":
        refused = note in ("error: ValueError", "error: TypeError")
        exam.expect(refused, what, "refused with a ValueError or TypeError", note)
    return note


def _other_logits(case: Case) -> Case:
    """A valid case with other logits, on which a loss is called before it gets bad input."""
    return case.changed(predictions=SeededLogits(seed=1, scale=2.0))


def _after_another(exam: Exam, call: Loss, device: torch.device) -> Loss:
    """The loss, which is called on a valid case before."""
    good = _other_logits(exam.case)

    def loss(p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        call(*good.inputs(device))
        return call(p, targets)

    return loss


def _zero(exam: Exam) -> bool:
    return all(call.total == 0 for call in exam.outcome.calls)


def with_value(exam: Exam, columns: tuple[int, ...], *values: float) -> str:
    """What happens if a target has one of these values in one of these columns; the case's seed decides which."""
    targets = exam.case.targets
    turn, row = divmod(int(getattr(exam.case.predictions, "seed", 0)), len(targets))
    column, value = columns[turn % len(columns)], values[turn // len(columns) % len(values)]
    plain = exam.case.predictions.model_copy(update={"overrides": ()})
    bad = spoilt(exam.case, row, column, value).changed(predictions=plain)

    def change(subject: Subject) -> None:
        subject.loss = _after_another(exam, subject.loss, subject.device)  # type: ignore[assignment,method-assign]
        _alone(subject)

    other = exam.on(bad, change, valid=False)
    return what_happens(exam, other, f"targets[{row}, {column}] = {value:g}")


def _alone(subject: Subject) -> None:
    """Do not call build_targets: what it refuses, the loss itself may not."""
    subject.rows = lambda p, targets: None  # type: ignore[method-assign]


def with_inputs(exam: Exam, spoil: Callable[[list[Tensor], Tensor], tuple[list[Tensor], Tensor]]) -> str:
    """What happens if the loss is called on inputs that ``spoil`` has changed."""
    return what_happens(exam, _on_inputs(exam, spoil))


def _on_inputs(exam: Exam, spoil: Callable[[list[Tensor], Tensor], tuple[list[Tensor], Tensor]]) -> Exam:
    """The exam of the loss called on inputs that ``spoil`` has changed."""

    def change(subject: Subject) -> None:
        call = _after_another(exam, subject.loss, subject.device)
        subject.loss = lambda p, targets: call(*spoil(p, targets))  # type: ignore[method-assign]
        _alone(subject)

    return exam.on(exam.case, change, valid=False)


@law("input.class-negative", title="A target with class -1 is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_negative_class_does(exam: Exam) -> str:
    """A target with class -1 is refused; upstream trains the last class instead."""
    return with_value(exam, CLASS, -1.0)


@law("input.class-too-large", title="A target with class C is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_class_beyond_the_last_does(exam: Exam) -> str:
    """A target with class C is refused; upstream raises IndexError, or makes an accelerator's context unusable."""
    return with_value(exam, CLASS, float(exam.case.classes), exam.case.classes + 300.0)


@law("input.class-not-integer", title="A target with class 0.9 is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_fractional_class_does(exam: Exam) -> str:
    """A target with class 0.9 is refused; upstream truncates it."""
    return with_value(exam, CLASS, 0.9)


@law(
    "input.image-index-not-integer",
    title="A target with image index 0.9 is not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_a_fractional_image_does(exam: Exam) -> str:
    """A target with image index 0.9 is refused; upstream truncates it."""
    return with_value(exam, IMAGE, 0.9)


@law(
    "input.image-index-negative",
    title="A target with image index -1 is not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_a_negative_image_does(exam: Exam) -> str:
    """A target with image index -1 is refused; upstream assigns it to the last image."""
    return with_value(exam, IMAGE, -1.0)


@law(
    "input.image-index-too-large",
    title="A target with image index B, the batch size, is not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_an_image_beyond_the_batch_does(exam: Exam) -> str:
    """A target with image index B, the batch size, is refused."""
    return with_value(exam, IMAGE, float(exam.case.batch), exam.case.batch + 300.0)


@law("input.not-a-number", title="A target with a NaN is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_nan_coordinate_does(exam: Exam) -> str:
    """A target with a NaN is refused; with a NaN centre, upstream's loss is NaN for the whole batch."""
    return with_value(exam, (*CENTRE, *SIZE, *CLASS, *IMAGE), NAN)


@law(
    "input.infinite-size",
    title="A target with an infinite side is not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_an_infinite_size_does(exam: Exam) -> str:
    """A target with an infinite side is refused; upstream ignores it silently."""
    return with_value(exam, SIZE, INFINITY)


@law("input.zero-size", title="A target with a side of 0 is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_width_of_zero_does(exam: Exam) -> str:
    """A target with a side of 0 is refused; upstream ignores it silently."""
    return with_value(exam, SIZE, 0.0)


@law(
    "input.negative-size", title="A target with a negative side is not refused", source="SPEC 7", cases=GOOD, again=True
)
def test_what_a_negative_height_does(exam: Exam) -> str:
    """A target with a negative side is refused."""
    return with_value(exam, SIZE, -0.1)


@law("input.centre-outside", title="A centre outside the image is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_centre_outside_the_image_does(exam: Exam) -> str:
    """A centre outside the image is refused; upstream trains a cell at the edge on a box that it cannot predict."""
    return with_value(exam, CENTRE, 1.5, -0.25, 1.0 + 2.0**-20)


@law("input.integer-targets", title="Integer targets are not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_integer_targets_do(exam: Exam) -> str:
    """Integer targets are refused; in upstream, coordinates truncated to 0 match no anchor."""
    return with_inputs(exam, lambda p, targets: (p, targets.long()))


@law(
    "input.targets-five-columns",
    title="Targets with five columns are not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_targets_without_an_image_index_do(exam: Exam) -> str:
    """Targets with five columns are refused."""
    return with_inputs(exam, lambda p, targets: (p, targets[:, 1:]))


@law("input.targets-3d", title="Targets of shape (N, 6, 1) are not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_targets_of_three_axes_do(exam: Exam) -> str:
    """Targets of shape (N, 6, 1) are refused."""
    return with_inputs(exam, lambda p, targets: (p, targets[..., None]))


@law(
    "input.flattened-predictions",
    title="Predictions of shape (B, A H W, 5 + C), as in inference, are not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_predictions_of_three_axes_do(exam: Exam) -> str:
    """Predictions of shape (B, A H W, 5 + C), as in inference, are refused."""
    return with_inputs(exam, lambda p, targets: ([x.flatten(1, 3) for x in p], targets))


@law(
    "input.missing-layer",
    title="Predictions with too few layers are not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_a_missing_layer_does(exam: Exam) -> str:
    """Predictions with too few layers are refused."""
    return with_inputs(exam, lambda p, targets: (p[:-1], targets))


@law("input.six-layers", title="A model with six layers is not refused", source="SPEC 7", cases=GOOD, again=True)
def test_what_a_sixth_layer_does(exam: Exam) -> str:
    """A model with six layers is refused, as it has no balance; upstream raises IndexError without an explanation."""
    case = exam.case
    first = {"grids": case.grids[:1], "strides": case.strides[:1], "anchors": case.anchors[:1]}
    plain = case.predictions.model_copy(update={"overrides": ()})
    six = case.changed(predictions=plain, **{name: 6 * value for name, value in first.items()})
    return what_happens(exam, exam.on(six, valid=False))


@law(
    "input.no-stride-16",
    title="Autobalance without a layer of stride 16 is not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_autobalance_without_a_layer_of_stride_16_does(exam: Exam) -> str:
    """Autobalance without a layer of stride 16 is refused; upstream raises ValueError without an explanation."""
    strides = tuple(3.0 * 2**i for i in range(exam.case.layers))
    without = exam.case.changed(strides=strides, options=Options(autobalance=True))
    return what_happens(exam, exam.on(without, valid=False))


@law(
    "input.extra-channel",
    title="Predictions with more than 5 + C channels are not refused",
    source="SPEC 7",
    cases=GOOD,
    again=True,
)
def test_what_a_channel_too_many_does(exam: Exam) -> str:
    """Predictions with more than 5 + C channels are refused."""
    return with_inputs(exam, lambda p, targets: ([x.repeat_interleave(2, dim=-1) for x in p], targets))


@law(
    "input.nan-logits",
    title="NaN logits are hidden: the total is finite",
    source="DESIGN",
    cases=GOOD,
    again=True,
)
def test_nan_logits_are_not_hidden(exam: Exam) -> None:
    """If a logit that has a gradient is NaN, as of a diverged model, the total is not finite, or an error tells."""
    for name, channels in (("objectness", slice(4, 5)), ("box", slice(4)), ("class", slice(5, None))):
        expect_shown(exam, name, (..., channels))


@law(
    "input.settings-restored",
    title="After bad input a setting of the process is left changed",
    source="DESIGN",
    cases=GOOD,
    again=True,
)
def test_settings_are_restored_after_bad_input(exam: Exam) -> None:
    """A call on bad input, refused or not, leaves every setting as it was: gradients, default dtype and others."""
    bad = {"a class that is NaN": (1, NAN), "a class beyond the last": (1, exam.case.classes + 300.0)}
    for what, (column, value) in bad.items():
        other = exam.on(spoilt(exam.case, 0, column, value), valid=False)
        same_settings_left(exam, other, what)
