"""The pytest options, run as a user runs them: in a process of their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plant import FOUR, Fault, plant
from yololoss.harness.vectors import read_vectors

ROOT = Path(__file__).parents[1]


def run(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FOUR, ids=lambda f: f.name)
def test_a_planted_fault_makes_pytest_fail_with_a_small_case_that_replays(fault: Fault, tmp_path: Path):
    """Exit status 1; the law, expected, observed and the case as a table; and a replay command that works."""
    spec = plant(fault, tmp_path)
    status, output = run("properties", "--loss", spec, "--findings", str(tmp_path / "found"), "-x")
    assert status == 1, output
    for part in ("broke: ", "  expected   ", "  observed   ", "  source     SPEC", "target  image  class"):
        assert part in output
    assert "Traceback" not in output
    saved, command = (re.search(rf"  {word} +(.+)", output)[1] for word in ("saved as", "replay"))
    (vector,) = read_vectors(Path(saved)).vectors
    assert len(vector.case.targets) == 1, "one target is enough for each of these faults"
    arguments = command.removeprefix("pytest ").split()
    again, replayed = run("properties", *arguments)
    assert again == 1, replayed
    assert f"{vector.law} broke" in replayed
    fixed, held = run("properties", "--replay", saved)
    assert fixed == 0, held
    assert "1 passed" in held


def closest(spec: str) -> str:
    status, output = run("properties", *spec.split(" "))
    assert status == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith(("Exit: ", "!"))] or [output]
    return line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "--loss yololoss/los.py:ComputeLoss",
            "--loss yololoss/los.py: no such file; did you mean 'yololoss/loss.py'?",
        ),
        ("--loss none/at/all.py:ComputeLoss", "--loss none/at/all.py: no such file"),
        ("--loss yololoss.los:ComputeLoss", "--loss yololoss.los: no such module; did you mean 'yololoss.loss'?"),
        ("--loss yolols.loss:ComputeLoss", "--loss yolols.loss: no such module; did you mean 'yololoss'?"),
        ("--loss yololoss.loss:ComputeLos", "yololoss.loss has no 'ComputeLos'; did you mean 'ComputeLoss'?"),
        ("--loss yololoss.loss", "--loss yololoss.loss: expected path/to/file.py:Name or package.module:Name"),
        (
            "--loss yololoss.loss:THREE_LAYERS",
            "--loss yololoss.loss:THREE_LAYERS: expected a class or a function, got tuple",
        ),
        ("--device coda", "--device coda: not to be had here: "),
        ("--device coda", "; did you mean 'cuda'?"),
        ("--replay none.json", "--replay none.json: cannot be read: No such file or directory"),
    ],
)
def test_what_is_not_there_is_told_in_one_line_with_exit_status_2(options, line):
    """Unknown path, module, class, device or file: the closest match is named."""
    assert line in closest(options)


def test_a_loss_that_cannot_be_imported_is_told(tmp_path):
    """The exception of the import is shown, for a file and for a package's module."""
    (tmp_path / "broken.py").write_text("import not_there_at_all\n", encoding="utf-8")
    text = "importing it raised ModuleNotFoundError: No module named 'not_there_at_all'"
    assert text in closest(f"--loss {tmp_path / 'broken.py'}:ComputeLoss")
    package = tmp_path / "utils"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loss.py").write_text("from utils.other import x\n", encoding="utf-8")
    text = "importing it raised ModuleNotFoundError: No module named 'utils.other'"
    assert text in closest(f"--loss {package / 'loss.py'}:ComputeLoss")


def test_a_project_that_has_yololoss_installed_sees_no_change(tmp_path, monkeypatch):
    """Without our options the plugin imports nothing heavy into somebody else's test run."""
    (tmp_path / "test_theirs.py").write_text(
        "import sys\ndef test_it():\n    assert not {'torch', 'hypothesis.strategies', 'numpy'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other packages' plugins import what they like
    status, output = run("-p", "xdist", "-p", "yololoss.harness.plugin", cwd=tmp_path)
    assert status == 0, output
