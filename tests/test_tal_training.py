"""Steps of a training run with a task-aligned loss: watched, saved, explained."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from properties.shared.steps import OF_LOGITS, OF_TARGETS
from properties.tal import steps
from properties.tal.case import Case
from properties.tal.family import FAMILY
from properties.tal.forms import StandInModel, as_batch, as_mapping
from properties.tal.packed import PackedLogits, pack
from properties.tal.strategies import USUAL
from tests.faults import plant
from tests.faults.tal import BY_NAME
from yololoss import E2EDetectLoss, E2ELoss, TaskAlignedLoss, watch
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.cli import main
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import import_loss, load_loss
from yololoss.harness.training.watch import StepWarning

CPU = torch.device("cpu")
CASE = USUAL.changed(form="mapping", gains=USUAL.gains.model_copy(update={"box": 5.0}))


def one_step(loss: Any, case: Case, change: Any = None) -> None:
    """Forward and backward on a case, which may be changed first."""
    p, targets = case.inputs(CPU)
    if change is not None:
        with torch.no_grad():
            change(p, targets)
    total, _ = loss(as_mapping(p, case.reg_max) if case.form == "mapping" else p, as_batch(targets))
    total.sum().backward()


def run_of(loss: Any, case: Case, *changes: Any) -> None:
    """A step for each of these changes, and one more: a step is looked at in the next one."""
    for change in (*changes, None):
        one_step(loss, case, change)


def no_width(p: list[Tensor], targets: Tensor) -> None:
    targets[1, 4] = 0


def nan_logit(p: list[Tensor], targets: Tensor) -> None:
    p[0][1, 2, 3, 1] = torch.nan


def watching(folder: Path, case: Case = CASE, make: Any = None, **options: Any) -> Any:
    make = make or (lambda model: TaskAlignedLoss(model, checks=False))
    return watch(make(StandInModel(case)), folder=folder, **options)


def saved(folder: Path) -> Any:
    (path,) = folder.glob("*.json")
    return read_vectors(path).vectors[0]


def explained(folder: Path, *arguments: str) -> tuple[int, str]:
    (path,) = folder.glob("*.json")
    done = CliRunner().invoke(main, ["explain", str(path), "--findings", str(folder / "found"), *arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize("form", ["levels", "mapping"])
def test_a_run_that_goes_well_is_not_saved(tmp_path: Path, form: str):
    """The family is found by what the loss has; the object is the same."""
    loss = watching(tmp_path)
    assert isinstance(loss, TaskAlignedLoss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            one_step(loss, CASE.changed(form=form))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_width, r"step 2: target 1 \(image 1, box 1\) has width 0"),
        (nan_logit, "step 2: total nan.*the loss was given 1 logits that are not finite"),
    ],
)
@pytest.mark.parametrize("form", ["levels", "mapping"])
def test_a_step_is_saved_when_it_goes_wrong(tmp_path: Path, change: Any, said: str, form: str):
    """With what the loss was given, and its settings."""
    case, loss = CASE.changed(form=form), watching(tmp_path)
    with pytest.warns(StepWarning, match=said):
        run_of(loss, case, None, change, None)
    kept = saved(tmp_path).case
    assert (kept.form, kept.gains, kept.topk, kept.strides) == (form, case.gains, 10, case.strides)
    assert (kept.targets[1][4] == 0) is (change is no_width)
    assert torch.isnan(kept.logits[0]).any() == (change is nan_logit)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_saved_step_is_the_same_when_it_runs_again(tmp_path: Path, dtype: str):
    """Sides that no target can have are left out, and change nothing: total, items and gradient are the same bits."""
    case = CASE.changed(dtype=dtype, class_weights=(1.0, 2.0, 0.5))
    model = StandInModel(case)
    loss = watch(TaskAlignedLoss(model, checks=False), model, folder=tmp_path)
    with pytest.warns(StepWarning, match="has width 0"):
        run_of(loss, case, no_width)
    again = saved(tmp_path)
    subject = load_loss("yololoss:TaskAlignedLoss", CPU)
    before, now = (execute(subject, each) for each in (case.changed(targets=again.case.targets[:1]), again.case))
    assert isinstance(again.case.predictions, PackedLogits)
    assert again.expected.calls[0].items is not None
    assert again.case.class_weights == case.class_weights
    some = execute(subject, again.case.changed(targets=again.case.targets[:1]))
    assert (some.calls, [*map(np.ndarray.tobytes, some.gradients)]) == (
        before.calls,
        [*map(np.ndarray.tobytes, before.gradients)],
    )
    assert now.troubles  # the loss with checks refuses the target


@pytest.mark.parametrize(("kind", "updates"), [(E2ELoss, 3), (E2EDetectLoss, 0)])
def test_each_head_of_a_loss_with_two_is_saved(tmp_path: Path, kind: Any, updates: int):
    """In a file of its own, with its weights in that epoch; the one with trouble is told from the other."""
    case = CASE.changed(grids=((8, 8), (4, 4), (2, 2)), strides=(8.0, 16.0, 32.0))
    loss = watch(kind(StandInModel(case), checks=False), folder=tmp_path)
    for _ in range(updates):
        loss.update()

    def steps() -> None:
        for change in (None, nan_logit, None):
            (many, targets), (one, _) = case.inputs(CPU), case.inputs(CPU)
            with torch.no_grad():
                change and change(one, targets)
            total, _ = loss({"one2many": as_mapping(many, case.reg_max), "one2one": one}, as_batch(targets))
            total.sum().backward()

    with pytest.warns(StepWarning, match="step 2: total nan.*one2many.json --loss.*; or yololoss explain .*one2one"):
        steps()
    files = {path.stem.rpartition("-")[2]: read_vectors(path).vectors[0] for path in tmp_path.glob("*.json")}
    assert {name: (each.case.head.name, each.case.head.updates) for name, each in files.items()} == {
        name: (name, updates) for name in ("one2many", "one2one")
    }
    spec, dialect = f"yololoss:{kind.__name__}", f"yololoss, heads = {'YOLO26' if updates else 'YOLOv10'}"
    finite = {name: execute(load_loss(spec, CPU, dialect), each.case).calls[0].total for name, each in files.items()}
    assert {name: bool(np.isfinite(total).all()) for name, total in finite.items()} == {
        "one2many": True,
        "one2one": False,
    }


@pytest.mark.slow
def test_a_step_is_explained_by_the_target_that_did_it(tmp_path: Path):
    """One image and one target are left; the law of finite totals breaks, and its usual causes are told."""
    spec = plant(BY_NAME["eps_missing"], tmp_path)
    kind, _ = import_loss(spec)
    loss = watching(tmp_path / "steps", CASE, kind, names=lambda: ["a.jpg", "b.jpg"])
    with pytest.warns(StepWarning, match="step 1: total nan"):
        run_of(loss, CASE, None)
    status, said = explained(tmp_path / "steps", "--loss", spec)
    assert status == 1, said
    assert "totals.finite broke" in said
    assert "1 image(s)" in said
    assert "usual causes  1. A division by a sum of scores" in said


@pytest.mark.slow
def test_what_is_no_fault_of_the_loss_is_explained_as_well(tmp_path: Path):
    """Labels."""
    with pytest.warns(StepWarning):
        run_of(watching(tmp_path), CASE, no_width)
    status, said = explained(tmp_path, "--loss", "yololoss:TaskAlignedLoss")
    assert (status, "no law is broken: the input is invalid" in said) == (2, True)


def test_a_loss_that_raises_is_saved(tmp_path: Path):
    """With what it was given; its result is none."""
    loss, refused = watching(tmp_path, make=TaskAlignedLoss), r"\[1, 2\] \(w\)"
    with pytest.warns(StepWarning, match="step 1: ValueError: "), pytest.raises(ValueError, match=refused):
        one_step(loss, CASE, no_width)
    assert saved(tmp_path).expected is None
    status, said = explained(tmp_path)
    assert (status, "a step of a loss of the family tal, and yololoss:ComputeLoss" in said) == (2, True), said


def test_a_gradient_that_is_not_finite_is_saved(tmp_path: Path):
    """Of a loss that hands out a NaN in its gradient alone."""

    class Spoils(TaskAlignedLoss):
        def __call__(self, preds: Any, batch: Any) -> Any:
            total, items = super().__call__(preds, batch)
            total.register_hook(lambda gradient: gradient * torch.nan)
            return total, items

    loss = watching(tmp_path, make=Spoils)
    with pytest.warns(StepWarning, match="a gradient of a prediction is not finite"):
        run_of(loss, CASE, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.zeros(3), {"batch_idx": torch.zeros(0)}), "UnknownForm: expected predictions"),
        (([torch.zeros(1, 35, 2, 2)], "nothing"), "UnknownForm: expected a batch"),
    ],
)
def test_a_run_goes_on_though_its_steps_cannot_be_watched(tmp_path: Path, arguments: Any, said: str):
    """It is said once."""

    class Any_(TaskAlignedLoss):
        def __call__(self, preds: Any, batch: Any) -> Any:
            return torch.zeros(3), torch.zeros(3)

    loss = watching(tmp_path, make=Any_)
    with pytest.warns(StepWarning, match=f"not watched any more: {said}"):
        loss(*arguments)
    loss(*arguments)


def test_what_a_loss_lacks_is_said_at_once():
    """Of every family that it might be of."""
    with pytest.raises(UsageError, match=r"has hyp: give the model.*as a loss of the family tal: .*has stride"):
        watch(torch.nn.Identity())


def test_a_large_batch_keeps_the_images_with_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the second of two."""
    monkeypatch.setattr("properties.shared.steps.MOST", 200)
    with pytest.warns(StepWarning, match="kept: images 1 of 2"):
        run_of(watching(tmp_path), CASE, no_width)
    kept = saved(tmp_path)
    assert (kept.case.batch, kept.expected) == (1, None)
    assert {row[0] for row in kept.case.targets} == {0.0}


def packed(case: Case = USUAL) -> Case:
    """A case with its logits packed, the sides of two anchors among them."""
    levels = [x.float().numpy() for x in case.logits]
    return case.changed(predictions=pack(levels, [np.array([1, 30]), np.array([], dtype=int)], case.classes))


def test_a_case_has_less_in_it_step_by_step():
    """Images, targets, levels, class logits, sides: each alone, halves first."""
    case = packed()
    found = [*steps.smaller(case)]
    assert [(each.batch, len(each.targets)) for each in found[:2]] == [(1, 1), (1, 2)]
    assert min(len(each.targets) for each in found) == 1
    assert FAMILY.steps.kept_of(found[0], case) == "target 0 (image 0, box 1)"
    sides = [sum(int(x[:, : 4 * each.reg_max].any(1).sum()) for x in each.logits) for each in found if each.levels == 2]
    assert (sides[-3:], len([each for each in found if each.levels == 1])) == ([2, 1, 1], 2)
    assert [*steps.smaller(USUAL)][-1].levels == 1
    assert "those of a training step" in str(case)
    assert not any(x.any() for x in case.with_logits([torch.zeros_like(x) for x in case.logits]).logits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": packed().predictions.levels[:1]}, "expected 2 levels, got 1"),
        ({"bits": 64}, "expected 144 numbers of 8 bytes"),
    ],
)
def test_packed_logits_that_do_not_fit_are_refused(change: dict[str, Any], said: str):
    """In a line."""
    case = packed()
    fields = case.model_dump() | {"predictions": case.predictions.model_dump() | change}
    with pytest.raises(ValueError, match=said):
        Case.model_validate(fields, strict=False)


def test_what_usually_is_wrong_depends_on_what_the_loss_was_given():
    """Of logits that are not finite, the network; of invalid targets, the labels; else the law."""
    assert FAMILY.steps.usual_causes("totals.finite", USUAL) == steps.CAUSES["totals.finite"]
    bad = USUAL.changed(targets=((0.0, 0.0, 0.1, 0.1, 0.5, 0.0),))
    assert FAMILY.steps.usual_causes("boxes.item", bad) == OF_TARGETS
    assert FAMILY.steps.invalid_input(bad) == ["target 0 (image 0, box 1) has height 0"]
    spoilt = USUAL.with_logits([x * torch.nan for x in USUAL.logits])
    assert FAMILY.steps.usual_causes("totals.finite", spoilt) == OF_LOGITS
    assert FAMILY.steps.invalid_input(spoilt)[0].endswith("logits are not finite")
