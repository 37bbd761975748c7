"""The recorder: a step of a training run in which something is wrong is saved, and changes nothing of the run."""

import copy
import json
import pickle
import random
import subprocess
import sys
import time
import warnings
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn.parallel import DistributedDataParallel

from examples.training.train import CLASSES, Detector, batch, train
from properties.shared.steps import OF_TARGETS, parts
from properties.v5 import steps
from properties.v5.case import Case, Options, SeededLogits
from properties.v5.packed import pack
from properties.v5.training import Training
from tests.all_laws import ROOT
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.groups import holds_in_a_group
from tests.judging import on_its_device
from yololoss import ComputeLoss, watch
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.cli import main
from yololoss.harness.devices import mirror
from yololoss.harness.engine.guard import Guarded
from yololoss.harness.engine.judge import MEMORY, judged
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.laws.exam import Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import with_record
from yololoss.harness.subjects.load import find_device, import_loss
from yololoss.harness.training.watch import KEEP, Recorder, Settings, StepWarning, _finish, _Pending


def unchecked(model: Any) -> ComputeLoss:
    """The bundled loss, which then refuses no input."""
    return ComputeLoss(model, checks=False)


def watching(folder: Path, make: Any = unchecked, **options: Any) -> Any:
    """Makes a watched loss of a model."""
    return lambda model: watch(make(model), model, folder=folder, **options)


def at(number: int, change: Any) -> Any:
    """Change predictions or targets in one step."""

    def spoil(step: int, predictions: Any, targets: Any) -> None:
        if step == number:
            with torch.no_grad():
                change(predictions, targets)

    return spoil


def saved(folder: Path) -> list[Any]:
    """The saved cases, with what is said of them."""
    return [vector for path in sorted(folder.glob("*.json")) for vector in read_vectors(path).vectors]


def nan_logit(predictions: Any, targets: Any) -> None:
    """A NaN among the predictions."""
    predictions[0][1, 0, 2, 2, 4] = torch.nan


def no_height(predictions: Any, targets: Any) -> None:
    """A box of no height."""
    targets[3, 5] = 0


def no_size(predictions: Any, targets: Any) -> None:
    """Predicted boxes without a size, in every cell."""
    predictions[0][..., 2:4] = -100.0


def replayed(path: Path, loss: str = "yololoss:ComputeLoss") -> str:
    """What replay says of a saved step."""
    return CliRunner().invoke(main, ["replay", str(path), "--loss", loss, "--dialect", "yololoss"]).output


def test_a_run_that_goes_well_is_the_same_and_nothing_is_saved(tmp_path):
    """Weights are the same, bit for bit."""
    alone, watched = train(unchecked, 4), train(watching(tmp_path), 4)
    assert all(torch.equal(*each) for each in zip(alone.parameters(), watched.parameters(), strict=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_height, r"step 2: target 3 \(image 3, box 1\) has height 0"),
        (nan_logit, "obj nan.*; the loss was given 1 logits that are not finite; a gradient"),
    ],
)
def test_a_step_is_saved_when_it_goes_wrong(tmp_path, change, said):
    """Once: the steps after it are wrong for the same reason."""
    with pytest.warns(StepWarning, match=said):
        train(watching(tmp_path), 4, at(2, change))
    (vector,) = saved(tmp_path)
    assert "step 2: " in vector.comment
    images, targets = batch(2)
    predictions = train(unchecked, 1)(images)
    at(2, change)(2, predictions, targets)
    assert torch.equal(vector.case.target_rows, targets)
    for kept, everything in zip(vector.case.logits, predictions, strict=True):
        assert torch.equal(kept[..., 4].nan_to_num(9), everything[..., 4].nan_to_num(9))


def test_the_case_of_a_step_breaks_the_law_again(tmp_path):
    """A loss that divides by the size of a predicted box; all that it reads of the predictions is in the file."""
    spec = plant(BY_NAME["angle_by_division"], tmp_path)
    with pytest.warns(StepWarning, match="step 3: total nan, box nan"):
        train(watching(tmp_path / "steps", import_loss(spec)[0]), 4, at(3, no_size))
    (vector,) = saved(tmp_path / "steps")
    for loss, breaks in ((spec, True), ("yololoss:ComputeLoss", False)):
        plan = Plan((vector.law,), on_its_device(loss, "cpu"))
        told, _ = judged(plan.laws[vector.law], Run(plan.subject, vector.case))
        assert (told is not None) == breaks


def test_a_network_that_explodes_is_no_fault_of_the_loss(tmp_path):
    """Its logits are not finite: replay says so."""
    with pytest.warns(StepWarning, match="logits that are not finite"):
        train(watching(tmp_path), 6, rate=lambda step: 1e30 if step > 2 else 0.01)
    (path,) = tmp_path.iterdir()
    assert "cannot run: the case is no valid input" in replayed(path)


def test_a_loss_that_raises_is_saved_and_raises(tmp_path):
    """The bundled loss refuses a target of an unknown class."""
    with pytest.warns(StepWarning, match="step 2: ValueError: "), pytest.raises(ValueError, match="class"):
        train(watching(tmp_path, ComputeLoss), 4, at(2, lambda p, t: t[0].fill_(CLASSES)))
    (vector,) = saved(tmp_path)
    assert vector.law == "run.no-exception"


def given(dtype: torch.dtype = torch.float32, images: int = 2) -> list[torch.Tensor]:
    """Predictions of zeros, as a head returns them: not leaves."""
    return [torch.zeros(images, 2, n, n, 5 + CLASSES, dtype=dtype, requires_grad=True).clone() for n in (8, 4)]


def call(loss: Any, targets: Any = None, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> None:
    """A step on predictions of zeros, whose total is scaled as a GradScaler does."""
    total, _ = loss(given(dtype), batch(1, images=2)[1] if targets is None else targets)
    (total * scale).sum().backward()


def twice(loss: Any, targets: Any = None, **options: Any) -> None:
    """Two steps: the second looks at the first."""
    call(loss, targets, **options)
    call(loss, targets, **options)


class Overflows(ComputeLoss):
    """A loss whose gradient is not finite, though its total is."""

    def __call__(self, p: Any, targets: Any) -> Any:
        """As usual, and a root of 0."""
        total, items = super().__call__(p, targets)
        return total + (p[0] * 0).sqrt().sum(), items


@pytest.mark.parametrize(
    ("scale", "dtype", "files"), [(1.0, torch.float16, 1), (65536.0, torch.float16, 0), (65536.0, torch.float32, 1)]
)
def test_a_gradient_that_is_not_finite_is_saved_unless_the_total_is_scaled_for_float16(tmp_path, scale, dtype, files):
    """There a scaler skips the step, and halves the scale until it is finite."""
    loss = watch(Overflows(Detector(), checks=False), Detector(), folder=tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        twice(loss, scale=scale, dtype=dtype)
    assert len(saved(tmp_path)) == len(told) == files
    assert all(vector.law == "gradients.finite" for vector in saved(tmp_path))


@pytest.mark.filterwarnings("ignore::yololoss.harness.training.watch.StepWarning")
def test_the_latest_files_of_each_kind_are_kept(tmp_path):
    """Of more troubles than that, the first are deleted."""
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path, keep=2)
    for step in range(9):
        call(loss, torch.zeros(step % 2, 6))
    assert [vector.id.partition("-step-")[2] for vector in saved(tmp_path)] == ["6-target", "8-target"]
    assert KEEP == 10


def test_the_last_step_is_looked_at_when_the_process_ends(tmp_path):
    """It has no next step."""
    recorder = Recorder(Training(unchecked(Detector()), Detector()), Settings(tmp_path, 1, True, 0, None, None, "a:b"))
    recorder.call(unchecked(Detector()), given(), torch.zeros(1, 6))
    with pytest.warns(StepWarning, match="step 1: target 0"):
        _finish(lambda: recorder)
    _finish(lambda: None)


def test_a_saved_step_is_the_same_when_it_runs_again(tmp_path):
    """Bit for bit, also after steps that moved the balance of the layers."""
    made = partial(ComputeLoss, autobalance=True, checks=False)
    with pytest.warns(StepWarning, match="step 3: target 3 "):
        train(watching(tmp_path, made), 4, at(3, no_height))
    (vector,) = saved(tmp_path)
    assert vector.case.options.autobalance
    assert vector.case.options.balance != tuple(made(Detector()).balance)
    plan = Plan((), on_its_device("tests.subjects.conforming_forms:Unchecked", "cpu"))
    (now,) = Run(plan.subject, vector.case).outcome.calls
    (then,) = vector.expected.calls
    assert (now.total, *now.items) == (then.total, then.box, then.obj, then.cls)
    law = find_laws(plan.subject.family)["baseline.values"]
    run = Run(with_record(plan.subject, vector), vector.case)
    assert judged(law, run)[0] is None
    assert law.tally.judged


def test_a_balance_has_a_number_for_each_layer():
    """More are allowed, as losses have."""
    case = packed()
    assert case.changed(options=Options(balance=(1.0, 2.0))).options.balance == (1, 2)
    with pytest.raises(ValueError, match=r"options.balance: expected 1 numbers or more, got 0"):
        case.changed(options=Options(balance=()))


def test_images_have_the_names_that_the_trainer_gives(tmp_path):
    """They are saved with the step."""
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path, names=lambda: ["a.jpg", Path("b.jpg")])
    with pytest.warns(StepWarning, match="has width 0"):
        twice(loss, torch.zeros(1, 6))
    (path,) = tmp_path.iterdir()
    source = read_vectors(path).source
    assert (source["image 0"], source["image 1"], source["step"]) == ("a.jpg", "b.jpg", "1")


def train_as(form: str, model: Any, loss: Any) -> None:
    """Train for four steps as many trainers do; the third has a target without width."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=form == "scaled")
    for step in range(1, 5):
        images, targets = batch(step)
        targets[1, 4] *= step != 3
        with torch.autocast("cpu", torch.bfloat16, enabled=form == "scaled"):
            predictions = model(images)
        scaler.scale(loss(predictions, targets)[0].sum()).backward()
        if form != "accumulated" or step % 2 == 0:
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()


@pytest.mark.parametrize("form", ["scaled", "compiled", "accumulated"])
def test_trainers_of_every_kind_are_watched(tmp_path, form):
    """Mixed precision with a GradScaler, a compiled model, gradients of several steps."""
    model = Detector()
    loss = watch(unchecked(model), model, folder=tmp_path)
    with pytest.warns(StepWarning, match="step 3: target 1 "):
        train_as(form, torch.compile(model, backend="eager") if form == "compiled" else model, loss)
    assert [vector.id.rpartition("-")[2] for vector in saved(tmp_path)] == ["target"]


def until_ended(loss: Any, recorder: Recorder) -> None:
    """Call the loss until the process that judges its first step has ended, and once more, to hear of it."""
    loss(given(), batch(1, images=2)[1])
    recorder._sample.process.wait()
    loss(given(), batch(1, images=2)[1])


@pytest.mark.slow
def test_another_process_judges_a_step_now_and_then(tmp_path, monkeypatch):
    """A fault whose values are finite is found as well. A loss that cannot be loaded there is told once."""
    monkeypatch.chdir(tmp_path)
    spec = plant(BY_NAME["alpha_is_one"], tmp_path)
    model = Detector()
    for name, loss, own, said in (
        ("wrong", import_loss(spec)[0](model), spec, "step 1: boxes.item broke: .* More: wrong/.*txt"),
        ("other", unchecked(model), "nowhere:Loss", "steps are not judged any more: yololoss: .*nowhere"),
    ):
        recorder = Recorder(Training(loss, model), Settings(Path(name), 1, True, 1, "yololoss", None, own))
        with pytest.warns(StepWarning, match=said):
            until_ended(partial(recorder.call, loss), recorder)
        recorder.end()
    assert not list(Path("other").iterdir())
    (path,) = Path("wrong").glob("*-sample.txt")
    assert "it comes from target " in path.read_text(encoding="utf-8")
    loss = unchecked(model)
    recorder = Recorder(
        Training(loss, model), Settings(Path("invalid"), 1, False, 1, None, None, "yololoss:ComputeLoss")
    )
    loss_of = partial(recorder.call, loss)
    loss_of(given(), torch.zeros(1, 6))
    recorder._sample.process.wait()
    loss_of(given(), torch.zeros(1, 6))  # nothing is told: the input is invalid, and the next step is judged
    assert recorder._sample is not None
    recorder.end()
    recorder = Recorder(Training(loss, model), Settings(Path("right"), 1, True, 1, None, None, "yololoss:ComputeLoss"))
    until_ended(partial(recorder.call, loss), recorder)
    assert len(list(Path("right").iterdir())) == 2  # of the second step, which is judged now
    recorder.end()
    assert not list(Path("right").iterdir())


class Module(torch.nn.Module):
    """A loss that is a module, and returns its total alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = unchecked(Detector())

    def forward(self, p: Any, targets: Any) -> Any:
        """The total."""
        return self.inner(p, targets)[0]


def function(p: Any, targets: Any) -> Any:
    """A loss that is a function, and returns its items as numbers."""
    total, items = unchecked(Detector())(p, targets)
    return total, items.tolist()


@pytest.mark.parametrize("loss", [Module(), function], ids=["module", "function"])
def test_functions_modules_and_keywords_are_watched(tmp_path, loss):
    """With a model in a wrapper for several GPUs as well."""
    watched = watch(loss, torch.nn.DataParallel(Detector()), folder=tmp_path)
    assert isinstance(watched, type(loss))
    watched(given(), targets=torch.zeros(1, 6))
    with pytest.warns(StepWarning, match=f"has width 0.* --loss tests.test_training:{type(loss).__name__[:0]}"):
        watched(given(), targets=torch.zeros(1, 6))
    assert len(saved(tmp_path)) == 1


class Named:
    """Its copies are one object, found by name."""

    def __call__(self, p: Any, targets: Any) -> Any:
        """No loss."""

    def __reduce__(self) -> Any:
        return "NAMED"


NAMED = Named()


def test_a_copy_and_a_pickle_are_of_the_class_as_it_was(tmp_path):
    """They are not watched."""
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path)
    assert isinstance(loss, ComputeLoss)
    copies = copy.deepcopy(loss), *(pickle.loads(pickle.dumps(loss, protocol)) for protocol in (0, 2, 5))
    assert {type(each) for each in copies} == {ComputeLoss}
    assert copies[-1].balance == loss.balance
    assert copy.copy(watch(NAMED, Detector(), folder=tmp_path)) is NAMED


def test_what_cannot_be_watched_is_said_at_once():
    """Not at step 41,312."""
    with pytest.raises(UsageError, match="neither it nor a model has hyp: give the model"):
        watch(function)
    with pytest.raises(UsageError, match="partial: calls of such an object cannot be watched"):
        watch(partial(function), Detector())
    with pytest.raises(UsageError, match="no such family"):
        watch(function, Detector(), family="v9")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([torch.zeros(1, 3)], torch.zeros(1, 6)), "UnknownForm: expected a list of predictions"),
        (([torch.zeros(2, 2, 4, 4, 8)], "nothing"), r"UnknownForm: expected targets \(N, 6\)"),
    ],
)
def test_a_run_goes_on_though_its_steps_cannot_be_watched(tmp_path, arguments, said):
    """It is said once."""
    loss = watch(lambda p, targets: torch.zeros(1), Detector(), folder=tmp_path)
    with pytest.warns(StepWarning, match=f"not watched any more: {said}"):
        loss(*arguments)
    assert loss(*arguments) == 0


def test_a_step_that_cannot_be_saved_is_told_all_the_same(tmp_path, monkeypatch):
    """Its folder is a file; its file would be too large."""
    (tmp_path / "file").touch()
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path / "file")
    with pytest.warns(StepWarning, match="has width 0.*could not be saved: "):
        twice(loss, torch.zeros(1, 6))
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path / "file", every=1)
    with pytest.warns(StepWarning, match="steps are not judged any more: "):
        call(loss)
    call(loss)
    monkeypatch.setattr("yololoss.harness.training.watch.LARGEST", 100)
    loss = watch(unchecked(Detector()), Detector(), folder=tmp_path / "large")
    with pytest.warns(StepWarning, match="its file would be larger than 100 bytes"):
        twice(loss, torch.zeros(1, 6))
    assert not list((tmp_path / "large").iterdir())


def test_a_large_batch_keeps_the_images_with_trouble(tmp_path, monkeypatch):
    """Others as far as there is room. What belongs to no image is kept."""
    monkeypatch.setattr("properties.shared.steps.MOST", 4000)
    loss = watch(lambda p, targets: (p[0].sum(), None), Detector(), folder=tmp_path)
    targets = batch(1, images=16)[1]
    targets[12, 4], targets[30, 0], targets[31, 0] = -1, -1, 16
    predictions = [torch.randn(16, 2, n, n, 5 + CLASSES) for n in (8, 4)]
    predictions[1][14, 1, 2, 3, 7] = torch.inf
    loss(predictions, targets)
    with pytest.warns(StepWarning, match=r"has width -1.*; kept: images 0, .*12, 14 of 16"):
        loss(predictions, targets)
    (vector,) = saved(tmp_path)
    case, kept = vector.case, [int(n) for n in vector.comment.partition("images ")[2].partition(" of")[0].split(",")]
    assert case.batch == len(kept) < 16
    assert [row[0] for row in case.targets if not 0 <= row[0] < case.batch] == [-1, case.batch]
    for new, old in enumerate(kept):
        rows = targets[targets[:, 0] == old]
        assert case.target_rows[case.target_rows[:, 0] == new][:, 1:].tolist() == rows[:, 1:].tolist()
        assert torch.equal(case.logits[0][new, ..., 4], predictions[0][old, ..., 4])
    assert case.logits[1][kept.index(14), 1, 2, 3, 7] == torch.inf


class Own:
    """A loss that has what others read of a model: under other names, and with its own switches."""

    hyp = SimpleNamespace(giou=0.25, lr0=0.01)
    anchors = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    sort_obj_iou, gr = True, 0.5

    def __call__(self, p: Any, targets: Any) -> Any:
        """A total, and items in a tuple."""
        return p[0].sum(), (torch.zeros(()), 0.0)


class Unreadable(Own):
    """A loss whose state cannot be read."""

    @property
    def autobalance(self) -> bool:
        """Raise."""
        raise RuntimeError("not now")


def test_a_loss_whose_state_cannot_be_read_trains_all_the_same(tmp_path):
    """It is said once."""
    loss = watch(Unreadable(), folder=tmp_path)
    with pytest.warns(StepWarning, match="not watched any more: RuntimeError: not now"):
        call(loss)
    call(loss)


def test_what_a_loss_keeps_is_read_before_what_its_model_has(tmp_path):
    """Strides follow from the grids if nothing says them."""
    loss = watch(Own(), folder=tmp_path)
    predictions = [torch.full((1, 1, n, n, 6), torch.nan, dtype=torch.float64) for n in (8, 4)]
    loss(predictions, torch.zeros(0, 6))
    with pytest.warns(StepWarning, match="total nan, box 0, obj 0; the loss was given"):
        loss(predictions, torch.zeros(0, 6))
    case = saved(tmp_path)[0].case
    assert (case.hyp.box, case.options.gr, case.options.sort_obj_iou) == (0.25, 0.5, True)
    assert (case.strides, case.dtype) == ((8.0, 16.0), "float64")


class OnDevice(Own):
    """A loss that waits for nothing."""

    def __call__(self, p: Any, targets: Any) -> Any:
        """A total on the device of the predictions."""
        return p[0].sum() + p[1].sum(), torch.zeros(2, device=p[0].device)


def test_no_step_waits_for_the_device(tmp_path):
    """On the simulated accelerator. Flags are read when their copy is there."""
    device = find_device(mirror.NAME)
    mirror.MIRROR.begin(0)
    loss, targets = watch(OnDevice(), folder=tmp_path), torch.zeros(1, 6)
    predictions = [each.detach().to(device).requires_grad_() for each in given()]
    right = torch.ones(1, 6).to(device)
    loss(predictions, right)  # the first step sends the bounds of a target
    mirror.MIRROR.waits.clear()
    with torch.autograd.set_multithreading_enabled(False):
        for each in (right, right, targets):  # of the last, targets are on the host
            loss([p * 1 for p in predictions], each)[0].backward()
    assert not mirror.MIRROR.waits
    with pytest.warns(StepWarning, match="has width 0"):
        loss(predictions, targets)
    late = _Pending(1, None, [], right, [(targets, SimpleNamespace(query=lambda: False))])
    assert not late.ready


GIVEN = SeededLogits(seed=1)


def packed(**change: Any) -> Case:
    """A case with packed logits, with other text in its only layer."""
    logits = pack([np.ones((1, 1, 2, 3, 6), np.float32)], [np.array([4, 1, 4])])
    layer = logits.layers[0].model_copy(update=change)
    fields = {"grids": ((2, 3),), "strides": (8.0,), "anchors": (((1.0, 1.0),),), "targets": ()}
    made = json.loads(logits.model_copy(update={"layers": (layer,) * change.pop("n", 1)}).model_dump_json())
    return Case.model_validate({"batch": 1, "classes": 1, **fields, "predictions": made}, strict=False)


def test_packed_logits_are_those_that_were_packed():
    """All of the cells that are kept, the objectness of the others."""
    case = packed()
    assert case.logits[0].reshape(6, 6).sum(1).tolist() == [1, 6, 1, 1, 6, 1]
    assert "logits: of a training step" in str(case)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objectness": "%"}, "expected numbers compressed by zlib, in base64"),
        ({"objectness": "AAAA"}, "expected numbers compressed by zlib, in base64"),
        ({"objectness": packed().predictions.layers[0].logits}, "expected 6 numbers of 4 bytes, got 25 bytes"),
        ({"cells": packed().predictions.layers[0].logits}, "at most 6 numbers of 4 bytes"),
        ({"cells": packed().predictions.layers[0].objectness}, "expected ascending indices below 6"),
        ({"n": 2}, "2 packed layers, expected 1"),
    ],
)
def test_packed_logits_that_do_not_fit_are_refused(change, said):
    """Whatever a small file would unpack to, no more is unpacked than the case has."""
    with pytest.raises(ValueError, match=said):
        packed(**change)


def save_on_and_on(folder: Path) -> None:
    """Every other step has trouble."""
    loss = watch(unchecked(Detector()), Detector(), folder=folder, keep=3)
    warnings.simplefilter("ignore")
    for step in count():
        call(loss, torch.zeros(step % 2, 6))


def train_distributed(folder: Path) -> None:
    """Train a model of several processes, here of one."""
    model = Detector()
    loss = watch(unchecked(model), model, folder=folder / "steps")
    with pytest.warns(StepWarning, match="step 3: target 1 "):
        train_as("distributed", DistributedDataParallel(model), loss)


@pytest.mark.slow
def test_a_distributed_run_is_watched(tmp_path):
    """The model is in DistributedDataParallel. The loss is made from the model itself."""
    assert holds_in_a_group(train_distributed, tmp_path)
    assert [vector.id.rpartition("-")[2] for vector in saved(tmp_path / "steps")] == ["target"]


@pytest.mark.slow
def test_files_are_whole_whenever_the_run_is_killed(tmp_path):
    """At 20 random moments, the first while the process starts."""
    chance, kept = random.Random(0), 0
    for moment in range(20):
        process = Guarded(save_on_and_on, (tmp_path,), MEMORY)
        until = time.monotonic() + 10
        while moment and len(list(tmp_path.glob("*.json"))) <= kept and time.monotonic() < until:
            time.sleep(0.01)  # until it has saved something
        time.sleep(chance.random() / 10)
        process.kill()
        kept = len(saved(tmp_path))
    assert kept >= 19


@pytest.mark.slow
def test_the_example_saves_its_step(tmp_path):
    """examples/training/train.py, as its guide says."""
    script = ROOT / "examples" / "training" / "train.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "StepWarning: yololoss: step 50: target 5 (image 1, box 2) has height 0. Saved; to see why: " in done.stderr
    assert len(saved(tmp_path / ".yololoss" / "steps")) == 1


def explained(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of ``explain`` on the only saved step."""
    (path,) = folder.glob("*.json")
    done = CliRunner().invoke(main, ["explain", str(path), "--findings", str(folder), *arguments])
    return done.exit_code, done.output


@pytest.mark.slow
def test_a_step_is_explained_by_the_target_that_did_it(tmp_path):
    """The dialect is found out; the case that is shown has one image and one target, and is saved as a finding."""
    spec = plant(BY_NAME["angle_by_division"], tmp_path)
    make = watching(tmp_path / "steps", import_loss(spec)[0], names=lambda: [f"{n}.jpg" for n in range(4)])
    with pytest.warns(StepWarning, match="step 3: total nan"):
        train(make, 4, at(3, lambda p, t: no_size([p[0][2:3]], t)))
    status, said = explained(tmp_path / "steps", "--loss", spec)
    assert status == 1, said
    assert "dialect: " in said.splitlines()[0]
    assert "it comes from target 2 (image 2 2.jpg, box 1) of the step" in said
    assert "totals.finite broke: The box item is NaN where a predicted box has no width and height" in said
    assert "1 image(s), 3 class(es)" in said
    assert "usual causes  1. A division by the area" in said
    assert [*(tmp_path / "steps").glob("totals.finite-*.json")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (
            no_height,
            2,
            ["invalid: target 3 (image 3, box 1) has height 0", "no law is broken: the input is invalid", "label"],
        ),
        (nan_logit, 2, ["invalid: 1 logits are not finite", "the input is invalid", "learning rate"]),
    ],
)
def test_what_is_no_fault_of_the_loss_is_explained_as_well(tmp_path, change, status, said):
    """Labels, and the network."""
    with pytest.warns(StepWarning):
        train(watching(tmp_path), 4, at(2, change))
    found, output = explained(tmp_path)
    assert (found, [part for part in said if part not in output]) == (status, [])


def test_only_a_saved_step_can_be_explained():
    """Golden values are several cases."""
    path = ROOT / "golden" / "v5" / "upstream-5081342f04fb.json"
    done = CliRunner().invoke(main, ["explain", str(path)])
    assert (done.exit_code, done.output.strip()) == (2, f"yololoss: {path}: expected one saved step, got 46 cases")


def test_a_case_has_less_in_it_step_by_step():
    """Images, targets, layers, objectness, cells: each alone, halves first."""
    case = packed()
    both = case.changed(batch=2, targets=((0, 0, 0.1, 0.1, 0.5, 0.5), (1, 0, 0.9, 0.9, 0.5, 0.5)), predictions=GIVEN)
    found = [*steps.smaller(both)]
    assert [(each.batch, len(each.targets)) for each in found] == [(1, 1), (1, 1), (2, 1), (2, 1)]
    assert steps.STEPS.kept_of(found[1], both) == "target 1 (image 1, box 1)"
    plainer = [each.logits[0].reshape(6, 6) for each in steps.smaller(case)]
    assert [each[:, 4].sum() for each in plainer] == [
        0,
        1,
        1,
    ]  # objectness, then cells
    assert [*parts(4, least=0)][:3] == [[0, 1], [2, 3], [0]]
    assert [*parts(4)][-1] == [0, 1, 2]
    assert [*parts(1, least=0)] == [[]]


def test_layers_are_left_out_too():
    """Of two, either."""
    case = packed()
    fields = {name: getattr(case, name) * 2 for name in ("grids", "strides", "anchors")}
    two = case.changed(
        **fields, predictions=case.predictions.model_copy(update={"layers": case.predictions.layers * 2})
    )
    assert [each.layers for each in steps.smaller(two)][:2] == [1, 1]


def test_what_usually_is_wrong_depends_on_what_the_loss_was_given():
    """Of logits that are not finite, the network; of invalid targets, the labels; else the law."""
    case = packed()
    assert steps.STEPS.usual_causes("totals.finite", case) == steps.CAUSES["totals.finite"]
    assert steps.STEPS.usual_causes("boxes.item", case) == ()
    bad = case.changed(targets=((0, 0, 0.1, 0.1, 0.5, 0),))
    assert steps.STEPS.usual_causes("boxes.item", bad) == OF_TARGETS
    assert steps.STEPS.invalid_input(bad) == ["target 0 (image 0, box 1) has height 0"]
