"""The family of task-aligned losses: its reference, its budget, its laws on the bundled loss and on faulty ones."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from properties.tal import FAMILY
from properties.tal.allowed import Allowed
from properties.tal.budget import Budget
from properties.tal.case import Case, GivenLogits, SeededLogits
from properties.tal.dialects import DIALECTS
from properties.tal.reference import Reference
from properties.tal.strategies import USUAL
from tests.all_laws import ROOT
from tests.faults import Fault, plant
from tests.faults.tal import BY_NAME, CHOICES, CONFORMING, STEPS, TAL_FAULTS
from tests.faults.tal_forms import AS_PLAIN, FORMS, PLAIN, plant_form
from tests.judging import breaks, made, on_its_device, search
from tests.subjects.aligned_forms import FORMS as ALIGNED
from tests.tal_cases import drawn, slowly
from tests.test_cli import run
from yololoss.harness.cases.vectors import make_vector
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.baseline import baseline_cases, record_cases
from yololoss.harness.laws.exam import Run
from yololoss.harness.laws.law import SEED, find_laws
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import load_loss

BUNDLED = "yololoss:TaskAlignedLoss"
OWN = DIALECTS["yololoss"]
UPSTREAM = DIALECTS["upstream"]
SLOWLY = 1e-9  # two computations in float64, each of some hundred roundings, conditioned by the sixth power
QUICK = [fault for fault in TAL_FAULTS[::6] if fault.law != "run.time-limit"]  # which takes ten seconds


def test_plain_loops_give_the_numbers_of_the_reference():
    """`tests/tal_slowly.py` is a second implementation from the same page: scores and terms of 60 drawn cases."""
    compared = 0
    for case in drawn(60):
        r = Reference(case, OWN.but(half="own"))
        if Budget(case, OWN).doubt is not None:
            continue
        result = slowly(case)
        at = zip(r.rows.image.tolist(), r.rows.anchor.tolist(), r.row_scores, strict=True)
        for image, anchor, score in at:
            assert abs(result.score.get((image, anchor), 0.0) - score) <= SLOWLY
        terms = np.array(r.calls[0].items) / case.gains.values
        assert np.allclose(terms, result.terms, rtol=SLOWLY, atol=SLOWLY)
        compared += 1
    assert compared >= 30


def autograd(r: Reference) -> list[Tensor]:
    """The gradients that torch finds in float64, with scores, targets and alpha of CIoU held constant."""
    case = r.case
    levels = [level.double().clone().requires_grad_() for level in case.logits]
    joined = torch.cat([level.flatten(2) for level in levels], dim=2)
    bins, t = case.reg_max, torch.tensor(r.row_scores)
    logits = joined[:, 4 * bins :]
    weights = torch.tensor(r.class_weights)
    cls = (binary_cross_entropy_with_logits(logits, torch.tensor(r.score), reduction="none") * weights).sum()
    sides = joined[r.rows.image, : 4 * bins, r.rows.anchor].reshape(-1, 4, bins)
    distance = sides[..., 0] if bins == 1 else (sides.softmax(2) * torch.arange(bins)).sum(2)
    point, wanted = torch.tensor(r.points[r.rows.anchor]), torch.tensor(r.rows.wanted)
    box = torch.cat((point - distance[:, :2], point + distance[:, 2:]), dim=1)
    box_term = ((1 - _ciou(box, wanted, torch.tensor(r.laid.alpha))) * t).sum()
    if bins == 1:
        off = (distance - torch.tensor(r.wanted_distances)).abs() * torch.tensor(r.shares_of_image)
        third = (off.mean(1) * t).sum()
    else:
        third = -((sides.log_softmax(2) * torch.tensor(r.bin_weights)).sum(2).mean(1) * t).sum()
    gains = case.gains
    total = gains.box * box_term + gains.cls * cls + gains.dfl * third
    return list(torch.autograd.grad(total * r.batch / r.divisor, levels))


def _ciou(one: Tensor, two: Tensor, alpha: Tensor) -> Tensor:
    eps = 1e-7
    w1, h1 = one[:, 2] - one[:, 0], one[:, 3] - one[:, 1] + eps
    w2, h2 = two[:, 2] - two[:, 0], two[:, 3] - two[:, 1] + eps
    low, high = torch.maximum(one[:, :2], two[:, :2]), torch.minimum(one[:, 2:], two[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    iou = common / (w1 * h1 + w2 * h2 - common + eps)
    span = torch.maximum(one[:, 2:], two[:, 2:]) - torch.minimum(one[:, :2], two[:, :2])
    apart = (two[:, :2] + two[:, 2:] - one[:, :2] - one[:, 2:]).square().sum(1) / 4
    v = (4 / torch.pi**2) * (torch.atan2(w2, h2) - torch.atan2(w1, h1)).square()
    return iou - (apart / (span.square().sum(1) + eps) + alpha * v)


def test_autograd_gives_the_gradients_of_the_reference():
    """The closed forms of its gradients, on 40 drawn cases; no edges of boxes coincide there."""
    for case in drawn(40, seed=1):
        if isinstance(case.predictions, SeededLogits) and case.predictions.box_scale and case.targets:
            r = Reference(case)
            for want, got in zip(autograd(r), r.gradients, strict=True):
                assert np.allclose(want.numpy(), got, rtol=1e-7, atol=1e-9), str(case)


def test_no_law_accuses_the_bundled_loss():
    """On the first 60 cases of a gate with another seed than usual."""
    plan = Plan((), on_its_device(BUNDLED, "cpu"))
    found = [(raw.told.law, str(raw.case)) for raw in breaks(plan.subject, made(plan, range(60), seed=7))]
    assert not found


@pytest.mark.slow
def test_no_law_accuses_the_bundled_loss_on_many_cases():
    """On 1,000 cases of another seed."""
    plan = Plan((), on_its_device(BUNDLED, "cpu"))
    found = [(raw.told.law, str(raw.case)) for raw in breaks(plan.subject, made(plan, range(1000), seed=8))]
    assert not found


def test_most_cases_hang_on_no_rounding():
    """At least half of the cases are judged by all laws, and a drawn case is a valid one."""
    cases = drawn(90, seed=2)
    assert {case.invalid for case in cases} == {None}
    assert sum(Budget(case, OWN).doubt is None for case in cases) >= len(cases) / 2


def test_a_baseline_has_the_recorded_cases():
    """Those of one head, by the ids of the file. The bundled loss has an answer to each."""
    golden = FAMILY.golden()
    assert len(golden) == 50
    assert golden.items() <= baseline_cases(FAMILY).items()
    few = dict(list(golden.items())[::10])
    recorded = record_cases(on_its_device(BUNDLED, "cpu"), few, lambda: None)
    assert {vector.id: vector.case for vector in recorded} == few


def first_law(fault: Fault, folder: Path, cases: int) -> str | None:
    """The first law that breaks and that no other explains, in the order of laws, on so many cases of a gate."""
    plan = Plan((), on_its_device(plant(fault, folder), fault.device, fault.dialect))
    broke = {raw.told.law for raw in breaks(plan.subject, made(plan, range(cases))) if not raw.told.explained}
    return next((law for law in plan.laws if law in broke), None)


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_planted_fault_breaks_its_law(fault: Fault, tmp_path: Path):
    """Within a hundred cases; a law of the right step."""
    subject = on_its_device(plant(fault, tmp_path), fault.device, fault.dialect)
    assert search(find_laws(FAMILY)[fault.law], subject) is not None


@pytest.mark.parametrize("other", CONFORMING, ids=lambda other: other.name)
def test_no_law_accuses_another_right_way_to_write_it(other: Fault, tmp_path: Path):
    """Ties decided otherwise, other roundings: 10 cases of a gate."""
    assert not accused(other, tmp_path, 10)


@pytest.mark.parametrize("spec", ALIGNED)
def test_no_law_accuses_another_implementation(spec: str):
    """A second one from the ground up, and others that return other forms: cases of a gate."""
    plan = Plan((), load_loss(spec, torch.device("cpu"), ALIGNED[spec]))
    assert not [raw.told.law for raw in breaks(plan.subject, made(plan, range(6), seed=5))]


@pytest.mark.slow
@pytest.mark.parametrize("other", CONFORMING, ids=lambda other: other.name)
def test_no_law_accuses_another_right_way_on_many_cases(other: Fault, tmp_path: Path):
    """300 cases of another seed."""
    assert not accused(other, tmp_path, 300, seed=11)


def accused(other: Fault, folder: Path, cases: int, seed: int = SEED) -> list[str]:
    """The laws that a right loss breaks on so many cases of a gate, with the case."""
    plan = Plan((), on_its_device(plant(other, folder), "cpu"))
    return [f"{raw.told.law}\n{raw.case}" for raw in breaks(plan.subject, made(plan, range(cases), seed))]


# The first law to break does not name the step. Scores that carry a gradient, or a gradient that is cut off, look like
# anchors without a target.
NOT_NAMED = ("gradient_cut_off", "scores_attached")


@pytest.mark.slow
@pytest.mark.parametrize("fault", TAL_FAULTS[1::4], ids=lambda fault: fault.name)
def test_the_first_law_that_breaks_is_about_the_step_at_fault(fault: Fault, tmp_path: Path):
    """Of all laws on 40 cases of the gate; a rare fault may show itself later."""
    first = first_law(fault, tmp_path, 40)
    about = [law for step in fault.steps for law in STEPS[step]]
    named = first is None or any(first == each or first.startswith(f"{each}.") for each in about)
    assert named or fault.name in NOT_NAMED, first


def test_check_finds_the_family_by_itself(tmp_path):
    """`yololoss check` judges a class that is called with (preds, batch) by the laws of task-aligned losses."""
    status, output, errors = run("check", BUNDLED, "--laws", "totals.s*", "--cases", 5, "--workers", 1, cwd=tmp_path)
    assert status == 0, errors
    assert "2 laws hold" in output
    assert load_loss(BUNDLED, torch.device("cpu")).family is FAMILY
    assert load_loss("yololoss:ComputeLoss", torch.device("cpu")).family.name == "v5"


class OneForm:
    """A right loss that takes a mapping alone, and returns a scalar and a tensor."""

    def __init__(self, model, tal_topk=10):
        from yololoss import TaskAlignedLoss  # noqa: PLC0415

        self.inner = TaskAlignedLoss(model, tal_topk, returns="scalar")

    def __call__(self, preds, batch):
        preds = preds[1] if isinstance(preds, tuple) else preds
        assert preds["boxes"].ndim == 3
        return self.inner(preds, batch)


class FirstTopKAlone(OneForm):
    """Its constructor has no second top-k, which some cases have."""

    def __init__(self, model, tal_topk=10):
        super().__init__(model, tal_topk)


class NotOfTheFamily:
    """Called with three arguments."""

    def __init__(self, model):
        self.model = model

    def __call__(self, preds, batch, epoch):
        return preds


def test_a_loss_without_an_option_is_not_ended_by_it(tmp_path):
    """Laws about bad input look at the case first: one that the loss cannot be built for ends no process."""
    loss = load_loss(f"{__name__}:FirstTopKAlone", torch.device("cpu"))
    assert [Run(loss, USUAL.changed(topk2=topk2)).trains for topk2 in (None, 1)] == [True, False]
    options = ("--laws", "input.*", "--dialect", "yololoss, total = one", "--cases", 60, "--workers", 1)
    status, output, _ = run("check", f"{__name__}:FirstTopKAlone", *options, cwd=tmp_path)
    assert status == 0, output


def test_a_loss_of_one_form_is_given_that_form():
    """It answers cases of either form; a loss without a second top-k is not asked for one."""
    loss = load_loss(f"{__name__}:OneForm", torch.device("cpu"), "ultralytics-8.2.0")
    for form in ("levels", "mapping"):
        outcome = execute(loss, USUAL.changed(form=form))
        assert outcome.calls[0].total_shape == ()
        assert not outcome.troubles
    plan = Plan(("totals", "classes"), loss)
    assert not [raw.told.law for raw in breaks(loss, made(plan, range(40))) if raw.told.law == "totals.shape"]


def test_an_unknown_form_is_told_in_one_line():
    """It says what is expected; the family of v5, which is asked first, does not know it either."""
    with pytest.raises(UsageError, match="a loss without anchors, like YOLOv8's: it asks for batch"):
        load_loss(f"{__name__}:NotOfTheFamily", torch.device("cpu"))
    with pytest.raises(TypeError, match=r"called with \(preds, batch\), got \(preds, batch, epoch\)"):
        FAMILY.adapt(NotOfTheFamily, pytest)
    with pytest.raises(TypeError, match="expected a class that is built of a model"):
        FAMILY.adapt(drawn, pytest)
    with pytest.raises(TypeError, match="one required argument, the model, got"):
        FAMILY.adapt(Case.changed.__class__, pytest)


def cases_of_all_kinds() -> Iterator[Case]:
    """A usual case, and one whose logits are given."""
    yield USUAL
    small = USUAL.changed(grids=((2, 2),), strides=(8.0,), batch=1, targets=USUAL.targets[:1])
    values = tuple(float(v) for v in small.logits[0].flatten().tolist())
    yield small.changed(predictions=GivenLogits(layers=(values,)))


def test_a_case_is_read_as_it_was_written():
    """From its vector, by all numbers; and it is told in lines."""
    for case in cases_of_all_kinds():
        vector = make_vector(case, id="a")
        again = type(vector).model_validate_json(vector.model_dump_json())
        assert again.case == case
        assert str(case).startswith(f"{case.batch} image(s), 3 class(es), 8 bins a side")


def test_a_record_of_the_bundled_loss_is_what_it_does():
    """And what another loss does differs from it."""
    loss = load_loss(BUNDLED, torch.device("cpu"))
    for case in cases_of_all_kinds():
        recorded = FAMILY.write_down(execute(loss, case))
        again = execute(loss, case)
        assert not any(each.differs.any() for each in FAMILY.comparisons(case, recorded, again))
        other = execute(loss, case.changed(gains=case.gains.model_copy(update={"cls": 1.0})))
        assert any(each.differs.any() for each in FAMILY.comparisons(case, recorded, other))


def test_the_assignment_is_worked_out_in_lines():
    """Each target with its best candidates, and what became of them."""
    lines = [*FAMILY.worked_out(USUAL.changed(topk=3), None, OWN)]
    assert lines[0] == "target 0: corners (4, 12, 28, 36): 6 candidates, 3 taken, 3 in the end"
    assert lines[1].startswith("  anchor ")
    assert any(", not among the best" in line for line in lines)
    assert lines[-1].startswith("sum of scores ")
    small = USUAL.changed(targets=((0, 1, 0.5, 0.5, 0.25, 0.5),))
    told = "  a side below 16 counts as 16, around the same centre, for which anchors are inside"
    assert [*FAMILY.worked_out(small, None, OWN)][1] == told
    assert not [*FAMILY.worked_out(USUAL.changed(targets=((9, 0, 0.5, 0.5, 0.5, 0.5),)), None, OWN)]


@pytest.mark.slow
def test_a_finding_is_minimised_drawn_and_replayed(tmp_path):
    """A fault goes through all of the harness: check, picture, case file, replay, report."""
    fault = next(each for each in TAL_FAULTS if each.name == "weights_exchanged")
    spec = plant(fault, tmp_path)
    quick = ("--cases", 40, "--workers", 1, "--laws", "third.item", "--report", "r.html")
    status, output, errors = run("check", spec, "--dialect", "yololoss", *quick, cwd=tmp_path)
    assert status == 1, errors
    assert "third.item broke: The third item (DFL; L1 with one bin) is wrong" in output
    (path,) = (tmp_path / ".yololoss" / "findings").glob("third.item-*.json")
    assert path.with_suffix(".png").exists()
    assert run("replay", path, "--loss", spec, cwd=tmp_path)[0] == 1
    assert run("replay", path, "--loss", BUNDLED, cwd=tmp_path)[0] == 0


# In float16, rounding decides whether target 3 takes the anchor that target 4 surely takes, and has less of.
IN_DOUBT = Case(
    batch=1,
    classes=3,
    reg_max=4,
    grids=((6, 6),),
    strides=(8.0,),
    targets=(
        (0, 0, 0.220703125, 0.001953125, 0.0625, 0.541015625),
        (0, 0, 0.001953125, 0.001953125, 0.0625, 0.0625),
        (0, 0, 0.001953125, 0.001953125, 0.0625, 0.0625),
        (0, 0, 0.001953125, 0.001953125, 0.49658203125, 0.49658203125),
        (0, 1, 0.220703125, 0.001953125, 0.076171875, 0.5068359375),
    ),
    dtype="float16",
    topk=2,
    predictions=SeededLogits(seed=0, aim=True),
)


@pytest.mark.parametrize("contested", ["all candidates", "takers"])
def test_what_the_reference_assigns_is_allowed(contested):
    """Of what rounding may decide, the reference's own decisions are some."""
    for case in (IN_DOUBT, *drawn(60, seed=3)):
        allowed = Allowed(Budget(case, UPSTREAM.but(contested=contested, corner="kept")))
        image, anchor = np.nonzero(allowed.r.owner_before_topk2 >= 0)
        assert allowed.may_own[allowed.r.owner_before_topk2[image, anchor], anchor].all(), case


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_recognised(name: str, tmp_path: Path):
    """What is a fault of the bundled loss may be the choice of another dialect; all cases are explained by it."""
    found = FAMILY.recognise(load_loss(plant(BY_NAME[name], tmp_path), torch.device("cpu"), "upstream"), None)
    choice, option = CHOICES[name]
    assert str(getattr(found.dialect, choice)).removesuffix(".0") == option
    assert found.explained == found.tried >= 10


def test_a_wrong_divisor_is_no_choice_of_the_total(tmp_path: Path):
    """The loss itself shows that its total is the items times the batch, whatever more cases would fit."""
    spec = plant(BY_NAME["floor_for_each_image"], tmp_path)
    assert FAMILY.recognise(load_loss(spec, torch.device("cpu"), "upstream"), None).dialect.batch == "times"


def test_what_no_choice_explains_is_told():
    """The bundled loss is of the usual dialect for sure, but for targets at a corner; a fault changes no choice."""
    found = FAMILY.recognise(load_loss(BUNDLED, torch.device("cpu"), "upstream"), None)
    assert (found.dialect, found.sure) == (UPSTREAM.but(corner="kept"), True)
    found = FAMILY.recognise(load_loss(f"{__name__}:OneForm", torch.device("cpu"), "upstream"), UPSTREAM)
    assert found.dialect == UPSTREAM.but(total="one", corner="kept")


@pytest.mark.slow
def test_pytest_judges_a_loss_by_the_laws_of_its_family_alone(tmp_path):
    """Where laws of both families are collected, those of the other one are left out; alone they do not apply."""
    options = ("--loss", BUNDLED, "--laws", "totals.sum", "--cases", "5", "-q", "-n", "0", "-p", "no:cacheprovider")
    for folder, told in ((ROOT / "properties", "1 passed"), (ROOT / "properties" / "v5", "not applicable")):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", str(folder), *options, "--findings", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert told in done.stdout, done.stdout


@pytest.mark.parametrize("cases", [15, pytest.param(600, marks=pytest.mark.slow)])
def test_no_law_accuses_a_loss_from_the_ground_up(cases: int):
    """A dense implementation with autograd's gradients, which shares no code with the bundled loss."""
    plan = Plan((), on_its_device(PLAIN, "cpu", AS_PLAIN))
    assert not [(raw.told.law, str(raw.case)) for raw in breaks(plan.subject, made(plan, range(cases), seed=9))]


@pytest.mark.parametrize("name", FORMS)
def test_no_law_accuses_another_form_of_it(name: str, tmp_path: Path):
    """Other roundings, other ones of equals: 6 cases of a gate."""
    assert not accused_form(name, tmp_path, 6, SEED)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_no_law_accuses_another_form_of_it_on_many_cases(name: str, tmp_path: Path):
    """100 cases of another seed."""
    assert not accused_form(name, tmp_path, 100, 12)


def accused_form(name: str, folder: Path, cases: int, seed: int) -> list[tuple[str, str]]:
    """The laws that the plain loss breaks in that form, with the case."""
    plan = Plan((), on_its_device(plant_form(name, folder), "cpu", AS_PLAIN))
    return [(raw.told.law, str(raw.case)) for raw in breaks(plan.subject, made(plan, range(cases), seed))]
