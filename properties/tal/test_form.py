"""Form: how a loss is called, and what it reads. The same numbers in another form have the same loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject, Unsupported

from ..shared.comparing import close
from .case import Gains
from .forms import ClassSubject, as_batch
from .strategies import STANDARD, WITH_TARGETS

Inputs = Callable[[ClassSubject, list[Tensor], Tensor], tuple[Any, Any]]


def called_with(exam: Exam, inputs: Inputs, *, valid: bool = True) -> Exam:
    """The same case with its inputs in another form, or with bad ones."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        if not isinstance(subject, ClassSubject):
            raise Unsupported("call with (preds, batch)")
        return subject.called(*inputs(subject, p, targets))

    return exam.on(exam.case, calling=calling, valid=valid)


def preds_of(subject: ClassSubject, p: list[Tensor]) -> Any:
    """The predictions in the form that the loss takes."""
    return subject.preds(p)


def tensors_of(preds: Any) -> list[Tensor]:
    """The tensors that predictions of any form are made of."""
    if isinstance(preds, Tensor):
        return [preds]
    return [each for part in (preds.values() if isinstance(preds, dict) else preds) for each in tensors_of(part)]


@law("form.both-predictions", title="A list and a mapping of the same predictions have another loss", source="SPEC 1",
     cases=WITH_TARGETS, only={"forms": "both"}, again=True)  # fmt: skip
def test_both_forms_of_predictions_have_the_same_loss(exam: Exam) -> None:
    """A list of levels and the mapping of boxes, scores and feats give the same numbers."""
    other = "levels" if exam.case.form == "mapping" else "mapping"
    close(exam, exam.on(exam.case.changed(form=other)), "of the other form of predictions")


@law(
    "form.row-order",
    title="Rows that are not in the order of images have another loss",
    source="SPEC 9",
    cases=WITH_TARGETS,
    only={"row_order": "any"},
    again=True,
)
def test_rows_may_be_in_any_order(exam: Exam) -> None:
    """Rows in the order of images, in reverse order, and in turns of images, have one loss."""
    rows = exam.case.targets
    exam.only_if(len({row[0] for row in rows}) > 1, "one image has all targets")
    budget = exam.budget
    exam.only_if(budget.doubt is None, f"rounding decides {budget.doubt}")
    logits = exam.case.logits  # which else may depend on the targets' order
    for other in (tuple(sorted(rows, key=lambda row: row[0])), rows[::-1], (*rows[1::2], *rows[::2])):
        close(exam, exam.on(exam.case.with_logits(logits, targets=other)), "of rows in another order")


@law(
    "form.validation-tuple", title="In validation the loss is another one", source="SPEC 1", cases=STANDARD, again=True
)
def test_the_tuple_of_validation_is_unwrapped(exam: Exam) -> None:
    """(inference output, preds), which a model returns in eval mode, has the loss of preds."""
    other = called_with(exam, lambda s, p, targets: ((torch.zeros(1), preds_of(s, p)), as_batch(targets)))
    close(exam, other, "of (inference output, preds)")


@law("form.columns", title="Columns of shape (T,) or (T, 1) have another loss", source="SPEC 1", cases=WITH_TARGETS,
     again=True)  # fmt: skip
def test_columns_may_be_flat(exam: Exam) -> None:
    """``batch_idx`` of shape (T, 1) and ``cls`` of shape (T,) give the same loss."""

    def reshaped(subject: ClassSubject, p: list[Tensor], targets: Tensor) -> tuple[Any, Any]:
        columns = {"batch_idx": targets[:, :1], "cls": targets[:, 1], "bboxes": targets[:, 2:6]}
        return preds_of(subject, p), columns

    close(exam, called_with(exam, reshaped), "with columns of another shape")


@law("form.integer-columns", title="Integer image indices or classes have another loss", source="SPEC 1",
     cases=WITH_TARGETS, again=True)  # fmt: skip
def test_images_and_classes_may_be_integers(exam: Exam) -> None:
    """Integer ``batch_idx`` and ``cls`` beside float boxes give the same loss."""

    def integers(subject: ClassSubject, p: list[Tensor], targets: Tensor) -> tuple[Any, Any]:
        batch = as_batch(targets)
        return preds_of(subject, p), {name: v if name == "bboxes" else v.long() for name, v in batch.items()}

    close(exam, called_with(exam, integers), "with integer images and classes")


@law("form.batch-unchanged", title="The loss changes the batch", source="SPEC 10.13", cases=WITH_TARGETS, again=True)
def test_a_call_does_not_change_the_batch(exam: Exam) -> None:
    """A call adds nothing to the batch, takes nothing from it, and writes to none of its tensors or the predictions."""
    seen: list[tuple[Any, Any, Any]] = []

    def kept(subject: ClassSubject, p: list[Tensor], targets: Tensor) -> tuple[Any, Any]:
        preds, batch = preds_of(subject, p), as_batch(targets)
        parts = tensors_of(preds)
        seen.append((batch, dict(batch), [(part, part.detach().clone()) for part in parts]))
        return preds, batch

    _ = exam.calls
    _ = called_with(exam, kept).calls
    for batch, before, parts in seen:
        exam.expect_equal("keys of the batch", sorted(before), sorted(batch))
        replaced = [name for name in before if batch[name] is not before[name]]
        exam.expect(not replaced, "entries of the batch", "as they were", ", ".join(replaced))
        written = [n for n, (now, then) in enumerate(parts) if not torch.equal(now.detach(), then)]
        exam.expect(not written, "tensors of the predictions", "as they were", str(written))


@law("form.other-keys", title="The loss depends on other entries of the batch", source="SPEC 1", cases=STANDARD,
     again=True)  # fmt: skip
def test_other_entries_of_the_batch_are_not_read(exam: Exam) -> None:
    """A batch with images and file names beside its targets has the same loss."""

    def more(subject: ClassSubject, p: list[Tensor], targets: Tensor) -> tuple[Any, Any]:
        extra = {"img": torch.full((1, 3, 2, 2), float("nan")), "im_file": ["a.jpg"]}
        return preds_of(subject, p), as_batch(targets) | extra

    close(exam, called_with(exam, more), "with other entries in the batch")


@law("form.gains-edited", title="An edited gain has no effect at the next call", source="SPEC 1", cases=STANDARD,
     again=True)  # fmt: skip
def test_an_edited_gain_has_effect(exam: Exam) -> None:
    """A gain that is edited in ``model.args`` between two calls counts in the second."""
    gains = Gains(box=2.0, cls=1.0, dfl=3.0)

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        if not isinstance(subject, ClassSubject):
            raise Unsupported("model")
        subject.loss([level.detach() for level in p], targets)
        for name, value in gains:
            setattr(subject.model.args, name, value)
        return subject.loss(p, targets)

    _ = exam.calls
    edited, built = exam.on(exam.case, calling=calling), exam.on(exam.case.changed(gains=gains))
    allowed = 2 * built.budget.items[0]
    exam.expect_close("items (box, cls, third)", built.items, edited.items, allowed, exam.budget.because)


@law("form.wrapped-model", title="A model that is wrapped gives another loss", source="SPEC 9", cases=STANDARD,
     only={"bad_input": "refused"}, again=True)  # fmt: skip
def test_a_wrapped_model_is_unwrapped(exam: Exam) -> None:
    """Built from a model inside DataParallel, the loss gives the same results."""

    def wrapped(model: Any) -> nn.Module:
        # the constructor would move the model to an accelerator
        outer: Any = nn.DataParallel.__new__(nn.DataParallel)
        nn.Module.__init__(outer)
        outer.module = model
        return outer  # type: ignore[no-any-return]

    _ = exam.calls
    close(exam, exam.on(exam.case, lambda subject: subject.rebuild(wrapped)), "of a wrapped model")


@law("form.target-dtype", title="Targets of another dtype have another loss", source="SPEC 9", cases=WITH_TARGETS,
     only={"target_dtypes": "any"}, again=True)  # fmt: skip
def test_targets_of_other_dtypes_are_cast(exam: Exam) -> None:
    """Targets in float64 give the loss of the same numbers in float32."""
    exam.only_if(exam.case.targets_dtype == "float32", "other numbers in float64")
    close(exam, exam.on(exam.case.changed(targets_dtype="float64")), "with float64 targets")
