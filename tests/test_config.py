"""Settings and waivers of a project that guards its own loss."""

import re
from datetime import date
from pathlib import Path

import pytest

from tests.faults import plant
from tests.faults.catalogue import FOUR
from tests.test_plugin import ROOT, run
from yololoss.harness.config import Config, check_waivers, read_config
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
    assert read_config(deep) == Config(loss="a.py:A", dialect="mmyolo")
    written(deep, 'device = "cpu"\n', "yololoss.toml")
    assert read_config(deep) == Config(device="cpu")


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
