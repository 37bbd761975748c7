"""Settings and waivers of a project that guards its own loss."""

import re
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tests.faults import plant
from tests.faults.catalogue import FOUR
from tests.test_cli import run as check
from tests.test_plugin import ROOT, run
from yololoss.harness import plugin
from yololoss.harness.config import Config, check_waivers, read_config
from yololoss.harness.engine.gate import Gate, Options
from yololoss.harness.errors import UsageError

LAWS = ("assign.rows", "assign.row-order", "boxes.item")


def written(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_settings_are_read_from_the_nearest_file_upwards(tmp_path):
    """pyproject.toml's [tool.yololoss], or yololoss.toml, of this folder or one above it."""
    written(tmp_path, '[tool.yololoss]\nloss = "a.py:A"\ndialect = "mmyolo"\n')
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)
    written(deep.parent, "[tool.other]\n")
    found = read_config(deep)
    assert (found.loss, found.dialect, found.file) == ("../../a.py:A", "mmyolo", tmp_path / "pyproject.toml")
    written(deep, 'device = "cpu"\n', "yololoss.toml")
    found = read_config(deep)
    assert (found.loss, found.device, found.file) == (None, "cpu", deep / "yololoss.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[tool.yololoss", "pyproject.toml: Expected ']' at the end of a table declaration"),
        (
            "[tool.yololoss]\nfamily = 'giou'\n",
            'pyproject.toml: "family" is now called "dialect": write dialect = "giou"',
        ),
        ("[tool.yololoss]\nlos = 'x'\n", "los: Extra inputs are not permitted; did you mean 'loss'?"),
        ("[tool.yololoss]\nloss = 3\n", "loss: Input should be a valid string"),
        ("[tool]\nyololoss = 3\n", "table: Input should be a valid dictionary"),
        ("[[tool.yololoss.waivers]]\nlaw = 'x'\n", "waivers.0.reason: Field required"),
        ("[[tool.yololoss.waivers]]\nlaw = 'x'\nreason = ''\n", "waivers.0.reason: String should have at least 1"),
        (
            "[[tool.yololoss.waivers]]\nlaw = 'x'\nreason = 'y'\nexpire = 2030-01-01\n",
            "waivers.0.expire: Extra inputs are not permitted; did you mean 'expires'?",
        ),
    ],
)
def test_bad_settings_are_told_in_one_line(tmp_path, text, told):
    """The message names the file, the place in it, and what is wrong; for a mistyped key the closest one."""
    with pytest.raises(UsageError, match=re.escape(told)) as error:
        read_config(written(tmp_path, text))
    assert "\n" not in str(error.value)


def config(expires: str = "", law: str = "assign.rows") -> Config:
    return Config.model_validate(
        {
            "waivers": [
                {"law": law, "reason": "own rows", **({"expires": date.fromisoformat(expires)} if expires else {})}
            ]
        }
    )


def test_a_waiver_of_no_law_or_out_of_date_is_an_error():
    """The closest law is named; the day of expiry still counts."""
    today = date(2030, 1, 2)
    check_waivers(config("2030-01-02"), LAWS, today)
    with pytest.raises(UsageError, match=r"^waiver of assign.rows: expired on 2030-01-01 \(own rows\)$"):
        check_waivers(config("2030-01-01"), LAWS, today)
    text = "waiver of assign.row: there is no such law; did you mean 'assign.rows'?"
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        check_waivers(config(law="assign.row"), LAWS, today)


NEIGHBOUR = "from utils.terms import Base\n\n\nclass Loss(Base):\n    pass\n"
TERMS = "from tests.subjects.plain import PlainLoss as Base\n"


def test_the_paths_of_settings_begin_at_their_own_folder(tmp_path):
    """Run in a folder below: the loss is imported as at the top, also by its neighbours, and its cases are found."""
    fork = tmp_path / "fork"
    (fork / "utils").mkdir(parents=True)
    (fork / "cases").mkdir()
    written(fork, '[tool.yololoss]\nloss = "utils/loss.py:Loss"\ncorpus = "cases"\ndialect = "upstream"\n')
    written(fork / "utils", NEIGHBOUR, "loss.py")
    written(fork / "utils", TERMS, "terms.py")
    for cwd in (fork / "utils", fork):
        gate = Gate(Options(), cwd)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "path", [*sys.path])
            gate.prepare()
        assert gate.subjects["cpu"].make.keywords["called"].__module__ == "utils.loss"
        assert gate.corpus == ()
    for name in ("utils", "utils.loss", "utils.terms"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("loss = 'los.py:Loss'", "loss ../los.py: no such file"),
        ("loss = 'yololoss.v5.boxes:ciou'", "loss yololoss.v5.boxes:ciou: expected a function of (p, targets, model)"),
        ("loss = 'yololoss.v5.los:Loss'", "loss yololoss.v5.los: no such module"),
        ("device = 'cuda:99'", "device cuda:99: not available here"),
        ("dialect = 'yolo'", "dialect yolo: no such dialect"),
        ("baseline = 'b.json'", "baseline ../b.json: cannot be read"),
        ("corpus = 'c'", "corpus ../c: no such folder of case files"),
    ],
)
def test_a_wrong_setting_is_told_with_its_file(tmp_path, setting, told):
    """Nobody gave such an option. By check and by pytest: one line, before any worker starts, and status 2."""
    path = written(tmp_path, f"[tool.yololoss]\n{setting}\n") / "pyproject.toml"
    below = tmp_path / "below"
    below.mkdir()
    status, output, errors = check("check", cwd=below)
    assert (status, output) == (2, "")
    assert errors.startswith(f"yololoss: {path}: {told}")
    assert len(errors.splitlines()) == 1
    where = str(ROOT / "properties" / "v5" / "test_classes.py")
    status, output = run(where, "-c", str(ROOT / "pyproject.toml"), "-n", "2", cwd=below)
    assert (status, output.startswith(f"Exit: {path}: {told}")) == (2, True), output


def test_a_wrong_option_is_an_option_beside_settings(tmp_path):
    """The settings are not to blame for it."""
    written(tmp_path, '[tool.yololoss]\nloss = "yololoss:ComputeLoss"\n')
    status, _, errors = check("check", "a.py:Loss", cwd=tmp_path)
    assert (status, errors) == (2, "yololoss: --loss a.py: no such file\n")


def test_what_only_a_worker_of_xdist_sees_wrong_is_told_by_all(tmp_path, pytestconfig):
    """Its own output is not heard: the line goes through the shared folder, and the run ends with status 2."""
    worker = SimpleNamespace(workerinput={plugin.SHARED: str(tmp_path)})
    with pytest.raises(pytest.exit.Exception), plugin._told(worker):
        raise UsageError("no such law")
    config = Mock(stash=pytest.Stash())
    assert plugin._wrong(config) == ""
    config.stash[plugin.FOLDER] = tmp_path
    session, reporter = Mock(config=config, exitstatus=1), Mock(config=config, **{"getreports.return_value": []})
    plugin.pytest_sessionfinish(session)
    plugin.pytest_terminal_summary(reporter)
    assert session.exitstatus == 2
    reporter.write_line.assert_called_once_with("no such law")


BALANCE = "layers_are_weighted_by_the_balance_table"
WRAPPED = "form.py::test_a_wrapped_model_gives_the_same_loss"
WAIVER = '[tool.yololoss]\nloss = "{loss}"\n[[tool.yololoss.waivers]]\nlaw = "{law}"\nreason = "own balance"\n'


def test_a_waived_law_is_run_and_its_breaking_is_no_failure(tmp_path):
    """The table says waived, with the reason; a waived law that holds is a failure that says what to do."""
    loss = plant(FOUR[3], tmp_path)
    law = f"{ROOT / 'properties' / 'v5' / 'test_totals.py'}"
    options = ("-c", str(ROOT / "pyproject.toml"), "-v")
    written(tmp_path, WAIVER.format(loss=loss, law="totals.balance"))
    status, output = run(f"{law}::test_{BALANCE}", *options, cwd=tmp_path)
    assert status == 0, output
    assert re.search(r"totals.balance +waived +\d+ +own balance", output)
    written(tmp_path, WAIVER.format(loss=loss, law="totals.sum"))
    status, output = run(f"{law}::test_the_total_is_the_sum_of_the_items_times_the_batch", *options, cwd=tmp_path)
    assert status == 1, output
    assert "totals.sum is waived (own balance), but it holds again: remove the waiver" in output
    assert re.search(r"totals.sum +failed", output)


def test_a_waiver_is_checked_against_laws_that_are_not_run(tmp_path):
    """A mistyped waiver ends the run with exit status 2, whatever module was asked for."""
    written(tmp_path, WAIVER.format(loss="yololoss:ComputeLoss", law="totals.balanc"))
    where = str(ROOT / "properties" / "v5" / "test_classes.py")
    status, output = run(where, "-c", str(ROOT / "pyproject.toml"), cwd=tmp_path)
    assert status == 2, output
    assert "waiver of totals.balanc: there is no such law; did you mean 'totals.balance'?" in output


def test_bad_settings_end_the_run_with_exit_status_2(tmp_path):
    """One line, no traceback."""
    written(tmp_path, "[tool.yololoss]\nlos = 'x'\n")
    status, output = run(
        str(ROOT / "properties" / "v5" / "test_classes.py"), "-c", str(ROOT / "pyproject.toml"), cwd=tmp_path
    )
    assert status == 2, output
    assert "did you mean 'loss'?" in output


def test_a_gate_has_as_many_cases_as_asked_for():
    """--cases N: N cases, which all laws share."""
    law = "properties/v5/test_totals.py::test_the_items_are_detached"
    status, output = run(law, "--cases", "7", "-v")
    assert status == 0, output
    assert re.search(r"totals.items-detached +held +7", output)
    assert "laws: 1 of 1 held, 7 cases" in output


def test_a_law_that_does_not_apply_to_the_family_is_skipped_with_the_reason():
    """The table says not applicable; the skip says why."""
    laws = [f"properties/v5/test_{name}" for name in (WRAPPED, "totals.py::test_the_items_are_detached")]
    status, output = run(*laws, "--dialect", "yolor", "-v")
    assert status == 0, output
    assert re.search(r"form.wrapped-model +not applicable +0 +is not about", output)


def test_a_run_that_judged_nothing_is_no_success():
    """Exit status 2, and a line that says so: a guard that guards nothing must not be green."""
    status, output = run(f"properties/v5/test_{WRAPPED}", "--dialect", "yolor")
    assert status == 2, output
    assert "nothing was judged: none of these laws applies to this loss and these cases" in output
