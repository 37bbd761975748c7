"""Bad input: what a loss does with input that no data loader should give it (SPEC 9).

A loss may leave such checks to others. So for most dialects these laws only note what happens: an error and its type;
silence, in which case training continues with a wrong or useless loss; or the end of the interpreter. A loss of the
dialect yololoss, such as the bundled loss, must refuse bad input with a ValueError or TypeError.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from ..shared.bad_input import CENTRE, CLASS, IMAGE, INFINITY, NAN, SIZE, expect_shown, noted, spoilt
from ..shared.comparing import same_settings_left
from .case import SIDES
from .forms import HEADS, ClassSubject, as_batch, as_mapping
from .strategies import STANDARD, cases
from .test_form import called_with

GOOD = cases(
    min_targets=1,
    max_targets=3,
    spots=("any",),
    dtypes=("float32",),
    layouts=("contiguous",),
    target_dtypes=("float32",),
    forms=("levels",),
    levels=(2, 3),
)
Batch = dict[str, Any]


def what_happens(exam: Exam, other: Exam, what: str = "bad input", kinds: tuple[str, ...] = ()) -> str:
    """Note what happens in ``other``; if the subject's dialect refuses bad input, require an error of these kinds."""
    note = noted(other)
    exam.judged = True
    if exam.subject.dialect.bad_input == "refused":
        wanted = kinds or ("ValueError", "TypeError")
        refused = note in {f"error: {kind}" for kind in wanted}
        exam.expect(refused, what, f"refused with a {' or '.join(wanted)}", note)
    return note


def with_value(exam: Exam, columns: tuple[int, ...], *values: float) -> str:
    """What happens if a target has one of these values in one of these columns; the case's seed decides which."""
    targets = exam.case.targets
    turn, row = divmod(int(exam.case.predictions.seed), len(targets))
    column, value = columns[turn % len(columns)], values[turn // len(columns) % len(values)]
    other = exam.on(spoilt(exam.case, row, column, value), valid=False)
    return what_happens(exam, other, f"targets[{row}, {column}] = {value:g}", ("ValueError",))


def with_inputs(
    exam: Exam,
    spoil: Callable[[list[Tensor], Batch], tuple[Any, Any]],
    what: str = "bad input",
    kinds: tuple[str, ...] = (),
) -> str:
    """What happens if the loss is called on inputs that ``spoil`` has made of a list of levels and a batch.

    A list is then given in the form that the loss takes; other predictions are given as they are.
    """

    def inputs(subject: ClassSubject, p: list[Tensor], targets: Tensor) -> tuple[Any, Any]:
        preds, batch = spoil(p, as_batch(targets))
        if isinstance(preds, list):
            return subject.preds(preds), batch
        return dict.fromkeys(HEADS, preds) if subject.two_heads else preds, batch

    return what_happens(exam, called_with(exam, inputs, valid=False), what, kinds)


@law("input.class-negative", title="A target with class -1 is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_negative_class_does(exam: Exam) -> str:
    """A target with class -1 is refused; upstream takes the metric of the last class, and the label 0."""
    return with_value(exam, CLASS, -1.0)


@law("input.class-too-large", title="A target with class C is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_class_beyond_the_last_does(exam: Exam) -> str:
    """A target with class C is refused; upstream raises IndexError, or makes an accelerator's context unusable."""
    return with_value(exam, CLASS, float(exam.case.classes), exam.case.classes + 300.0)


@law("input.class-not-integer", title="A target with class 1.7 is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_fractional_class_does(exam: Exam) -> str:
    """A target with a fractional class is refused; upstream truncates it."""
    return with_value(exam, CLASS, 0.7)


@law("input.image-index", title="A target with an image index outside the batch is not refused", source="SPEC 9",
     cases=GOOD, again=True)  # fmt: skip
def test_what_an_image_outside_the_batch_does(exam: Exam) -> str:
    """A target with image index -1, B or 0.9 is refused; upstream loses other targets, raises, or truncates it."""
    return with_value(exam, IMAGE, -1.0, float(exam.case.batch), 0.9, exam.case.batch + 300.0)


@law("input.not-a-number", title="A target with a NaN is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_nan_coordinate_does(exam: Exam) -> str:
    """A target with a NaN or infinity is refused; upstream silently loses it."""
    return with_value(exam, (*CENTRE, *SIZE, *CLASS, *IMAGE), NAN, INFINITY)


@law("input.size", title="A target without size is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_side_of_zero_does(exam: Exam) -> str:
    """A target with a side of 0 or below is refused; in upstream its anchors have the score 0."""
    return with_value(exam, SIZE, 0.0, -0.1)


@law("input.centre-outside", title="A centre outside the image is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_centre_outside_the_image_does(exam: Exam) -> str:
    """A centre outside the image is refused; upstream takes it, or drops it at the top left."""
    return with_value(exam, CENTRE, 1.5, -0.25, 1.0 + 2.0**-20)


@law("input.pixels", title="Boxes in pixels are not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_boxes_in_pixels_do(exam: Exam) -> str:
    """Boxes in pixels, not in fractions, are refused; in upstream nothing is foreground, without an error."""

    def in_pixels(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        return p, batch | {"bboxes": batch["bboxes"] * 640}

    return with_inputs(exam, in_pixels, "boxes in pixels")


@law("input.integer-batch", title="Integer boxes are not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_an_integer_batch_does(exam: Exam) -> str:
    """A batch of integers is refused: its boxes are truncated to 0."""

    def truncated(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        return p, {name: value.long() for name, value in batch.items()}

    return with_inputs(exam, truncated, "integer boxes")


@law("input.missing-key", title="A batch without a key is not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_a_batch_without_a_key_does(exam: Exam) -> str:
    """A batch without classes, boxes or image indices is refused, also with a dict's own KeyError."""
    names = ("batch_idx", "cls", "bboxes")
    left = names[exam.case.predictions.seed % 3]

    def without(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        return p, {name: value for name, value in batch.items() if name != left}

    return with_inputs(exam, without, f"a batch without {left}", ("ValueError", "TypeError", "KeyError"))


@law("input.other-lengths", title="Columns of other lengths are not refused", source="SPEC 9", cases=GOOD, again=True)
def test_what_columns_of_other_lengths_do(exam: Exam) -> str:
    """A batch whose columns have other lengths is refused."""

    def shorter(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        return p, batch | {"cls": batch["cls"][:-1]}

    return with_inputs(exam, shorter, "a class less than boxes")


@law(
    "input.missing-level", title="Predictions of fewer levels are not refused", source="SPEC 9", cases=GOOD, again=True
)
def test_what_a_missing_level_does(exam: Exam) -> str:
    """Predictions with a level less than there are strides are refused."""
    return with_inputs(exam, lambda p, batch: (p[:-1], batch), "a level less")


@law("input.extra-channel", title="Predictions with a channel more are not refused", source="SPEC 9", cases=GOOD,
     again=True)  # fmt: skip
def test_what_a_channel_more_does(exam: Exam) -> str:
    """Predictions with other than 4 R + C channels are refused."""

    def wider(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        return [level[:, [*range(level.shape[1]), 0]] for level in p], batch

    return with_inputs(exam, wider, "a channel more")


@law("input.feats-of-another-shape", title="Levels of another shape with as many anchors are not refused",
     source="SPEC 9", cases=GOOD, again=True)  # fmt: skip
def test_what_feats_of_another_shape_do(exam: Exam) -> str:
    """In a mapping, feats whose rows and columns do not fit the strides are refused, even with as many anchors."""

    def other_shape(p: list[Tensor], batch: Batch) -> tuple[Any, Any]:
        mapping = as_mapping(p, exam.case.reg_max)
        first, *rest = mapping["feats"]
        flat = first.reshape(*first.shape[:2], 1, -1)
        return mapping | {"feats": [flat, *rest]}, batch

    exam.only_if(exam.case.grids[0][0] >= 3, "the shapes fit")
    return with_inputs(exam, other_shape, "feats of another shape")


@law("input.nan-logits", title="NaN logits are hidden: the total is finite", source="DESIGN", cases=GOOD, again=True)
def test_nan_logits_are_not_hidden(exam: Exam) -> None:
    """If a logit that has a gradient is NaN, as of a diverged model, the total is not finite, or an error tells."""
    sides = SIDES * exam.case.reg_max
    for name, channels in (("class", slice(sides, None)), ("box", slice(sides))):
        expect_shown(exam, name, (slice(None), channels))


@law("input.settings-restored", title="After bad input a setting of the process stays changed", source="DESIGN",
     cases=GOOD, again=True)  # fmt: skip
def test_bad_input_leaves_no_setting_changed(exam: Exam) -> None:
    """Bad input leaves every setting of the process as it was."""
    _ = exam.calls
    other = exam.on(spoilt(exam.case, 0, 4, NAN), valid=False)
    same_settings_left(exam, other, "a target with a NaN")


@law("input.few-anchors", title="With fewer anchors than top-k the loss fails", source="SPEC 9", cases=STANDARD,
     only={"few_anchors": "all"}, again=True)  # fmt: skip
def test_fewer_anchors_than_top_k_are_enough(exam: Exam) -> None:
    """With fewer anchors than k, the loss takes all of them: as with k = the number of anchors."""
    anchors = exam.case.anchors
    many, all_of_them = (exam.on(exam.case.changed(topk=k, topk2=None)) for k in (anchors + 3, anchors))
    allowed = 2 * many.budget.items[0]
    exam.expect_close("items (box, cls, third)", all_of_them.items, many.items, allowed, exam.budget.because)
