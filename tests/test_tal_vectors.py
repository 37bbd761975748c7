"""Files of recorded values of the task-aligned loss: who reads them, and that a wrong number is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from golden.given import files_of
from golden.tal import test_vectors as judging
from golden.tal.vectors import FILE, VectorFile, vectors
from properties.tal.dialects import UPSTREAM
from tests.all_laws import ROOT
from yololoss.harness.cases.files import read_file

JUDGES = {
    name: getattr(judging, f"test_the_reference_gives_the_recorded_{name}")
    for name in ("assignment", "values", "gradients")
}
# What is wrong in a copy of the first vector: the path to a list of numbers, and which test must find it.
WRONG = {
    "total": (("total",), "values"),
    "items": (("items",), "values"),
    "label": (("heads", 0, "foreground", "label"), "assignment"),
    "target": (("heads", 0, "foreground", "anchor"), "assignment"),
    "score": (("heads", 0, "foreground", "score"), "assignment"),
    "box gradient": (("heads", 0, "gradients", "box", 0), "gradients"),
    "score gradient": (("heads", 0, "gradients", "score", 0), "gradients"),
    "sum of gradients": (("heads", 0, "gradients", "score_sums", 0), "gradients"),
}


def spoilt(path: tuple[str | int, ...], folder: Path) -> Path:
    """A file with the first vector alone, in which one number is another one."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    data["vectors"] = data["vectors"][:1]
    at = data["vectors"][0]["expected"]
    for step in path:
        at = at[step]
    at[0] = at[0] + 1 if isinstance(at[0], int) else at[0] * 1.001
    made = folder / "spoilt.json"
    made.write_text(json.dumps(data), encoding="utf-8")
    return made


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_number_is_found(name: str, tmp_path: Path):
    """A thousandth more, or another label or anchor: the reference does not agree with it."""
    path, judge = WRONG[name]
    (vector,) = read_file(spoilt(path, tmp_path), VectorFile).vectors
    with pytest.raises(AssertionError):
        JUDGES[judge](vector, UPSTREAM, lambda _: None)


def test_ties_are_decided_otherwise_only_where_they_are_flagged():
    """The recorded assignment is the reference's in all vectors but those that have ties on purpose."""
    other = {v.id for v in vectors() for each in judging.held(v, UPSTREAM) if each.other.any()}
    assert other <= {v.id for v in vectors() if "TIE" in v.flags}


def test_a_file_is_read_by_its_own_family(tmp_path: Path):
    """By the format that it names, or the family; a file that cannot be read ends the run with one line."""
    v5 = ROOT / "golden" / "v5" / "article.json"
    assert files_of("tal", [str(FILE), str(v5)]) == [FILE]
    assert files_of("v5", [str(FILE), str(v5)]) == [v5]
    with pytest.raises(pytest.UsageError, match=r"^--vectors: .*missing\.json: cannot be read"):
        files_of("v5", [str(tmp_path / "missing.json")])


@pytest.mark.slow
def test_pytest_holds_the_reference_to_a_file_of_either_family(tmp_path: Path):
    """``pytest golden --vectors FILE`` judges a file of this format, and says how many numbers it compared."""
    options = ("golden", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "test_vectors", "--vectors")

    def judged(path: Path) -> str:
        command = [sys.executable, "-m", "pytest", *options, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return done.stdout + done.stderr

    good = judged(FILE)
    assert "162 passed" in good
    assert "recorded numbers compared" in good
    assert "1 failed, 2 passed" in judged(spoilt(WRONG["total"][0], tmp_path))
    broken = tmp_path / "broken.json"
    broken.write_text('{"format": "yololoss-tal-vectors"}', encoding="utf-8")
    assert f"--vectors {broken}: {broken}: version: Field required" in judged(broken)
