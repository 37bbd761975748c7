"""Exported tests: text that fails on the faulty loss and passes on the mended one, without this package."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch

from properties.tal.case import Head
from properties.tal.case import SeededLogits as SeededSides
from properties.tal.family import FAMILY as TAL
from properties.tal.strategies import USUAL
from properties.v5.case import Case, Options, SeededLogits
from tests.all_laws import V5
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.faults.tal import BY_NAME as TAL_FAULTS
from tests.faults.tal import LOSSES as TAL_LOSSES
from tests.judging import on_its_device
from tests.test_cli import run
from yololoss.harness.cli.options import write_tests
from yololoss.harness.engine.judge import judged
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.export import export
from yololoss.harness.findings.finding import keep
from yololoss.harness.laws.exam import Law, Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import import_loss, load_loss
from yololoss.v5.hyp import Hyperparameters

LAWS = find_laws(V5)
TAL_LAWS = find_laws(TAL)
PLAIN = Case(
    batch=2,
    classes=2,
    grids=((2, 2),),
    strides=(16.0,),
    anchors=(((1.0, 1.0), (1.5, 1.5)),),
    targets=((0.0, 0.0, 0.3, 1.0, 0.5, 0.5), (0.0, 1.0, 0.3, 1.0, 0.5, 0.5)),
    predictions=SeededLogits(seed=0, scale=4.0),
)
TWO = PLAIN.changed(grids=((2, 2), (1, 1)), strides=(16.0, 32.0), anchors=PLAIN.anchors * 2)
ONE = PLAIN.changed(targets=((0.0, 0.0, 0.1, 0.1, 0.5, 0.5),), anchors=(((1.0, 1.0),),))


def exported(law: Law, case: Any, subject: LossUnderTest, folder: Path) -> str:
    """The test that is written of a finding."""
    told, _ = judged(law, Run(subject, case))
    assert told is not None
    path = export(keep(told.broken(law, case), subject, folder, {}, drawn=False), subject)
    assert path.name.startswith("test_")
    return path.read_text(encoding="utf-8")


def passes(text: str, spec: str) -> bool:
    """Whether the test passes on this loss, wherever the test expects it."""
    (wanted,) = (line for line in text.splitlines() if line.startswith("from ") and line.endswith("Loss"))
    _, name, _, loss = wanted.split()
    module = ModuleType(name)
    setattr(module, loss, import_loss(spec)[0])
    space: dict = {}
    with patch.dict(sys.modules, {name: module}):
        exec(compile(text, "exported", "exec"), space)
    (test,) = (value for key, value in space.items() if key.startswith("test_"))
    try:
        test()
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    ("fault", "law", "case"),
    [
        ("clamp_dropped", "assign.clamped-indices", PLAIN),
        ("no_neighbours", "assign.neighbours", PLAIN),
        ("rows_by_pair", "assign.row-order", PLAIN),
        ("distance_not_squared", "boxes.item", PLAIN),
        ("distance_not_squared", "boxes.gradient", PLAIN),
        ("balance_shifted", "objectness.item", PLAIN),
        ("no_batch", "totals.sum", PLAIN),
        ("items_times_batch", "totals.sum", PLAIN),
        ("gain_by_classes", "classes.item", PLAIN),
        ("mean_of_nothing", "totals.finite", PLAIN.changed(targets=())),
        ("power_of_zero", "gradients.finite", PLAIN.changed(hyp=Hyperparameters(fl_gamma=0.5))),
        ("sorting_needs_two_rows", "run.no-exception", ONE.changed(options=Options(sort_obj_iou=True, gr=0.5))),
        ("autobalance_faster", "totals.value", TWO.changed(options=Options(autobalance=True, calls=2))),
    ],
)
def test_an_exported_test_fails_on_the_faulty_loss_and_passes_on_the_right_one(fault, law, case, tmp_path):
    """It has the case as plain tensors, the call, and what the law says."""
    if fault == "power_of_zero":  # saturated logits
        case = case.changed(predictions=SeededLogits(seed=0, scale=60.0))
    spec = plant(BY_NAME[fault], tmp_path)
    text = exported(LAWS[law], case, on_its_device(spec, "cpu"), tmp_path)
    assert "yololoss" not in "\n".join(line for line in text.splitlines() if "import" in line)
    assert passes(text, "yololoss:ComputeLoss")
    assert not passes(text, spec)


@pytest.mark.parametrize(
    ("fault", "law", "case"),
    [
        ("hard", "scores.value", USUAL),
        ("unweighted", "boxes.item", USUAL),
        ("sum_of_sides", "third.item", USUAL.changed(form="mapping", topk=5)),
        ("eps_missing", "totals.finite", USUAL),
        ("alpha_with_gradient", "gradients.value", USUAL.changed(class_weights=(1.0, 2.0, 0.5))),
    ],
)
def test_a_test_of_a_task_aligned_loss_fails_and_passes_alike(fault, law, case, tmp_path):
    """In both forms of predictions, with options of the constructor."""
    spec = plant(TAL_FAULTS[fault], tmp_path)
    text = exported(TAL_LAWS[law], case, on_its_device(spec, "cpu"), tmp_path)
    assert passes(text, "yololoss:TaskAlignedLoss")
    assert not passes(text, spec)


@pytest.mark.parametrize(
    ("fault", "law", "head", "form"),
    [
        ("hard", "scores.value", Head(name="one2many", updates=3, epochs=10), "levels"),
        ("sum_of_sides", "third.item", Head(name="one2one", updates=1), "mapping"),
        ("sum_of_sides", "totals.value", Head(name="one2many"), "mapping"),
    ],
)
def test_a_test_of_a_loss_with_two_heads_fails_and_passes_alike(fault, law, head, form, tmp_path):
    """Each head beside one that adds nothing, with its weight after some epochs."""
    spec = plant(replace(TAL_FAULTS[fault], loss=TAL_LOSSES["YOLO26"]), tmp_path)
    text = exported(
        TAL_LAWS[law],
        USUAL.changed(head=head, form=form),
        on_its_device(spec, "cpu", "yololoss, heads = YOLO26"),
        tmp_path,
    )
    assert passes(text, "yololoss:E2ELoss")
    assert not passes(text, spec)


@pytest.mark.parametrize(
    ("law", "case", "why"),
    [
        ("state.pickle", USUAL, "this law compares several runs of the loss"),
        ("boxes.item", USUAL.changed(targets=((9.0, 0.0, 0.5, 0.5, 0.1, 0.1),)), "its inputs are invalid"),
        (
            "boxes.item",
            USUAL.changed(topk=1, predictions=SeededSides(seed=0, box_scale=0.0, cls_scale=0.0)),
            "rounding decides which anchors its targets get",
        ),
    ],
)
def test_what_cannot_be_exported_of_a_task_aligned_loss(law, case, why):
    """As where two anchors are alike: there the reference is one of several right answers."""
    with pytest.raises(UsageError, match=f"{law}: no test can be exported, since {why}"):
        TAL.exported(TAL_LAWS[law], case, "title", on_its_device("yololoss:TaskAlignedLoss", "cpu"))


@pytest.mark.parametrize(
    ("law", "case", "why"),
    [
        ("state.second-object", PLAIN, "this law compares several runs of the loss"),
        ("run.no-output", PLAIN, "this law is about what the loss does beside its work"),
        ("boxes.item", PLAIN.changed(layout="sliced"), "the predictions of its case are sliced"),
        ("boxes.item", PLAIN.changed(batch=200), "its case has more than 4096 logits"),
    ],
)
def test_what_cannot_be_exported_says_why(law, case, why):
    """One line, with what judges the case instead."""
    with pytest.raises(UsageError, match=f"{law}: no test can be exported, since {why}; replay judges its saved case"):
        V5.exported(LAWS[law], case, "title", on_its_device("yololoss:ComputeLoss", "cpu"))


def test_a_loss_without_specification_has_no_test():
    """Its numbers are its own."""
    subject = on_its_device("yololoss:ComputeLoss", "cpu", "overlap = own")
    with pytest.raises(UsageError, match="a part of this loss has no specification"):
        V5.exported(LAWS["boxes.item"], PLAIN, "title", subject)


def test_other_call_forms_are_exported(tmp_path):
    """A function of (p, targets, model); a class that also takes images."""
    for name, call in (
        ("compute_loss", "compute_loss(p, targets, model)"),
        ("WithImages", "loss(p, targets, torch.zeros((2, 3, 32, 32)))"),
    ):
        (tmp_path / "forms.py").write_text(FORMS, encoding="utf-8")
        subject = on_its_device(f"{tmp_path / 'forms.py'}:{name}", "cpu")
        text = V5.exported(LAWS["boxes.item"], PLAIN, "title", subject)
        assert f"from forms import {name}\n" in text
        assert f"total, items = {call}\n" in text


FORMS = """
from yololoss import ComputeLoss

def compute_loss(p, targets, model):
    return ComputeLoss(model)(p, targets)

class WithImages:
    def __init__(self, model):
        self.loss = ComputeLoss(model)
    def __call__(self, p, targets, images):
        return self.loss(p, targets)
"""


def test_replay_exports_what_is_still_broken(tmp_path):
    """And says where; of a law that allows no test, why."""
    spec = plant(BY_NAME["no_batch"], tmp_path)
    subject = on_its_device(spec, "cpu")
    told, _ = judged(LAWS["totals.sum"], Run(subject, PLAIN))
    assert told is not None
    finding = keep(told.broken(LAWS["totals.sum"], PLAIN), subject, tmp_path, {}, drawn=False)
    options = ("--loss", spec, "--findings", tmp_path, "--export", "pytest")
    status, output, _ = run("replay", finding.path, *options, cwd=tmp_path)
    path = Path(finding.path.replace("totals.sum-", "test_totals_sum_")).with_suffix(".py")
    assert (status, output.splitlines()[-1]) == (1, f"test: {path}")
    assert "def test_totals_sum():" in path.read_text(encoding="utf-8")
    other = finding.model_copy(update={"law": "state.pickle"})
    (line,) = write_tests([other], subject)
    assert line.startswith("no test: state.pickle: no test can be exported, since this law compares several runs")


def test_a_family_without_words_has_no_test():
    """As long as it has none."""
    toy = load_loss("tests.toy.loss:CrossEntropy", torch.device("cpu")).family
    with pytest.raises(UsageError, match="losses of the family toy have no test"):
        toy.exported(LAWS["boxes.item"], PLAIN, "title", on_its_device("yololoss:ComputeLoss", "cpu"))
