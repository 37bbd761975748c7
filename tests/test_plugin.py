"""The pytest options, as a user types them."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch

from properties.v5.case import Case, SeededLogits
from tests.all_laws import ROOT
from tests.faults import Fault, plant
from tests.faults.catalogue import BY_NAME, FOUR
from tests.fork import copy_fork
from tests.test_case import CASE, GOOD
from tests.test_docs import README
from yololoss.harness import plugin
from yololoss.harness.cases.vectors import make_vector, read_vectors, write_vectors
from yololoss.harness.engine import session
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.load import find_device, load_loss

README_FINDING = re.search(r"^```text\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)[1]

# Without pytest's short summary, which says every finding a second time where CI is set.
ALONE = ("-q", "-rN", "-p", "no:cacheprovider", "-n", "0")


def run(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    """Run pytest in this process, which saves the seconds that importing torch takes; status and output."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.chdir(cwd)
        status = pytest.main([*ALONE, *arguments])
    return int(status), printed.getvalue()


def run_apart(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    """Run pytest in another process, as a user does."""
    command = [sys.executable, "-m", "pytest", *ALONE, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


# The law that names each fault, so that one law is run and not eighty.
TELLS = {
    "neighbour_sign": "test_assign.py::test_the_neighbours_nearest_to_the_centre_are_taken_and_no_others",
    "height_width_swapped": "test_assign.py::test_a_box_moved_by_its_cell_is_its_target",
    "clamp_dropped": "test_assign.py::test_every_index_lies_inside_its_grid",
    "balance_reversed": "test_totals.py::test_layers_are_weighted_by_the_balance_table",
}


@pytest.mark.parametrize("fault", FOUR, ids=lambda f: f.name)
def test_a_planted_fault_makes_pytest_fail_with_a_small_case(fault: Fault, tmp_path: Path):
    """Exit status 1; the law, expected, observed, the case as a table; saved, with a replay command that works."""
    spec = plant(fault, tmp_path)
    law = f"properties/v5/{TELLS[fault.name]}"
    status, output = run(law, "--loss", spec, "--findings", str(tmp_path / "found"))
    assert status == 1, output
    for part in ("broke: ", "  expected   ", "  observed   ", "  source     ", " image(s), ", "layer 0: "):
        assert part in output
    assert "Traceback" not in output
    saved, command = (re.search(rf"  {word} +(.+)", output)[1] for word in ("saved as", "replay"))
    (vector,) = read_vectors(Path(saved)).vectors
    assert len(vector.case.targets) <= 1, "one target is enough for each of these faults"
    if fault.name != "clamp_dropped":
        return  # the command has the same form for all; running one of them is enough
    again = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr
    assert f"{vector.law} broke" in again.stdout


def test_the_readmes_finding_is_what_is_printed(tmp_path: Path):
    """README's finding, word for word, from its case replayed on a loss without the clamp."""
    case = Case(
        batch=1,
        classes=2,
        grids=((2, 2),),
        strides=(8.0,),
        anchors=(((1.0, 1.0),),),
        targets=((0.0, 0.0, 0.09375, 1.0, 0.5, 0.5),),
        predictions=SeededLogits(seed=0),
    )
    write_vectors(tmp_path / "case.json", {}, [make_vector(id="a", law="assign.clamped-indices", case=case)])
    spec = plant(BY_NAME["clamp_dropped"], tmp_path)
    options = ("--loss", spec, "--replay", str(tmp_path / "case.json"), "--findings", str(tmp_path))
    status, output = run("properties/v5/test_assign.py", *options)
    assert status == 1
    *shown, saved, picture, replay = README_FINDING.splitlines()
    assert "\n".join(shown) in output
    file = saved.split()[-1]
    assert Path(file).name in output
    assert picture.split() == ["picture", file.replace(".json", ".png")]
    assert replay.split() == ["replay", "yololoss", "replay", file, "--loss", "utils/loss.py:ComputeLoss"]


def test_a_replayed_case_that_holds_again_passes(tmp_path: Path):
    """Only the law that the case is saved under judges, and only that case."""
    vector = make_vector(id="a", law="assign.offset-range", case=GOOD)
    write_vectors(tmp_path / "case.json", {}, [vector])
    status, output = run("properties", "--replay", str(tmp_path / "case.json"))
    assert status == 0, output
    assert "1 passed" in output


def test_a_replay_among_other_tests_is_told(tmp_path: Path):
    """Exit status 2, and a hint where the law is; not only a message that no test ran."""
    write_vectors(tmp_path / "case.json", {}, [make_vector(id="a", law="assign.offset-range", case=CASE)])
    status, output = run("properties/v5/test_boxes.py", "--replay", str(tmp_path / "case.json"))
    assert status == 2, output
    assert "case.json: saved under assign.offset-range, which is no law of these tests" in output


SUBJECT = """
from tests.subjects.plain import PlainLoss
from yololoss.harness.devices import devices

class Loss(PlainLoss):
    def __call__(self, p, targets):
        devices.is_lost = lambda device: True
        raise RuntimeError("CUDA error: device-side assert triggered")
"""


@pytest.mark.slow
def test_a_lost_device_is_a_finding_and_the_session_goes_on(tmp_path: Path):
    """The case is saved for each law, and they are one fault: every process that loses the device is replaced."""
    (tmp_path / "lost.py").write_text(SUBJECT, encoding="utf-8")
    names = ("total_is_the_sum_of_the_items_times_the_batch", "total_of_every_call_is_that_of_the_reference")
    laws = [f"properties/v5/test_totals.py::test_the_{name}" for name in names]
    options = ("--loss", f"{tmp_path}/lost.py:Loss", "--findings", str(tmp_path / "found"))
    status, output = run_apart(*laws, *options, "-n", "1")
    assert status == 1, output
    assert output.count("the device, after this case") == 1
    assert output.count("observed   RuntimeError: CUDA error: device-side assert triggered") == 1
    assert "  explains   totals.value" in output
    assert output.count("replay     yololoss replay ") == 1
    assert len(list((tmp_path / "found").iterdir())) == 2


def test_a_session_that_is_cut_short_says_so(monkeypatch, tmp_path: Path):
    """Else laws that judged few cases would look as if they held."""
    monkeypatch.setattr(session, "PATIENCE", 2)
    options = ("--loss", "tests.subjects.faulty:ExitsForGood", "--findings", str(tmp_path))
    _, output = run(f"properties/v5/{TELLS['balance_reversed']}", *options)
    assert re.search(r"^cut short: 2 cases ended their process or did not return; \d+ of ", output, re.MULTILINE), (
        output
    )


@pytest.mark.slow
def test_the_workers_of_xdist_share_one_session(tmp_path: Path):
    """Each case is judged once for all tests; a fault is shown at once, and by the test of its law alone."""
    spec = plant(BY_NAME["neighbour_sign"], tmp_path)
    options = ("--loss", spec, "--findings", str(tmp_path / "found"), "--cases", "60", "-n", "2", "-v")
    status, output = run_apart("properties/v5/test_assign.py", *options)
    assert status == 1, output
    assert re.search(r"^assign.neighbours broke after \d+ s: ", output, re.MULTILINE)
    assert "1 failed, 12 passed, 2 skipped" in output
    tried = [int(n) for n in re.findall(r"^ assign\.\S+ +(?:held|BROKE) +(\d+)", output, re.MULTILINE)]
    assert len(tried) > 10
    assert max(tried) <= 60


def test_workers_that_wait_for_one_that_is_gone_say_so(tmp_path: Path, request: pytest.FixtureRequest):
    """A worker that ran the session may have been killed: its lock names a process that does not exist."""
    (tmp_path / "cpu.lock").write_text(str(2**22 + 1), encoding="utf-8")
    assert plugin._shared(request.node, "cpu", tmp_path).laws == ()


def test_the_session_ends_with_as_many_findings_as_pytest_was_told(tmp_path: Path):
    """-x: the first finding ends it, whatever is left."""
    spec = plant(BY_NAME["clamp_dropped"], tmp_path)
    options = ("--loss", spec, "--findings", str(tmp_path / "found"), "--no-shrink", "--cases", "100000", "-x")
    status, output = run("properties/v5/test_assign.py", *options)
    assert status == 1, output
    assert re.search(r"1 failed(, \d+ passed)? in", output)


@pytest.mark.slow
def test_what_no_test_is_about_is_told_by_the_first(tmp_path: Path):
    """A loss that ends its process, judged by a law of totals."""
    (tmp_path / "ends.py").write_text(ENDS, encoding="utf-8")
    law = "properties/v5/test_totals.py::test_the_total_is_the_sum_of_the_items_times_the_batch"
    options = ("--loss", f"{tmp_path}/ends.py:Loss", "--findings", str(tmp_path / "found"), "--cases", "20")
    status, output = run(law, *options)
    assert status == 1, output
    assert "run.no-exception broke: " in output
    assert "observed   killed by SIGKILL" not in output
    assert "observed   killed by SIGABRT" in output


ENDS = """
import os
from tests.subjects.plain import PlainLoss

class Loss(PlainLoss):
    def __call__(self, p, targets):
        os.abort()
"""
ROWS = "rows_are_those_of_the_cpu"


@pytest.mark.slow
def test_every_law_runs_on_every_device(tmp_path: Path):
    """The tests' names and the table say which; what only an accelerator shows is found, and replayed there."""
    laws = [
        f"properties/shared/test_devices.py::test_{name}" for name in ("results_lie_where_the_predictions_lie", ROWS)
    ]
    spec = plant(BY_NAME["items_on_cpu"], tmp_path)
    given = ("--loss", spec, "--cases", "20", "-v")
    status, output = run(*laws, *given, "--device", "auto", "--findings", str(tmp_path / "found"))
    assert status == 1, output
    assert re.search(r"devices.result-device cpu +held", output)
    assert re.search(r"devices.result-device mirror +BROKE", output)
    assert re.search(r"devices.rows cpu +not applicable +0 +needs --device", output)
    assert re.search(r"devices.rows mirror +held", output)
    if not torch.cuda.is_available():
        assert re.search(r"device cuda: not available here \(.+\): skipped", output)
    found = str(next((tmp_path / "found").glob("*.json")))
    assert f"yololoss replay {found} --loss {spec} --device mirror" in output
    status, output = run(laws[0], "--loss", spec, "--device", "mirror:0", "--replay", found)
    assert status == 1, output


@pytest.mark.slow
def test_what_is_not_there_ends_with_exit_status_2_and_one_line():
    """Only the line is printed: no test ran, no traceback."""
    status, output = run_apart("properties", "--loss", "yololoss/v5/los.py:ComputeLoss")
    assert status == 2
    assert output.strip().splitlines()[-1].endswith("no such file; did you mean 'yololoss/v5/loss.py'?")
    assert "Traceback" not in output
    status, output = run_apart("properties", "--laws", "totals.summ")
    assert status == 2
    assert "--laws totals.summ: no such law; did you mean 'totals.sum'?" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (
            "yololoss/v5/los.py:ComputeLoss",
            "--loss yololoss/v5/los.py: no such file; did you mean 'yololoss/v5/loss.py'?",
        ),
        ("q/w/z.py:ComputeLoss", "--loss q/w/z.py: no such file"),
        ("yololoss.v5.los:ComputeLoss", "--loss yololoss.v5.los: no such module; did you mean 'yololoss.v5.loss'?"),
        ("yolols.loss:ComputeLoss", "--loss yolols.loss: no such module; did you mean 'yololoss'?"),
        (
            "yololoss.v5.loss:ComputeLos",
            "--loss yololoss.v5.loss:ComputeLos: yololoss.v5.loss has no 'ComputeLos'; did you mean 'ComputeLoss'?",
        ),
        ("yololoss.v5.loss", "--loss yololoss.v5.loss: expected path/to/file.py:Name or package.module:Name"),
        (
            "yololoss.v5.loss:THREE_LAYERS",
            "--loss yololoss.v5.loss:THREE_LAYERS: expected a class or a function, got tuple",
        ),
        (
            "yololoss.v5.boxes:ciou",
            "--loss yololoss.v5.boxes:ciou: expected a function of (p, targets, model), got (box1, box2). "
            "An adapter can build and call it: docs/use/adapters.md",
        ),
        (
            "yololoss.v5.assign:LayerAssignment",
            "--loss yololoss.v5.assign:LayerAssignment: expected a constructor with one required argument, the model, "
            "got (grid, scaled, ratio, matched, choice, present, row_choice, target, offset, shifted, cls, image, "
            "anchor, cell, box, anchor_wh). An adapter can build and call it: docs/use/adapters.md",
        ),
    ],
)
def test_a_loss_that_is_not_there_is_told_with_the_closest_match(spec, line, monkeypatch):
    """Unknown path, module, name or form: one line that names what was expected, or the closest match."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError) as told:
        load_loss(spec, torch.device("cpu"))
    assert str(told.value) == line


@pytest.mark.parametrize(("name", "hint"), [("coda", "; did you mean 'cuda'?"), ("cuda:99", "")])
def test_a_device_that_is_not_there_is_told(name, hint):
    """One line with the reason, and the closest match for a typing error."""
    line = rf"^--device {name}: not available here{re.escape(hint)} \([^\n]+\)$"
    with pytest.raises(UsageError, match=line):
        find_device(name)


def test_a_bad_replay_file_is_told_with_exit_status_2():
    """The file and the reason, in one line."""
    status, output = run("properties", "--replay", "none.json")
    assert status == 2
    assert "--replay none.json: cannot be read: No such file or directory" in output


def test_a_loss_that_cannot_be_imported_is_told(tmp_path, monkeypatch):
    """The exception of the import is shown, for a file and for a package's module."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken.py").write_text("import not_there_at_all\n", encoding="utf-8")
    text = "importing it raised ModuleNotFoundError: No module named 'not_there_at_all'"
    with pytest.raises(UsageError, match=text):
        load_loss(f"{tmp_path / 'broken.py'}:ComputeLoss", torch.device("cpu"))
    package = tmp_path / "utils_of_a_fork"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loss.py").write_text("from utils_of_a_fork.other import x\n", encoding="utf-8")
    text = "importing it raised ModuleNotFoundError: No module named 'utils_of_a_fork.other'"
    for spec in (f"{package / 'loss.py'}:ComputeLoss", "utils_of_a_fork.loss:ComputeLoss"):
        with pytest.raises(UsageError, match=text):
            load_loss(spec, torch.device("cpu"))


CONFTEST = """
def pytest_addoption(parser):
    for name in {names}:
        parser.addoption(name, default="theirs")
"""
THEIRS = """
import sys
def test_it(request):
    assert all(request.config.getoption(name) == "theirs" for name in {names})
    assert not {{name for name in sys.modules if name.startswith("yololoss")}}
"""


def test_a_project_beside_which_yololoss_is_installed_has_every_option_for_itself(tmp_path: Path):
    """No entry point loads the plugin: a conftest.py may have options of the same names, and nothing is imported."""
    parser = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    names = [name for option in parser.getgroup("yololoss").options for name in option.names()]
    assert "--device" in names
    (tmp_path / "conftest.py").write_text(CONFTEST.format(names=[*names, "--profile"]), encoding="utf-8")
    (tmp_path / "test_theirs.py").write_text(THEIRS.format(names=names), encoding="utf-8")
    status, output = run_apart(cwd=tmp_path)
    assert status == 0, output


@pytest.mark.slow
def test_a_fork_checks_its_loss_in_its_own_pytest_run(tmp_path: Path):
    """examples/fork/tests: beside an option --device of its own; what the check says is shown."""
    fork = copy_fork(tmp_path)
    settings = fork / "pyproject.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("utils/loss.py", "utils/los.py"), encoding="utf-8")
    status, output = run_apart("tests", "--device", "cuda:7", cwd=fork)
    assert status == 1, output
    assert "utils/los.py: no such file; did you mean 'utils/loss.py'?" in output


def test_fewer_cases_than_one_are_refused():
    """One line that says what was given and what was expected; exit status 2."""
    status, output = run("properties/v5/test_assign.py", "--cases", "0")
    assert status == 2
    assert "--cases 0: expected 1 or more" in output
