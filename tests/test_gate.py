"""The engine's corners: gates, their results, and processes that start others."""

import multiprocessing
import sys
from pathlib import Path
from unittest.mock import Mock, patch
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest

from tests.all_laws import LAWS, V5
from tests.subjects.chosen import name_of
from tests.test_case import GOOD
from tests.test_fuzz import BUNDLED, orders, rarely, settings
from tests.test_plugin import run
from yololoss.harness import plugin
from yololoss.harness.cases.vectors import make_vector
from yololoss.harness.cli import look
from yololoss.harness.engine import clerk, guard, judge, session, worker
from yololoss.harness.engine.gate import Gate, Options
from yololoss.harness.engine.plan import Plan
from yololoss.harness.engine.raw import Raw, made, write_raw
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.junit import write_junit
from yololoss.harness.findings.summary import table
from yololoss.harness.findings.verdict import Verdict, explained, headline
from yololoss.harness.subjects.subject import Unsupported


def test_an_example_of_a_law_is_a_case_that_it_judges():
    """Cases that the law has nothing to say about are passed over."""
    for law in ("boxes.perfect-fit", "totals.layers-reversed"):
        assert "image(s)" in look._example(LAWS[law], V5)[0]


def test_what_a_loss_lacks_it_lacks_in_both_runs():
    """A case with an option that the loss lacks repeats."""
    with patch.object(clerk, "execute", side_effect=Unsupported("gr")):
        assert clerk.repeats(Mock(), GOOD)


def test_an_interrupted_gate_judged_nothing_to_the_end():
    """Exit status 2; other devices are not begun."""
    gate = Gate(Options(device="cpu,mirror"), Path.cwd())
    with patch.object(Gate, "judge", return_value=Verdict(status=0, problem="interrupted")) as judged:
        verdict = gate.verdict(LAWS, 1, lambda _: None)
    assert (verdict.status, verdict.problem, judged.call_count) == (2, "interrupted", 1)


def test_a_process_of_the_harness_forks_the_processes_that_it_starts():
    """It needs no server of its own, which would take seconds to start."""
    with patch.object(multiprocessing, "parent_process", return_value=Mock()):
        assert guard.server().get_start_method() == "fork"


def test_a_process_that_is_gone_uses_no_time():
    """It may end between two checks."""
    watched = guard.Guarded(print, (), 4096)
    watched.process.join()
    with patch("psutil.Process", side_effect=psutil.NoSuchProcess(1)):
        assert watched._used() == (0.0, True)


def test_a_process_that_cannot_load_the_loss_is_told():
    """Though the command's own process could: one line, and no traceback of a closed pipe."""
    asked = judge.Judge(judge.Task("nothing.py:Loss", "cpu"))
    with asked, pytest.raises(UsageError, match="a process that judges it ended before its first case"):
        asked.ask(make_vector(GOOD, id="a", law="totals.sum"))


def test_a_waiver_is_needed_until_its_law_is_judged_and_holds(tmp_path: Path):
    """A law without anything to judge does not hold again; and where none held, no headline says that laws hold."""
    (tmp_path / "yololoss.toml").write_text('[[waivers]]\nlaw = "totals.sum"\nreason = "ours"\n', encoding="utf-8")
    gate = Gate(Options(), tmp_path)
    words = ("not applicable", "held", "BROKE", "explained")
    rows = [gate._row("totals.sum", None, {"id": "totals.sum", "word": word, "why": None}) for word in words]
    assert [row["word"] for row in rows] == ["not applicable", "failed", "waived", "waived"]
    assert headline(Verdict(status=0, laws=tuple(rows[2:3]))) == "no laws hold, 1 were waived or did not apply"


def test_a_users_own_laws_are_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the process that judges, from their file."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "laws_of_ones_own.py"
    path.write_text("import sys\nsys.times_imported = getattr(sys, 'times_imported', 0) + 1\n", encoding="utf-8")
    for _ in range(2):
        judge.Task(BUNDLED, "cpu", modules=(str(path),)).under_test()
    assert sys.times_imported == 1


def test_a_judge_ends_with_the_process_that_asks():
    """A forked process holds both ends of the pipe, so only the end of the other process tells."""
    ours, theirs = multiprocessing.Pipe()
    gone, other = multiprocessing.Pipe()
    other.close()
    asker = patch.object(multiprocessing, "parent_process", return_value=Mock(sentinel=gone))
    with asker, patch.object(judge, "is_watched", return_value=True):
        judge.serve(theirs, judge.Task(BUNDLED, "cpu"))
    assert ours.recv() == "ready"


def told(observed: str) -> judge.Told:
    return judge.Told("totals.sum", "total", "1", observed, "none")


def test_a_gate_keeps_the_earliest_case_of_a_law(tmp_path: Path):
    """Two workers may find one each."""
    made = session.begin(tmp_path, settings(gate=True))
    for number, observed in ((7, "nan"), (4, "2")):
        write_raw(tmp_path, BUNDLED, Raw(told(observed), GOOD, None, number))
    ((path, raw),) = made._waiting()
    assert raw.number == 4
    assert list((tmp_path / "raw").iterdir()) == [path]


def test_what_a_clerk_has_written_is_kept_when_it_is_dismissed(tmp_path: Path):
    """Its record counts; the process is ended."""
    made, raw = session.begin(tmp_path, settings()), Raw(told("2"), GOOD, None)
    write_raw(tmp_path, BUNDLED, raw)
    clerk.write_record(tmp_path, clerk.Record(kind=raw.kind, nothing="killed from outside"))
    guarded = Mock()
    made.clerks = {tmp_path / "raw" / f"{raw.kind}.json": (guarded, "totals.sum")}
    made._dismiss_clerks()
    assert guarded.kill.called
    assert made.records[raw.kind].nothing == "killed from outside"


def test_a_worker_writes_its_notes_from_time_to_time(tmp_path: Path):
    """A long session shows them before it ends."""
    made = worker.Worker(orders(tmp_path))
    made._noted -= 2 * worker.NOTED
    made.step()
    assert worker.notes_path(tmp_path, 0).exists()


def test_a_case_that_a_law_is_not_about_shows_nothing_of_it(tmp_path: Path):
    """The case of an earlier finding is not taken for another law, if that law is not about it."""
    loss = f"tests.subjects.chosen:{name_of('balance = 2.0')}"
    task = settings(loss=loss, dialect="upstream", laws=("objectness.target", "totals.balance"), gate=True)
    plan, chance = Plan(task.laws, task.under_test()), np.random.default_rng(0)
    origins = [plan.origin(number, chance) for number in range(20)]
    mine, other = (next(o for o in origins if plan.about("totals.balance", o) is about) for about in (True, False))
    clerk.write_record(tmp_path, clerk.Record(kind="0" * 16, made=made(other)))
    raw = Raw(told("2")._replace(law="totals.balance"), plan.case(mine), mine)
    assert clerk._smallest_of(clerk.Duty(task, tmp_path, 0.1), raw, plan).origin.domain == mine.domain
    clerk.write_record(tmp_path, clerk.Record(kind="1" * 16, made=made(mine)))
    assert clerk._smallest_of(clerk.Duty(task, tmp_path, 0.1), raw, plan).origin == mine


def test_only_the_row_of_an_explained_law_names_the_law_that_shows_the_fault():
    """The others keep their reason; a law with a finding of its own is not explained."""
    faults = Mock(law="totals.sum", explains=("totals.value", "run.no-exit")), Mock(law="run.no-exit", explains=())
    words = {"totals.sum": "BROKE", "totals.value": "BROKE", "run.no-exit": "BROKE", "boxes.item": "not applicable"}
    rows = tuple({"id": id, "word": word, "why": None} for id, word in words.items())
    told = explained(Verdict.model_construct(faults=faults, laws=rows))
    whys = {row["id"]: (row["word"], row["why"]) for row in told.laws}
    assert whys == {id: (word, None) for id, word in words.items()} | {"totals.value": ("explained", "totals.sum")}


def test_a_waived_law_breaks_without_a_finding(tmp_path: Path):
    """In a gate it is not judged again."""
    task = judge.Task(rarely(tmp_path, "Raises", 1), "cpu", "upstream")
    worker.run(orders(tmp_path, task=task, gate=True, waived=("run.no-exception",), cases=12))
    plan = Plan(("totals.sum", "totals.items-detached", "run"), task.under_test())
    named = worker.Counters(plan).read(worker.Journal(worker.journal_path(tmp_path, 0)).counters).named
    assert named["broke run.no-exception"] == 1
    assert not list((tmp_path / "raw").iterdir())


def test_junit_has_a_test_case_for_each_law(tmp_path: Path):
    """Laws that were waived or do not apply are skipped, with the reason."""
    rows = [{"id": "totals.sum", "word": "held", "why": None}, {"id": "boxes.item", "word": "waived", "why": "ours"}]
    write_junit(Verdict(status=0, laws=tuple(rows)), tmp_path / "j.xml")
    suite = ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    assert suite.find("testcase/skipped").get("message") == "ours"


def test_pytest_runs_only_the_laws_that_are_named():
    """--laws, as for check."""
    status, output = run("properties/v5/test_totals.py", "--laws", "totals.sum", "--cases", "5")
    assert (status, "1 passed" in output) == (0, True), output


def test_a_test_without_a_result_says_why(request: pytest.FixtureRequest):
    """The process that ran the session is gone."""
    said = pytest.raises(pytest.fail.Exception, match="the process that ran the session for all workers ended")
    with patch.object(plugin, "_judged", return_value=Verdict(status=0)), said:
        plugin._result(request.node, LAWS["totals.sum"])


def test_ctrl_c_in_a_session_ends_pytest(request: pytest.FixtureRequest):
    """As it ends any test."""
    verdict = Verdict(status=0, problem="interrupted")
    with patch.object(Gate, "judge", return_value=verdict), pytest.raises(KeyboardInterrupt):
        plugin._run(request.node, "cpu")


def test_the_table_of_laws_is_short():
    """Why laws did not apply is said once for each reason; of a law that judged, only what it noted."""
    none = {
        "tried": 0,
        "judged": 0,
        "notes": {},
        "not_applicable": {},
        "word": "not applicable",
        "why": "needs --baseline",
    }
    many = {f"the subject has no option {n}": 10 for n in range(20)}
    judged = {**none, "tried": 9, "judged": 5, "not_applicable": many, "word": "BROKE", "why": None, "notes": {"a": 3}}
    rows = [{**none, "id": "baseline.rows"}, {**none, "id": "baseline.values"}, {**judged, "id": "totals.sum"}]
    lines = table(rows, 100, quiet=True).splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["totals.sum", "BROKE", "9", "3", "x", "a"],
        ["not", "applicable:", "2", "laws,", "needs", "--baseline"],
        ["laws:", "0", "of", "3", "held,", "2", "do", "not", "apply,", "9", "cases"],
    ]
