"""Every call form is recognised; a conforming loss passes the laws, and a faulty one breaks one."""

import os
import pickle
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import pytest
import torch

from properties.v5.forms import ClassSubject, StandInModel
from properties.v5.rows import read_built
from properties.v5.strategies import USUAL
from tests.all_laws import LAWS, V5
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.judging import gate, minimised, search
from tests.law_table import BREAKS, PAGES, page, unnamed
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.laws.exam import Exam, Run
from yololoss.harness.laws.law import drawn
from yololoss.harness.laws.law import law as new_law
from yololoss.harness.subjects.execute import _older_torch, execute
from yololoss.harness.subjects.forms import takes
from yololoss.harness.subjects.load import load_loss
from yololoss.harness.subjects.subject import Unsupported
from yololoss.v5.loss import ComputeLoss

CPU = torch.device("cpu")
FEW = 4  # cases for each law; whole gates: docs/understand/false-alarms.md
# How many laws apply at least: those of rows need rows, those of items need items.
CONFORMING = {
    "OlderLoss": 80,
    "compute_loss": 78,
    "ImageLoss": 78,
    "ModuleLoss": 60,
    "DictAdapter": 60,
    "BlackBox": 55,
    "DarknetLoss": 70,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), CONFORMING.items())
def test_every_call_form_is_understood_and_none_is_accused(name, least):
    """All laws hold on a conforming loss of the form, and most apply to it."""
    dialect = "box_gain = giou" if name == "compute_loss" else None
    under_test = load_loss(f"tests.subjects.forms:{name}", CPU, dialect)
    applied = 0
    for law in LAWS.values():
        if law.assumes(under_test) is None:
            assert search(law, under_test, FEW) is None
            applied += law.tally.tried > law.tally.not_applicable.total()
    assert applied >= least


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("WrongBalance", "totals.balance"),
        ("OlderWrongBalance", "totals.balance"),
        ("compute_loss", "totals.sum"),
        ("ImageNoNeighbours", "assign.neighbours"),
        ("ModuleWrites", "state.inputs-unchanged"),
        ("Replaces", "state.inputs-unchanged"),
        ("KeepsGradients", "state.nothing-left-in-inputs"),
        ("BlackBoxTransposed", "gradients.assignment"),
        ("DictNotDetached", "objectness.target-detached"),
        ("Raises", "run.no-exception"),
        ("Prints", "run.no-output"),
        ("Seeds", "state.rng-unchanged"),
        ("Exits", "run.no-exit"),
        ("ExitsHard", "run.no-exit"),
        ("Sets", "state.global-settings-unchanged"),
        ("Forgets", "state.second-object"),
        ("FirstBatch", "state.after-other-sizes"),
    ],
)
def test_the_fault_planted_in_each_form_is_found(name, law):
    """The law that names the fault breaks."""
    under_test = load_loss(f"tests.subjects.faulty:{name}", CPU)
    assert search(LAWS[law], under_test) is not None


def test_a_loss_for_an_older_torch_is_judged_all_the_same():
    """One law says which line torch refuses, and the mend; all others hold."""
    plan = Plan((), load_loss("tests.subjects.faulty:FloatLimit", CPU))
    (broken,) = [raw.told.broken(plan.laws[raw.told.law], raw.case) for raw in gate(plan, range(60))]
    assert broken.law.id == "run.no-exception"
    assert re.search(
        r"would raise: RuntimeError: result type Float can't be cast to the desired output type .*, in clamp_ at "
        r"faulty\.py:\d+; make its limit an integer, by \.long\(\) for a tensor",
        broken.observed,
    )


def test_what_no_torch_takes_is_raised_as_it_is():
    """A limit that is missing is no matter of an older torch, and nothing is left of the patch."""
    before = torch.Tensor.clamp_
    troubles = []
    with _older_torch(troubles), pytest.raises(RuntimeError, match="must not be None"):
        torch.ones(1).clamp_()
    assert troubles == []
    assert torch.Tensor.clamp_ is before


def test_what_a_loss_looked_for_in_vain_is_told():
    """With the closest attribute of the model; `hasattr` still says that it is not there."""
    under_test = load_loss("tests.subjects.faulty:NeverMade", CPU)
    model = StandInModel(drawn(V5.shared_cases["any"], 1)[0])
    assert not hasattr(model, "yolo_layer")
    with pytest.raises(AttributeError, match=r"looked for model\.yolo_layer, .* did you mean 'yolo_layers'\?"):
        _ = model.yolo_layer
    broken = search(LAWS["run.no-exception"], under_test)
    assert broken is not None
    assert "the loss looked for model.scale_of_the_loss, which is not there" in broken.observed


@pytest.mark.parametrize("fault", ["random", "counts_in_the_class"])
def test_a_finding_that_does_not_repeat_says_so(fault, tmp_path):
    """A second run of the same case gives another result: the loss keeps state, or is random."""
    under_test = load_loss(plant(BY_NAME[fault], tmp_path), CPU)
    plan = Plan(("totals.value",), under_test)
    broken = minimised(next(gate(plan, range(100))), plan)
    assert not broken.repeats
    assert "  repeats    no: a second run" in str(broken)


def test_a_loss_that_never_returns_is_interrupted():
    """The time limit ends it, and the outcome says where."""
    case = hypothesis.find(LAWS["totals.sum"].strategy(V5), lambda c: True)
    (trouble,) = execute(load_loss("tests.subjects.faulty:Hangs", CPU), case, limit=0.2).troubles
    assert (trouble.kind, trouble.detail) == ("did not return", "not within 0.2 s, in loss")


def test_a_machine_that_stands_still_is_no_fault_of_the_loss(monkeypatch):
    """A process that was suspended for three times the limit, and continues, is not reported as too slow."""
    case = hypothesis.find(LAWS["totals.sum"].strategy(V5), lambda c: True)
    called = ComputeLoss.__call__

    def stopped(*given):
        with subprocess.Popen(["/bin/sh", "-c", f"sleep 1.5; kill -CONT {os.getpid()}"]):
            os.kill(os.getpid(), signal.SIGSTOP)
        return called(*given)

    monkeypatch.setattr(ComputeLoss, "__call__", stopped)
    assert execute(load_loss("yololoss:ComputeLoss", CPU), case, limit=0.5).troubles == ()


def test_a_process_is_as_it_was_after_a_loss_that_changed_it():
    """Settings are restored, so that the next case is not judged under them."""
    case = hypothesis.find(LAWS["totals.sum"].strategy(V5), lambda c: True)
    execute(load_loss("tests.subjects.faulty:Sets", CPU), case)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.slow
def test_a_loss_is_held_to_its_own_choices():
    """With the dialect that has its balance every law holds, those about the balance too; with another it breaks."""
    spec, balance = "tests.subjects.faulty:WrongBalance", "balance = [4, 1, 0.3, 0.1, 0.03]"
    own = load_loss(spec, CPU, balance)
    assert own.dialect_text == f"upstream, {balance}"
    judged = [law for law in LAWS.values() if law.assumes(own) is None]
    assert len(judged) > 100
    for law in judged:
        assert search(law, own, FEW) is None
    for other in ("upstream", "balance = [4, 1, 0.3, 0.1, 0.04]"):
        assert search(LAWS["totals.balance"], load_loss(spec, CPU, other)) is not None


def test_an_attribute_that_is_missing_is_named():
    """If the dialect has the whole interface."""
    broken = search(LAWS["form.interface"], load_loss("tests.subjects.faulty:Renamed", CPU, "yololoss"), FEW)
    assert "no cn" in str(broken)


def test_a_family_without_clamp_is_not_asked_about_the_far_edge():
    """Cases with a centre at 1.0 say nothing about it."""
    case = hypothesis.find(LAWS["assign.centre-cell"].strategy(V5), lambda c: any(t[2] == 1 for t in c.targets))
    law = LAWS["assign.centre-cell"]
    law.examine(Run(load_loss("tests.subjects.faulty:NoNeighbours", CPU, "mmyolo"), case))
    assert law.tally.not_applicable["a centre on the far edge, which this dialect leaves outside the grid"] == 1


def test_an_unknown_family_is_told():
    """The closest match, and all known names."""
    with pytest.raises(
        UsageError, match=r"^--dialect mmyol: no such dialect; did you mean 'mmyolo'\? \(known: upstream, yololoss, "
    ):
        load_loss("yololoss:ComputeLoss", CPU, "mmyol")


def test_every_law_says_what_it_is():
    """An id of area and name, a statement of one sentence, a source; 60 laws at least."""
    assert len(LAWS) >= 60
    for law in LAWS.values():
        assert law.id.count(".") == 1
        assert law.statement.endswith(".")
        assert law.source


def test_a_loss_that_raises_is_accused_once_and_not_by_every_law():
    """run.no-exception breaks; laws about results do not apply, and laws about rows are still judged."""
    under_test = load_loss("tests.subjects.faulty:Raises", CPU)
    laws = [law for law in LAWS.values() if law.assumes(under_test) is None]
    assert [law.id for law in laws if search(law, under_test, FEW)] == ["run.no-exception"]


def test_off_the_main_thread_there_is_no_time_limit_but_an_answer():
    """Signals reach only the main thread; in other threads a case runs without a limit."""
    case = hypothesis.find(LAWS["totals.sum"].strategy(V5), lambda c: True)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(execute, load_loss("yololoss:ComputeLoss", CPU), case).result()
    assert len(outcome.calls) == 1


def test_a_builder_of_other_arguments_is_not_called():
    """A method named build_targets may be for the loss's own use."""
    assert takes(lambda p, targets: None, ("p", "targets"))
    assert not takes(lambda p: None, ("p", "targets"))
    assert not takes(None, ("p", "targets"))


def test_built_targets_of_an_unknown_form_show_no_rows():
    """Five tensors are neither upstream's lists nor yolov7's: only the gradient can show the assignment."""
    case = hypothesis.find(LAWS["totals.sum"].strategy(V5), lambda c: True)
    assert read_built([torch.zeros(3)] * 5, case) is None


def test_a_file_outside_any_package_is_loaded_by_its_path(tmp_path):
    """The class is found, and pickles by the name its module was given."""
    (tmp_path / "myloss.py").write_text("from tests.subjects.plain import PlainLoss\n", encoding="utf-8")
    under_test = load_loss(f"{tmp_path / 'myloss.py'}:PlainLoss", CPU)
    assert search(LAWS["totals.sum"], under_test, FEW) is None


def test_a_module_is_found_whatever_its_packages_do(tmp_path, monkeypatch):
    """A warning on import is ignored; an exception there is reported, and so is a module that does not exist."""
    package = tmp_path / "warns"
    package.mkdir()
    (package / "__init__.py").write_text("import warnings; warnings.warn('old')", encoding="utf-8")
    (package / "loss.py").write_text("class Loss:\n    def __init__(self, model): ...", encoding="utf-8")
    (tmp_path / "broken").mkdir()
    for name in ("breaks.py", "broken/__init__.py", "broken/loss.py"):
        (tmp_path / name).write_text("import nothing_of_that_name", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_loss("warns.loss:Loss", CPU).spec == "warns.loss:Loss"
    (tmp_path / "ends.py").write_text("import sys; sys.exit(0)", encoding="utf-8")
    for spec, text in (
        ("ends:Loss", "importing it raised SystemExit: 0"),
        ("breaks:Loss", "importing it raised ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("warns.lost:Loss", "no such module; did you mean 'warns.loss'?"),
        ("json.decoder.inside:Loss", "no such module"),
        ("broken.loss:Loss", "importing it raised ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ):
        with pytest.raises(UsageError, match=re.escape(f"--loss {spec.partition(':')[0]}: {text}")):
            load_loss(spec, CPU)


def test_a_file_whose_module_is_another_file_here_is_told(tmp_path):
    """A process has one module of each name: the second fork's would be judged as the first's."""
    for name in ("one", "two"):
        package = tmp_path / name / "only_here"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "loss.py").write_text("class Loss:\n    def __init__(self, model): ...", encoding="utf-8")
    load_loss(f"{tmp_path}/one/only_here/loss.py:Loss", CPU)
    with pytest.raises(UsageError, match=r"its module only_here\.loss is another file here, .*one/only_here/loss\.py"):
        load_loss(f"{tmp_path}/two/only_here/loss.py:Loss", CPU)


def test_nothing_holds_of_a_loss_that_cannot_be_made():
    """No law applies, not even that it prints nothing; the reason names what was raised."""
    subject = load_loss("tests.subjects.faulty:NeverMade", CPU)
    for id in ("run.no-output", "assign.rows", "totals.shape-and-dtype"):
        law = LAWS[id]
        assert search(law, subject, FEW) is None
        assert not law.tally.judged
        assert not law.tally.notes
        assert any("AttributeError" in reason for reason in law.tally.not_applicable), law.tally
    broken = search(LAWS["run.no-exception"], subject, FEW)
    assert "raised in construction: AttributeError" in str(broken)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "FourResults",
            "UnknownForm: expected (total, items) or only the total, got tuple of 4. "
            "An adapter can make them of it: docs/use/adapters.md",
        ),
        ("NamedTerms", "UnknownForm: items: expected None, a tensor, or numbers (box, obj, cls), got a dict"),
    ],
)
def test_a_result_of_an_unknown_form_is_no_error_of_the_loss(name, told):
    """The message says where it was read, and what was expected."""
    broken = search(LAWS["run.no-exception"], load_loss(f"tests.subjects.faulty:{name}", CPU), FEW)
    assert broken is not None
    assert broken.observed == f"raised in reading the result of loss: {told}"


def test_a_nan_is_told_by_the_laws_about_it(tmp_path):
    """A law that would compare it does not apply, and names the law that reports it."""
    subject = load_loss(plant(BY_NAME["mean_of_nothing"], tmp_path), CPU)
    assert search(LAWS["totals.finite"], subject) is not None
    law = LAWS["objectness.item"]
    search(law, subject)
    assert law.tally.not_applicable["not finite, as totals.finite says"] > 0


def test_a_family_with_its_own_dtype_of_targets_is_not_asked_about_it():
    """With torch's own promotion, float64 targets are assigned in float64, so nothing is judged there."""
    law = LAWS["assign.rows"]
    why = "float64 targets, which losses of this dialect need not assign in float32"
    before = law.tally.not_applicable[why]
    case = hypothesis.find(law.strategy(V5), lambda c: c.targets_dtype == "float64")
    law.examine(Run(load_loss("yololoss:ComputeLoss", CPU, "upstream"), case))
    assert law.tally.not_applicable[why] == before + 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"id": "totals.sum"}, "law 'totals.sum': two judgements have this id"),
        ({"id": "totals.b c"}, "law 'totals.b c': an id has at most 100 letters, digits, '.', '_' and '-'"),
        ({"id": "total.b"}, "law 'total.b': an id begins with its part (one of assign, gather, boxes, "),
        (
            {"id": "totals.b", "only": {"colour": "red"}},
            "law 'totals.b': no such choice as 'colour' (known: neighbours, cell,",
        ),
    ],
)
def test_a_law_that_is_told_wrongly_is_refused(options, text):
    """One judgement for each id; a choice must be one of the family's."""

    def judge(exam: Exam) -> None:
        """Nothing."""

    with pytest.raises(ValueError, match=re.escape(text)):
        new_law(**options, source="here", cases=LAWS["totals.sum"].strategy(V5))(judge)


@pytest.mark.parametrize("family", BREAKS)
def test_every_law_that_judges_has_a_fault_that_breaks_it(family):
    """`tests.law_table` names one for each, and docs/measured/ shows them; .ci/run sees them break."""
    assert unnamed(family) == []
    assert PAGES[family].read_text(encoding="utf-8") == "\n".join(page(family)) + "\n"


def test_a_law_can_be_run_as_a_plain_hypothesis_test():
    """Tools that know only @given can run a law: it is a module-level test over its cases."""
    from properties.v5.test_totals import test_the_total_carries_the_gradient as test  # noqa: PLC0415

    case = hypothesis.find(LAWS["totals.total-has-gradient"].strategy(V5), lambda c: True)
    test.hypothesis.inner_test(load_loss("yololoss:ComputeLoss", CPU), case)


class ReadOnly:
    """A loss with an attribute that cannot be set, and one that cannot be pickled."""

    gr = property(lambda self: 1.0)

    def __init__(self, model):
        self.key = lambda: 0


def test_what_cannot_be_set_or_copied_is_no_fault():
    """The laws about it do not apply."""
    subject = ClassSubject(USUAL, CPU, called=ReadOnly)
    with pytest.raises(Unsupported, match="gr"):
        subject.set_option("gr", 0.5)
    with pytest.raises(Unsupported, match="object to copy"):
        subject.put_through(lambda loss: pickle.loads(pickle.dumps(loss)))
