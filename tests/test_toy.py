"""The harness knows a family through one object: a second family, `tests.toy`, goes through all of it unchanged."""

import json
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch

from tests.judging import made
from tests.test_cli import run
from tests.toy.family import Budget, ToyDomain
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.held import _look
from yololoss.harness.engine.judge import Task, judged
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.laws.exam import Run
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.load import load_loss

RIGHT, WRONG = "tests.toy.loss:CrossEntropy", "tests.toy.loss:Overflows"
QUICK = ("--workers", 1, "--cases", 20)


@pytest.fixture
def finding(tmp_path: Path) -> str:
    """The case file of a check that found the fault."""
    status, output, errors = run("check", WRONG, *QUICK, "--laws", "totals", "--report", "r.html", cwd=tmp_path)
    assert status == 1, errors
    assert "totals.finite broke: This does not hold: The total is finite for finite logits." in output
    assert "1 law broke" in output
    (path,) = (tmp_path / ".yololoss" / "findings").glob("totals.finite-*.json")
    return str(path.relative_to(tmp_path))


def test_check_finds_draws_and_reports_a_fault(tmp_path, finding):
    """The finding names the law; its file says the family; the picture and the page are there."""
    assert (tmp_path / finding).with_suffix(".png").exists()
    assert "The total is finite for finite logits." in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / finding).read_bytes())["family"] == "toy"


def test_a_family_without_clearer_cases_and_without_a_choice_of_causes_has_findings():
    """Any earlier law may explain a law, on the case itself."""
    plan = Plan((), load_loss(WRONG, torch.device("cpu")))
    cases = [each.case for each in made(plan, range(60))]
    told = (judged(plan.laws["totals.finite"], Run(plan.subject, case), plan)[0] for case in cases)
    assert {broken.explained for broken in told if broken is not None} == {""}


def test_replay_tells_broken_from_fixed(tmp_path, finding):
    """The same case on the faulty and on the right loss; another family's loss cannot judge it."""
    assert run("replay", finding, "--loss", WRONG, cwd=tmp_path)[0] == 1
    status, output, _ = run("replay", finding, "--loss", RIGHT, cwd=tmp_path)
    assert (status, output) == (0, f"{finding}: fixed\n")
    status, output, _ = run("replay", finding, "--loss", "yololoss:ComputeLoss", cwd=tmp_path)
    assert status == 2
    assert f"{finding}: cannot run: cases of the family toy; the loss is of the family v5" in output


def test_the_right_loss_passes(tmp_path):
    """Its five laws and the shared ones hold; laws of other families are not listed."""
    status, output, errors = run("check", RIGHT, "--workers", 1, "--cases", 100, cwd=tmp_path)
    assert status == 0, errors
    assert "24 laws hold" in output
    status, output, _ = run("laws", "--loss", RIGHT, cwd=tmp_path)
    assert status == 0
    assert "gradients.zero-sum" in output
    assert "assign." not in output


def test_a_session_finds_the_fault_and_minimises_its_case(tmp_path):
    """Guarded workers, the clerk, the summary."""
    options = ("--cases", 100, "--seed", 1, "--workers", 1, "--out", "s", "--json", "--laws", "totals.finite")
    status, output, errors = run("fuzz", WRONG, *options, cwd=tmp_path)
    assert status == 1, errors
    (found,) = json.loads(output)["verdict"]["faults"]
    case = read_vectors(tmp_path / found["path"]).vectors[0].case
    assert (len(case.labels), case.scale, case.classes) == (1, 300.0, 2)


@pytest.mark.slow
def test_a_record_is_kept_and_held_to(tmp_path):
    """The baseline of the right loss: the right loss keeps it, a loss that overflows does not; diff says so as well."""
    status, output, errors = run("record", RIGHT, "-o", "b.json", "--laws", "totals", cwd=tmp_path)
    assert status == 0, errors
    assert output == "b.json: 40 cases, 0 laws broken\n"
    check = ("--baseline", "b.json", "--laws", "baseline", "--workers", 1)
    assert run("check", RIGHT, *check, cwd=tmp_path)[0] == 0
    status, output, _ = run("check", WRONG, *check, cwd=tmp_path)
    assert status == 1
    assert "baseline.values broke" in output
    status, output, _ = run("diff", RIGHT, WRONG, "--no-laws", "--cases", 30, cwd=tmp_path)
    assert status == 1
    assert "30 cases: they differ in values, gradients" in output


def test_a_loss_that_shows_no_steps_is_not_judged_by_them():
    """The toy losses have one step, their cases no settings, and nothing else is taken for them."""
    loss = load_loss(RIGHT, torch.device("cpu"))
    domain = Plan((), loss).domains[0]
    case = domain.case(bytes(domain.size))
    assert Run(loss, case).as_shown is None
    assert loss.family.other_kind(loss, None) is None
    assert case.simpler == {}
    assert case.called(2) == case
    assert not [*loss.family.steps.smaller(case)]
    assert loss.family.steps.kept_of(case, case) == ""
    assert loss.family.steps.invalid_input(case) == loss.family.steps.usual_causes("totals.value", case) == ()
    with pytest.raises(UsageError, match="the steps of losses of the family toy cannot be watched"):
        loss.family.training(object(), None)
    assert loss.family.without("totals", "totals", case) is None


def test_what_a_family_lacks_is_told_in_one_line(tmp_path):
    """It has no proofs, and no such dialect."""
    status, _, errors = run("prove", RIGHT, cwd=tmp_path)
    assert (status, errors.splitlines()[-1]) == (2, f"yololoss: {RIGHT}: losses of the family toy have no proofs")
    status, _, errors = run("check", RIGHT, "--dialect", "upstream", cwd=tmp_path)
    assert (status, errors.splitlines()[-1]) == (
        2,
        "yololoss: --dialect upstream: no such dialect (known: plain)",
    )


@pytest.mark.slow
def test_what_is_recorded_of_another_family_is_refused(tmp_path):
    """A baseline, and a case to replay by pytest; a corpus may hold cases of several families."""
    status, _, errors = run("record", RIGHT, "-o", "b.json", "--laws", "totals.value", cwd=tmp_path)
    assert status == 0, errors
    status, _, errors = run("check", "--baseline", "b.json", "--laws", "baseline", "--workers", 1, cwd=tmp_path)
    assert status == 2
    assert errors.endswith("--baseline b.json: cases of the family toy; the loss is of the family v5\n")
    folder = ("--corpus", ".", "--laws", "totals.finite", "--cases", 1, "--workers", 1)
    assert run("check", *folder, cwd=tmp_path)[0] == 0


def test_a_family_that_is_not_there_is_told_with_the_closest_match():
    """A family that says no more has no regions, and domains that are open to all laws; other laws are not about it."""
    with pytest.raises(UsageError, match=r"^family to: no such family; did you mean 'toy'\? \(known: v5, tal, toy\)$"):
        find_family("to")
    domain, toy = ToyDomain(), find_family("toy")
    assert not domain.only_own
    assert not toy.regions_of(domain.case(bytes(domain.size)))
    loss = load_loss(RIGHT, torch.device("cpu"))
    assert find_laws(find_family("v5"))["totals.sum"].assumes(loss) == "is not about losses of the family toy"


def test_a_family_may_leave_dialects_to_their_names():
    """It recognises none, items are in order, and a budget takes nothing from the loss."""
    told, pipe = Pipe()
    _look(pipe, Task(RIGHT, "cpu"), named=False)
    assert told.recv() is None
    domain, loss = ToyDomain(), load_loss(RIGHT, torch.device("cpu"))
    assert loss.family.in_order(loss.dialect, (1.0,)) == (1.0,)
    assert isinstance(loss.family.budget_of(loss, domain.case(bytes(domain.size))), Budget)


def test_a_file_cannot_make_the_harness_import_a_family(tmp_path):
    """A file is data: a family that is not known is refused by its name."""
    (tmp_path / "a.json").write_text('{"family": "os", "source": {}, "vectors": []}', encoding="utf-8")
    with pytest.raises(BadFile, match=r"a\.json: unknown family 'os' \(known: v5, tal, toy, and that of --loss\)"):
        read_vectors(tmp_path / "a.json")
