"""The command line, as a user types it."""

import html
import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import Mock, patch
from xml.etree import ElementTree

import pytest
import torch

from tests.all_laws import LAWS, ROOT
from tests.cli_page import page
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.fork import CONSTANT, EDITS, GIOU, SPEC, copy_fork, edit, said
from tests.subjects.chosen import name_of
from tests.test_case import CASE, GOOD
from yololoss.harness.cases.vectors import make_vector, read_vectors, write_vectors
from yololoss.harness.cli import main
from yololoss.harness.cli.options import under_test
from yololoss.harness.config import Settings
from yololoss.harness.engine import diff, held, session
from yololoss.harness.engine.held import found_if_unnamed
from yololoss.harness.engine.judge import Task
from yololoss.harness.subjects.subject import Unsupported

BUNDLED = "yololoss:ComputeLoss"


A_CHOICE_AND_A_FAULT = """
from tests.subjects.chosen import Chosen
from properties.v5.dialects import Dialect

class Faulty(Chosen):
    dialect = Dialect(batch="plain")

    def __call__(self, p, targets):
        total, items = super().__call__(p, targets)
        factor = 1 + (len(targets) > 6)
        return total * factor, items * factor
"""

TWO_FAULTS = """
import yololoss

class Faulty(yololoss.ComputeLoss):
    def __call__(self, p, targets):
        total, items = super().__call__(p, targets)
        return 2 * total, items + 0 * total if len(targets) > 6 else items
"""


def run(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """Run a command in this process, which saves the seconds that importing torch takes: status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["yololoss", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as monkey, redirect_stdout(out), redirect_stderr(err):
        monkey.chdir(cwd)
        monkey.setattr(sys, "argv", argv)
        monkey.setenv("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis")  # as it is: the command would set it for all tests
        with pytest.raises(SystemExit) as end:
            main(argv[1:])
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


def run_apart(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """Run a command in another process: forks have modules of the same names."""
    command = [sys.executable, "-m", "yololoss", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_check_says_that_a_loss_holds(tmp_path):
    """Exit status 0, a count of laws and cases, and the verdict; no other output, no file left."""
    status, output, errors = run("check", "--laws", "totals.sum", "--cases", 7, "--workers", 1, cwd=tmp_path)
    assert status == 0, errors
    assert output.splitlines()[0] == "laws: 1 of 1 held, 7 cases"
    assert re.fullmatch(r"1 laws hold, \d+ s", output.splitlines()[1])
    assert errors.strip() == f"laws on {BUNDLED}: 1"
    assert not list(tmp_path.iterdir())


def test_check_tells_a_fault_and_the_pasted_command_replays_it(tmp_path):
    """Exit status 1; the fault with its picture and the laws that it explains; replay, draw, report, JUnit."""
    spec = plant(BY_NAME["neighbour_sign"], tmp_path)
    options = ("--laws", "assign.neighbours", "--laws", "assign.rows", "--workers", 1)
    status, output, _ = run("check", spec, *options, "--report", "r.html", "--junit", "j.xml", cwd=tmp_path)
    assert status == 1
    assert output.count(" broke: ") == 1
    assert "  explains   assign.rows" in output.splitlines()
    found = {word: re.search(rf"  {word} +(.+)", output)[1] for word in ("saved as", "picture", "replay")}
    assert (tmp_path / found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert output.splitlines()[-1].startswith("1 fault (2 laws broke), ")
    again, replayed = said(found["replay"], tmp_path)
    assert again == 1, replayed
    assert f"{found['saved as']}: still broken" in replayed
    status, output, _ = run("replay", found["saved as"], cwd=tmp_path)  # the bundled loss has no such fault
    assert (status, output) == (0, f"{found['saved as']}: fixed\n")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 fault (2 laws broke)" in page
    assert page.count("data:image/png;base64,") == 1
    assert ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite").get("failures") == "1"
    status, output, _ = run("draw", found["saved as"], "--loss", spec, "-o", "case.svg", cwd=tmp_path)
    assert (status, output) == (0, "case.svg\n")
    assert "expected here, not built" in (tmp_path / "case.svg").read_text(encoding="utf-8")


def test_check_prints_json_for_machines(tmp_path):
    """One document: status, laws, findings, and a description of the run, with the hash of the loss's file."""
    spec = plant(BY_NAME["total_twice"], tmp_path)
    status, output, errors = run("check", spec, "--laws", "totals.sum", "--workers", 1, "--json", cwd=tmp_path)
    told = json.loads(output)
    assert status == told["status"] == 1
    assert errors == ""
    assert [finding["law"] for finding in told["faults"]] == ["totals.sum"]
    assert told["laws"][0]["word"] == "BROKE"
    about = told["about"]
    assert about["loss"] == spec
    assert len(about["sha256"]) == 64
    assert {"python", "torch", "hypothesis", "yololoss"} <= set(about["versions"])


def test_what_cannot_be_written_hides_no_finding(tmp_path):
    """A read-only folder, or a file in its place: the finding is shown, kept elsewhere and replayed; exit status 1."""
    spec = plant(BY_NAME["total_twice"], tmp_path)
    (tmp_path / "file").touch()
    options = ("--laws", "totals.sum", "--workers", 1, "--cases", 5, "--no-shrink", "--findings", "file/found")
    pages = ("--report", "file/r.html", "--junit", "file/j.xml")
    status, output, errors = run("check", spec, *options, *pages, cwd=tmp_path)
    assert (status, output.splitlines()[-1].startswith("1 fault (1 law broke)")) == (1, True), output
    saved = re.search(r"  saved as   (.+), since it could not be saved in file/found: (?:Not a d|File e)", output)[1]
    assert [vector.law for vector in read_vectors(Path(saved)).vectors] == ["totals.sum"]
    lines = [line for line in errors.splitlines() if line.startswith("yololoss: ")]
    assert [line.partition(": could not be written: ")[0] for line in lines] == [
        "yololoss: file/j.xml",
        "yololoss: file/r.html",
    ]
    with patch("yololoss.harness.findings.finding._drawn"):  # its seconds say nothing here
        status, output, _ = run("replay", saved, "--loss", spec, "--findings", "file/found", cwd=tmp_path)
    again = re.search(r"  saved as   (.+), since it could not be saved in file/found: ", output)[1]
    assert (status, Path(again).name) == (1, Path(saved).name)
    for path in (saved, again):
        shutil.rmtree(Path(path).parent)


@pytest.mark.slow
def test_a_command_leaves_nothing_beside_its_own_folder(tmp_path):
    """Hypothesis's cache too lies under .yololoss: a folder .hypothesis may end the user's own pytest run."""
    status, output, _ = run_apart("laws", "totals.sum", cwd=tmp_path)
    assert (status, "example" in output) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == [".yololoss"]


CANNOT = """
from tests.subjects.plain import PlainLoss

class Raises(PlainLoss):
    def __call__(self, p, targets):
        raise KeyError("total")

class NotOnTheCpu(PlainLoss):
    def __call__(self, p, targets):
        if p[0].device.type == "cpu":
            raise RuntimeError("only on an accelerator")
        return super().__call__(p, targets)

class SometimesRaises(PlainLoss):
    def __call__(self, p, targets):
        if len(targets):
            raise RuntimeError("targets")
        return super().__call__(p, targets)
"""


def test_a_loss_that_cannot_be_called_breaks_no_law(tmp_path):
    """One line: what it raised, what it is given, and the way to an adapter; status 2, no case, nothing drawn."""
    (tmp_path / "cannot.py").write_text(CANNOT, encoding="utf-8")
    status, output, errors = run("check", "cannot.py:Raises", "--dialect", "upstream", cwd=tmp_path)
    assert (status, output) == (2, "")
    told = (
        "raised in loss on each of 20 cases: KeyError: 'total', at cannot.py:6 in __call__. It is given a model like "
    )
    assert errors.startswith(f"yololoss: cannot.py:Raises cannot be called: {told}YOLOv5's (a dict hyp, ")
    assert errors.endswith("needs an adapter: docs/use/adapters.md\n")
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["cannot.py"]


@pytest.mark.parametrize(("name", "device"), [("NotOnTheCpu", "compile,mirror"), ("SometimesRaises", "cpu")])
def test_a_loss_that_can_be_called_somewhere_is_judged(tmp_path, name, device):
    """On one of its devices, or on one kind of case."""
    (tmp_path / "cannot.py").write_text(CANNOT, encoding="utf-8")
    chosen = Settings(loss=f"{tmp_path}/cannot.py:{name}", device=device, dialect="upstream", baseline=None)
    assert found_if_unnamed(chosen, under_test(chosen)).dialect == "upstream"


def test_a_loss_that_ends_its_process_at_the_first_look_is_judged(monkeypatch):
    """A law says so, with the case."""
    monkeypatch.setattr(held, "_asked", lambda *_: "the loss ended its process when it was looked at")
    chosen = Settings(loss="tests.subjects.faulty:ExitsForGood", device="cpu", dialect="upstream", baseline=None)
    assert found_if_unnamed(chosen, under_test(chosen)).dialect == "upstream"


def test_a_check_that_is_cut_short_says_so(monkeypatch, tmp_path):
    """Else laws that judged few cases would look as if they held."""
    options = ["tests.subjects.faulty:ExitsForGood", "--dialect", "upstream", "--laws", "totals.sum", "--no-shrink"]
    monkeypatch.setattr(session, "PATIENCE", 2)
    _, output, _ = run("check", *options, "--workers", 1, cwd=tmp_path)
    stopped = next(line for line in output.splitlines() if line.startswith("cut short"))
    assert stopped.startswith("cut short: 2 cases ended their process or did not return; ")
    assert stopped.endswith(" of 100 cases were judged")


def test_the_first_look_says_what_is_raised_on_every_case(tmp_path):
    """One case without an exception is enough; a case whose options the loss lacks says nothing."""
    (tmp_path / "cannot.py").write_text(CANNOT, encoding="utf-8")
    sent = []
    for name in ("Raises", "SometimesRaises"):
        held._call(Mock(send=sent.append), Task(f"{tmp_path}/cannot.py:{name}", "cpu"))
    with patch.object(held, "execute", side_effect=Unsupported("gr")):
        held._call(Mock(send=sent.append), Task(f"{tmp_path}/cannot.py:Raises", "cpu"))
    assert [each.raised and each.raised.kind for each in sent] == ["raised in loss", None, None]


@pytest.mark.slow
def test_check_shows_all_on_demand(tmp_path):
    """--verbose: every fault in full, and laws that hold or are explained."""
    (tmp_path / "both.py").write_text(TWO_FAULTS, encoding="utf-8")
    laws = ("totals.sum", "totals.value", "totals.shape-and-dtype", "totals.items-detached")
    options = ("--dialect", "yololoss", "--workers", 1, "--cases", 40, *(x for law in laws for x in ("--laws", law)))
    status, output, errors = run("check", "both.py:Faulty", *options, "-v", cwd=tmp_path)
    assert status == 1, errors
    assert output.count(" broke: ") == 2
    assert re.search(r"totals.shape-and-dtype +held", output)
    assert re.search(r"totals.value +explained +\d+ +explained by totals.sum", output)
    assert output.splitlines()[-1].startswith("2 faults (3 laws broke)")
    status, output, _ = run("check", "both.py:Faulty", *options, "--no-shrink", cwd=tmp_path)
    assert (status, output.count(" broke: ")) == (1, 1)
    assert "another fault: totals.items-detached: " in output
    assert "laws: 1 of 4 held, 1 more broke for the same reason, " in output
    assert "totals.value" not in output.partition("\nlaws")[2]


@pytest.mark.slow
def test_no_shrink_neither_makes_cases_small_nor_draws_them(tmp_path):
    """It is a finding too, saved, without a picture."""
    spec = plant(BY_NAME["total_twice"], tmp_path)
    status, output, _ = run("check", spec, "--laws", "totals.sum", "--workers", 1, "--no-shrink", cwd=tmp_path)
    assert status == 1
    assert "  picture  " not in output
    assert {path.suffix for path in (tmp_path / ".yololoss" / "findings").iterdir()} == {".json"}


@pytest.mark.slow
def test_workers_share_the_laws(tmp_path):
    """--workers 2: laws run in two processes, and the findings are in the order of the laws."""
    spec = plant(BY_NAME["total_twice"], tmp_path)
    status, output, errors = run_apart(
        "check", spec, "--laws", "totals", "--cases", 5, "--workers", 2, "--json", "--no-shrink", cwd=tmp_path
    )
    assert status == 1, errors
    told = json.loads(output)
    assert told["faults"][0]["law"] == "totals.sum"
    assert len(told["laws"]) == sum(law.startswith("totals.") for law in LAWS)


FAULTY = '[[tool.yololoss.waivers]]\nlaw = "totals.balanc"\nreason = "x"\n'


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("chek", "chek: no such command; did you mean 'check'? (known: check, mend, fuzz, prove, replay, "),
        ("check a.py:Loss", "--loss a.py: no such file"),
        ("check --laws asign", "--laws asign: no such law; did you mean 'assign'?"),
        ("check --device gpu", "--device gpu: not available here; did you mean 'cpu'? (known: cpu, mirror, "),
        ("check --laws nosuch", "--laws nosuch: no such law; yololoss laws lists them"),
        ("check --dialect yolo", "--dialect yolo: no such dialect"),
        ("check --baseline b.json", "--baseline b.json: cannot be read: No such file or directory"),
        ("check --laws compile --workers 1", "nothing was judged"),
        ("check yololoss.v5.los:ComputeLoss", "--loss yololoss.v5.los: no such module"),
        ("record a.py:Loss -o b.json", "--loss a.py: no such file"),
        ("diff a.py:Loss yololoss:ComputeLoss", "--loss a.py: no such file"),
        ("diff yololoss:ComputeLoss a.py:Loss", "--loss a.py: no such file"),
        ("draw a.json", "a.json: cannot be read: No such file or directory"),
        ("laws assign.row", "--laws assign.row: no such law; did you mean 'assign.rows'?"),
        ("laws assign.contested", "--laws assign.contested: a law of the family tal; the loss is of the family v5"),
        (
            "diff yololoss:ComputeLoss yololoss:TaskAlignedLoss",
            "yololoss:ComputeLoss is a loss of the family v5, the other one is of the family tal",
        ),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(tmp_path, arguments, told):
    """Exit status 2, what came, and the closest match; no traceback."""
    if arguments.startswith(("diff a.py", "diff yololoss:ComputeLoss yolo")):
        status, output, errors = run_apart(*arguments.split(), "--no-laws", cwd=tmp_path)
    else:
        status, output, errors = run(*arguments.split(), cwd=tmp_path)
    assert status == 2, output
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"yololoss: {told}"), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", ["check --law assign", "check --cases 0", "check --workers 0", "record a.py:A"])
def test_options_that_are_none_are_told(tmp_path, arguments):
    """Exit status 2 and what was expected, by click."""
    status, _, errors = run(*arguments.split(), cwd=tmp_path)
    assert status == 2
    assert errors.strip().splitlines()[-1].startswith("Error: ")


def test_a_wrong_waiver_is_told_once(tmp_path):
    """A typing error in the settings is reported with the closest law, and once, not by each worker."""
    (tmp_path / "pyproject.toml").write_text(FAULTY, encoding="utf-8")
    status, _, errors = run("check", cwd=tmp_path)
    assert status == 2
    assert errors.strip() == "yololoss: waiver of totals.balanc: there is no such law; did you mean 'totals.balance'?"


def test_a_waiver_that_is_not_needed_is_told(tmp_path):
    """Exit status 1: the law holds again, so the waiver can go."""
    text = FAULTY.replace("totals.balanc", "totals.balance")
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    status, output, _ = run("check", "--laws", "totals.balance", "--workers", 1, "--report", "r.html", cwd=tmp_path)
    assert status == 1
    assert "totals.balance is waived (x), but it holds again: remove the waiver" in output
    assert output.splitlines()[-1].startswith("The run failed")
    assert "but it holds again" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_devices_that_are_not_there_are_told(tmp_path):
    """--device auto: what was left out, and why, on the terminal and in the report."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    options = ("--laws", "totals.sum", "--cases", 5, "--workers", 1, "--device", "auto", "--report", "r.html")
    status, output, _ = run("check", *options, cwd=tmp_path)
    assert status == 0
    assert re.search(r"^device cuda: not available here \(.+\): skipped$", output, re.MULTILINE)
    assert all(len(line) < 250 for line in output.splitlines())
    assert "device cuda: not available here" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_replay_answers_for_each_file(tmp_path):
    """Fixed, still broken, cannot run: each file gets its answer, and the exit status is the worst of them."""
    good = make_vector(id="a", law="assign.offset-range", case=GOOD)
    for name, vectors in {
        "good": [good],
        "none": [],
        "odd": [make_vector(id="b", law="assign.row", case=CASE)],
        "mirror": [make_vector(id="c", law="devices.rows", case=CASE)],
    }.items():
        write_vectors(tmp_path / f"{name}.json", {}, vectors)
    status, output, _ = run("replay", *(f"{n}.json" for n in ("good", "none", "odd", "mirror", "gone")), cwd=tmp_path)
    assert status == 2
    assert output.splitlines() == [
        "good.json: fixed",
        "none.json: cannot run: has no case",
        "odd.json: cannot run: b: saved under assign.row: no such law; did you mean 'assign.rows'?",
        "mirror.json: cannot run: needs --device mirror or cuda or mps",
        "gone.json: cannot run: cannot be read: No such file or directory",
    ]
    status, output, _ = run("replay", "good.json", "--json", cwd=tmp_path)
    assert status == 0
    assert json.loads(output)[0]["answer"] == "fixed"


def test_replay_of_a_case_without_anything_to_judge_says_so(tmp_path):
    """After the loss is fixed, its case may have nothing to judge."""
    none = CASE.changed(targets=(), options=CASE.options.model_copy(update={"sort_obj_iou": False}))
    write_vectors(tmp_path / "a.json", {}, [make_vector(id="a", law="objectness.last-row-wins", case=none)])
    status, output, _ = run("replay", "a.json", cwd=tmp_path)
    assert (status, output) == (0, "a.json: fixed (no cell is shared)\n")


LOST = """
from tests.subjects.plain import PlainLoss
from yololoss.harness.devices import devices

class Loss(PlainLoss):
    def __call__(self, p, targets):
        devices.is_lost = lambda device: True
        raise RuntimeError("CUDA error: device-side assert triggered")
"""


def test_replay_on_a_device_that_is_lost_says_so(tmp_path):
    """Still broken, and the replaying process keeps running; nothing can be drawn any more."""
    (tmp_path / "lost.py").write_text(LOST, encoding="utf-8")
    write_vectors(tmp_path / "a.json", {}, [make_vector(id="a", law="totals.sum", case=GOOD)])
    status, output, _ = run("replay", "a.json", "--loss", f"{tmp_path}/lost.py:Loss", cwd=tmp_path)
    assert status == 1
    assert output.startswith("a.json: still broken: RuntimeError: CUDA error: device-side assert triggered")
    assert "where      the device, after this case" in output


@pytest.mark.slow
def test_a_changed_loss_is_recorded_and_held_to_its_record(tmp_path):
    """GIoU for CIoU: it holds, with the laws that it breaks; a constant edited later is found, and replayed."""
    fork = copy_fork(tmp_path, GIOU)
    laws = ("--laws", "boxes.item", "--laws", "totals.sum")
    status, output, errors = run_apart("record", SPEC, "-o", "b.json", *laws, cwd=fork)
    assert status == 0, errors
    assert re.fullmatch(r"b.json: \d+ cases, 1 laws broken\n  boxes.item: .+\n", output)
    assert read_vectors(fork / "b.json").broken == ("boxes.item",)
    check = ("check", SPEC, "--baseline", "b.json", *laws, "--laws", "baseline", "--workers", 1, "--no-shrink")
    status, output, errors = run_apart(*check, cwd=fork)
    assert status == 0, output + errors
    assert re.search(r"boxes.item +waived +\d+ +it was broken when the baseline was", output)
    edit(fork, CONSTANT)
    status, output, _ = run_apart(*check, cwd=fork)
    assert status == 1
    assert output.startswith("baseline.values broke: ")
    assert re.search(r"  where +(objectness of|balance after) call 0", output)
    again, replayed = said(re.search(r"  replay +(.+)", output)[1], fork)
    assert again == 1, replayed
    status, _, errors = run_apart("record", SPEC, "-o", "b.json", "--laws", "totals.sum", cwd=fork)
    assert status == 2
    assert errors.strip().splitlines()[-1] == "yololoss: b.json: exists with other content; --force overwrites it"
    status, output, _ = run_apart("record", SPEC, "-o", "b.json", "--laws", "totals.sum", "--force", cwd=fork)
    assert (status, "0 laws broken" in output) == (0, True)
    status, output, _ = run_apart("record", SPEC, "-o", "b.json", "--laws", "totals.sum", cwd=fork)
    assert (status, "unchanged" in output) == (0, True)
    assert run_apart(*check, cwd=fork)[0] == 1  # boxes.item broke, and is not known any more


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "written"), [("y", True), ("n", False)])
def test_recording_over_a_file_that_differs_asks(tmp_path, answer, written):
    """On a terminal the user is asked; the file is kept unless the answer is yes."""
    path = tmp_path / "b.json"
    path.write_text("{}", encoding="utf-8")
    with (
        patch("sys.stdin", io.StringIO(f"{answer}\n")) as given,
        patch.object(given, "isatty", lambda: True, create=True),
    ):
        status, output, _ = run("record", BUNDLED, "-o", "b.json", "--laws", "totals.sum", cwd=tmp_path)
    assert status == 0
    assert "exists with other content. Overwrite it?" in output
    assert (path.read_text(encoding="utf-8") != "{}") is written


@pytest.mark.slow
def test_a_nan_is_recorded_as_no_choice(tmp_path):
    """Its law is named, and not among those that are known to break."""
    code = "from yololoss import ComputeLoss\n\n\nclass Loss(ComputeLoss):\n    def __call__(self, p, targets):\n"
    code += "        total, items = super().__call__(p, targets)\n        return total * float('nan'), items\n"
    (tmp_path / "nan.py").write_text(code, encoding="utf-8")
    spec = f"{tmp_path}/nan.py:Loss"
    status, output, errors = run("record", spec, "-o", "b.json", "--laws", "totals.finite", cwd=tmp_path)
    assert status == 0, errors
    line = "  totals.finite: The loss is not finite; this is no choice, so it is not recorded as known"
    assert output.splitlines()[1:] == [line]
    assert read_vectors(tmp_path / "b.json").broken == ()


@pytest.mark.slow
def test_record_takes_cases_of_ones_own(tmp_path):
    """--case FILE: they are recorded along with the fixed ones; cases with options that the loss lacks are left out."""
    write_vectors(tmp_path / "mine.json", {}, [make_vector(id="a", case=CASE)])
    box = "tests.subjects.forms:BlackBox"
    status, _, errors = run(
        "record", box, "-o", "b.json", "--case", "mine.json", "--laws", "gradients.finite", cwd=tmp_path
    )
    assert status == 0, errors
    vectors = {vector.id: vector for vector in read_vectors(tmp_path / "b.json").vectors}
    assert vectors["mine-a"].case == CASE
    assert not [v for v in vectors.values() if v.case.options.autobalance]
    assert vectors["mine-a"].expected.built is None
    status, output, _ = run("check", box, "--baseline", "b.json", "--laws", "baseline", "--workers", 1, cwd=tmp_path)
    assert status == 0, output


def test_a_record_of_what_cannot_run_is_refused(tmp_path):
    """An unknown dialect is reported by the process that surveys the laws."""
    status, _, errors = run("record", BUNDLED, "-o", "b.json", "--dialect", "yolo", cwd=tmp_path)
    assert status == 2
    assert "--dialect yolo: no such dialect" in errors
    assert not (tmp_path / "b.json").exists()


@pytest.mark.slow
def test_laws_that_do_not_apply_tell_nothing(tmp_path):
    """record and diff with laws that need another device: the process that surveys them says so."""
    for command in (("record", BUNDLED, "-o", "b.json"), ("diff", BUNDLED, BUNDLED, "--cases", 1)):
        status, output, errors = run_apart(*command, "--laws", "devices.rows", cwd=tmp_path)
        assert status == 2, output
        assert errors.splitlines()[-1].startswith("yololoss: nothing was judged"), errors


@pytest.mark.slow
def test_diff_says_where_two_losses_differ(tmp_path, monkeypatch):
    """Two states of one fork, with modules of the same names: aspects with their smallest case, and the laws."""
    monkeypatch.setattr(diff, "SMALL", 2.0)
    fork = copy_fork(tmp_path / "new", EDITS[0])
    old = copy_fork(tmp_path / "old")
    laws = ("--laws", "assign.neighbours", "--laws", "totals.sum")
    two = (f"{old}/{SPEC}", f"{fork}/{SPEC}")
    status, output, errors = run("diff", *two, *laws, "--cases", 60, cwd=tmp_path)
    assert status == 1, errors
    assert output.startswith("diff.rows broke: ")
    assert f"assign.neighbours: held for {two[0]}, BROKE for {two[1]}" in output
    assert output.splitlines()[-1].startswith("60 cases: they differ in rows, ")
    again, replayed = said(re.search(r"  replay +(.+)", output)[1], tmp_path)
    assert again == 1, replayed
    assert f"source     expected is what {two[0]} does" in output
    status, output, errors = run_apart("diff", SPEC, two[0], "--no-laws", "--cases", 1, cwd=fork)  # from inside one
    assert "is another file" not in errors
    told = json.loads(run("diff", *two, "--no-laws", "--json", "--cases", 20, cwd=tmp_path)[1])
    assert {finding["law"] for finding in told["differences"]} >= {"diff.rows"}


@pytest.mark.slow
def test_diff_of_equal_losses_is_empty(tmp_path):
    """Exit status 0; options that only one has are left out."""
    two = (BUNDLED, "tests.subjects.in_place:InPlace")
    status, output, errors = run_apart("diff", *two, "--no-laws", "--cases", 30, cwd=ROOT)
    assert status == 0, output + errors
    assert output == "30 cases: they differ in nothing\n"
    # a function has neither autobalance nor sorting; this one returns a fourth item
    status, output, errors = run_apart(
        "diff", "tests.subjects.forms:compute_loss", BUNDLED, "--no-laws", "--cases", 30, cwd=ROOT
    )
    assert status == 1, output + errors
    assert output.splitlines()[-1] == "30 cases: they differ in values"


def test_draw_wants_one_vector_and_a_format(tmp_path):
    """Without --id the file must have one vector; the closest id and the formats are named."""
    vectors = [make_vector(id=name, case=CASE) for name in ("first", "second")]
    write_vectors(tmp_path / "a.json", {}, vectors)
    for options, told in (
        ((), "a.json: has 2 vectors; choose one with --id: first, second"),
        (("--id", "secnd"), "a.json: --id secnd: no such vector; did you mean 'second'?"),
        (("--id", "first", "-o", "a.jpg"), "-o a.jpg: expected a name that ends in .png, .svg, .pdf"),
    ):
        status, _, errors = run("draw", "a.json", *options, cwd=tmp_path)
        assert (status, errors.strip()) == (2, f"yololoss: {told}")
    status, output, _ = run("draw", "a.json", "--id", "second", cwd=tmp_path)
    assert (status, output) == (0, "second.png\n")
    assert (tmp_path / "second.png").read_bytes().startswith(b"\x89PNG")


def test_dialects_finds_out_a_losss_own(tmp_path):
    """In lines, or as JSON; of a named dialect what the loss contradicts."""
    loss = f"tests.subjects.chosen:{name_of('smoothing = ignored')}"
    status, output, _ = run("dialects", loss, cwd=tmp_path)
    assert status == 0
    assert output.splitlines() == [
        "dialect: upstream, smoothing = ignored (sure: it explains 16 of 16 other cases)",
        '  to hold the loss to it, write in the settings: dialect = "upstream, smoothing = ignored"',
    ]
    assert run("dialects", loss, "--dialect", "smoothing = ignored", cwd=tmp_path)[:2] == (
        0,
        "dialect: upstream, smoothing = ignored, as named\n",
    )
    status, output, _ = run("dialects", loss, "--dialect", "upstream", "--json", cwd=tmp_path)
    assert status == 1
    assert json.loads(output)["contradicted"] == {
        "the dialect has smoothing = half; the loss has smoothing = ignored": "upstream, smoothing = ignored"
    }


@pytest.mark.slow
def test_a_choice_that_contradicts_the_dialect_is_one_finding(tmp_path):
    """It explains the laws that broke only for it. A loss that names no dialect is judged by the one that is found."""
    loss = f"tests.subjects.chosen:{name_of('batch = plain')}"
    told = "the dialect has batch = times; the loss has batch = plain"
    laws = ("--laws", "totals.sum", "--laws", "gradients.value", "--laws", "totals.value", "--workers", 1)
    named = (loss, *laws, "--cases", 20, "--dialect", "upstream")
    status, output, errors = run("check", *named, "--report", "r.html", cwd=tmp_path)
    assert status == 1, errors
    assert output.startswith(f"choice: {told}\ntotals.sum broke: ")
    assert "  explains   totals.value, gradients.value" in output.splitlines()
    meant = "s this is the rule of yolop, okery; if that is meant, use --dialect 'upstream, batch = plain'"
    assert f"  meant?     as it stand{meant}" in output.splitlines()
    assert "1 fault (3 laws broke)" in output
    assert f"{told}.</strong> As it stand{meant}, or" in html.unescape(
        (tmp_path / "r.html").read_text(encoding="utf-8")
    )
    status, output, _ = run("fuzz", *named, "--out", "s", "--json", cwd=tmp_path)
    (found,) = json.loads(output)["verdict"]["faults"]
    assert (status, found["choice"]) == (1, told)
    status, output, _ = run("check", loss, *laws, "--cases", 20, cwd=tmp_path)
    assert status == 0
    assert output.startswith("dialect: upstream, batch = plain (sure: ")


@pytest.mark.parametrize(
    ("laws", "told"),
    [
        (["totals.sum", "totals.value"], [("totals.sum", True), ("totals.value", False)]),
        (["totals.value"], [("totals.value", False)]),  # judged by its own choice, it breaks that law as well
    ],
)
def test_a_fault_beside_a_contradicted_choice_is_found(tmp_path, laws, told):
    """The law that broke for the choice is judged again by what the loss has. If it breaks, the choice says nothing."""
    (tmp_path / "both.py").write_text(A_CHOICE_AND_A_FAULT, encoding="utf-8")
    options = ("--dialect", "upstream", "--cases", 60, "--workers", 1, "--no-shrink", "--json")
    named = [word for law in laws for word in ("--laws", law)]
    status, output, errors = run("check", "both.py:Faulty", *options, *named, cwd=tmp_path)
    assert status == 1, errors
    assert [(each["law"], bool(each["choice"])) for each in json.loads(output)["faults"]] == told


def test_dialects_are_listed_with_their_choices(tmp_path):
    """The known ones, with what differs; every choice with its options; as JSON."""
    status, told, errors = run("dialects", cwd=tmp_path)
    assert status == 0, errors
    assert re.search(r"^  upstream +nothing$", told, re.MULTILINE)
    assert re.search(r"^  yolov5-6.1 +overlap_form = yolov5-5.0$", told, re.MULTILINE)
    assert re.search(r"^  neighbours +mirror, own-half$", told, re.MULTILINE)
    assert re.search(r"^  overlap_eps +a number$", told, re.MULTILINE)
    found = json.loads(run("dialects", "--json", cwd=tmp_path)[1])
    assert found["v5"]["dialects"]["mmyolo"][0] == "cell = none"
    assert found["v5"]["choices"]["balance"]["options"] == "numbers"
    assert found["tal"]["choices"]["contested"]["options"] == "all candidates, takers"


def test_laws_are_listed_and_explained(tmp_path):
    """All; those of a pattern; one with its statement, source, families, devices and an example; as JSON."""
    lines = run("laws", cwd=tmp_path)[1].splitlines()
    assert [line.split()[0] for line in lines] == list(LAWS)
    assert len(run("laws", "boxes", cwd=tmp_path)[1].splitlines()) == sum(law.startswith("boxes.") for law in LAWS)
    told = run("laws", "boxes.item", cwd=tmp_path)[1]
    for part in ("  statement  The box item is", "  source     SPEC 2", "  dialects   all", "  example", "layer 0: "):
        assert part in told
    assert "needs" not in told
    assert run("laws", "totals.layers-independent", cwd=tmp_path)[1].count("layer ") > 1, (
        "the law judges the case it shows"
    )
    for law, part in (("devices.rows", "mirror, cuda, mps"), ("baseline.rows", "any case written by yololoss record")):
        assert part in run("laws", law, cwd=tmp_path)[1]
    assert [law["id"] for law in json.loads(run("laws", "--json", cwd=tmp_path)[1])] == list(LAWS)


def test_help_is_what_the_docs_show():
    """docs/use/cli.md has each command's help, made by tests.cli_page."""
    assert (ROOT / "docs" / "use" / "cli.md").read_text(encoding="utf-8") == "\n".join(page()) + "\n"


def test_help_and_import_are_quick():
    """Neither imports torch, hypothesis or matplotlib."""
    heavy = ("torch", "hypothesis", "matplotlib")
    code = f"import sys, yololoss.harness.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    """One line that names it, and exit status 2."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    options = ("--laws", "totals.sum", "--cases", 5, "--workers", 1)
    status, _, errors = run("check", *options, "--report", "file/r.html", cwd=tmp_path)
    assert status == 2
    assert errors.strip().splitlines()[-1].startswith("yololoss: file")
