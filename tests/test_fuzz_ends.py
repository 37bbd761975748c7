"""How a session's processes begin and end, and what it prints. Code of other processes runs in this one here."""

import io
import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock, patch

import psutil
import pytest
from rich.console import Console

from tests.all_laws import ROOT
from tests.test_cli import GOOD
from tests.test_fuzz import BUNDLED, _raw_of, orders, quiet, rarely, settings
from yololoss.harness.cases.vectors import make_vector
from yololoss.harness.cli.fuzz import _tell
from yololoss.harness.cli.view import View
from yololoss.harness.devices.devices import DeviceLost
from yololoss.harness.engine import clerk, guard, judge, session, worker
from yololoss.harness.engine.plan import Origin
from yololoss.harness.engine.raw import Raw, raw_path, write_raw
from yololoss.harness.engine.session_summary import summarise
from yololoss.harness.errors import UsageError

VECTOR = make_vector(id="a", law="totals.sum", case=GOOD)


def test_last_words_are_not_for_the_terminal(tmp_path):
    """What a subject writes to the file descriptors is discarded; its folder is the session's."""
    code = (
        "import os\nfrom yololoss.harness.engine.guard import begin\n"
        f"begin(lambda name: (os.write(1, b'last words'), open(name, 'w').close()), {str(tmp_path)!r}, ('here',))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "here").exists()


def test_a_process_asks_whether_it_is_watched():
    """By the process that started it; if it does not check again in time, it ends itself."""
    with patch.object(multiprocessing, "parent_process") as parent, patch("faulthandler.dump_traceback_later") as later:
        for alive in (True, False):
            parent.return_value.is_alive.return_value = alive
            assert guard.is_watched(7.0) == alive
            assert later.call_args.args == (7.0,)


def test_a_process_that_is_gone_has_no_memory():
    """It may end between two checks."""
    watched = guard.Guarded(time.sleep, (600,), 4096)
    assert watched.resident > 0
    with patch("psutil.Process", side_effect=psutil.NoSuchProcess(1)):
        assert watched.resident == 0
    watched.kill()


def test_a_machine_that_stood_still_makes_no_process_late():
    """Time counts while it is watched: at most a second between two checks."""
    watched = guard.Guarded(time.sleep, (600,), 4096)
    watched._used = lambda: (0.0, True)
    with patch.object(guard, "time") as time_of_guard:
        clock = time_of_guard.monotonic
        for now in (100.0, 100.5, 140.0, 140.5):  # 40 s of which were no one's
            clock.return_value = now
            assert watched.watch(99.0, 3.0) is None
        clock.return_value = 141.4
        assert watched.watch(141.3, 3.0) is None  # another case
        for now in (142.0, 143.0, 144.0):
            clock.return_value = now
            assert watched.watch(141.3, 3.0) is None
        clock.return_value = 145.0
        assert watched.watch(141.3, 3.0) == guard.Death("run.time-limit", "did not return within 3 s")


def test_a_busy_machine_makes_no_process_late():
    """While a process waits for a processor, only its processor time counts."""
    watched = guard.Guarded(time.sleep, (600,), 4096)
    spent = 0.0
    watched._used = lambda: (spent, False)
    with patch.object(guard, "time") as time_of_guard:
        for now in range(100, 120):
            time_of_guard.monotonic.return_value = float(now)
            spent += 0.1
            assert watched.watch(99.0, 3.0) is None
        for now in range(120, 123):
            time_of_guard.monotonic.return_value = float(now)
            spent += 1.0
            late = watched.watch(99.0, 3.0)
    assert late == guard.Death("run.time-limit", "did not return within 3 s")


@pytest.mark.parametrize("lost", [False, True])
def test_a_process_that_judges_answers_case_by_case(lost):
    """Until the pipe is closed, or the device is lost."""
    ours, theirs = multiprocessing.Pipe()
    task = judge.Task(BUNDLED, "cpu", "yololoss")
    serving = threading.Thread(target=judge.serve, args=(theirs, task))
    error = DeviceLost("gone", GOOD)
    with patch.object(judge, "judged", side_effect=error if lost else judge.judged):
        serving.start()
        assert ours.recv() == "ready"
        ours.send(VECTOR.model_dump_json())
        told, nothing = ours.recv()
        assert nothing is None
        assert (told is None) != lost
        if lost:
            assert judge.Told(*told).what == "the device, after this case"
        ours.close()
        serving.join(10)
    assert not serving.is_alive()


def test_a_judge_sees_a_death_before_the_pipe_tells_of_it():
    """A process that is dead does not answer any more."""
    asked = judge.Judge(judge.Task(BUNDLED, "cpu", "yololoss"))
    asked._guarded, asked._pipe = Mock(), Mock()
    asked._pipe.poll.return_value = False
    asked._guarded.watch.side_effect = [None, guard.Death("run.no-exception", "killed by X")]
    told, _ = asked.ask(VECTOR)
    assert told is not None
    assert told.observed == "killed by X"


def test_a_worker_says_what_ended_it(tmp_path):
    """In a file beside its journal."""
    given = orders(tmp_path, task=judge.Task("nothing:here", "cpu", "upstream"))
    with pytest.raises(UsageError):
        worker.run(given)
    assert "no such module" in worker.error_path(tmp_path, 0).read_text(encoding="utf-8")


def test_laws_that_run_the_loss_anew_are_spared_one_that_does_not_answer(tmp_path):
    """Each of them would wait for it again."""
    task = judge.Task(rarely(tmp_path, "Raises", 1), "cpu", "upstream")
    worker.run(orders(tmp_path, task=task, laws=("run", "state.deep-copy"), cases=20))
    plan = worker.Plan(("run", "state.deep-copy"), task.under_test())
    named = worker.Counters(plan).read(worker.Journal(worker.journal_path(tmp_path, 0)).counters).named
    assert named["broke run.no-exception"] > 0
    assert named["tried state.deep-copy"] + named["broke run.no-exception"] <= 20


def test_what_is_not_to_be_made_small_is_kept_as_it_was_found(tmp_path):
    """There are enough findings of its law, or there is no time."""
    duty, path = _raw_of(tmp_path, "Segfaults")
    clerk.attend(duty._replace(seconds=0.0), path)
    (record,) = clerk.read_records(tmp_path).values()
    assert record.finding.repeats


def _waiting(folder: Path) -> tuple[session.Session, str]:
    """A session with a finding for its clerk."""
    made = session.begin(folder, settings())
    raw = Raw(clerk.Told("totals.sum", "total", "1", "2", "none"), made.plan.case(Origin(0, bytes(500))), None)
    write_raw(folder, BUNDLED, raw)
    return made, raw.kind


def test_what_is_known_or_cannot_be_read_keeps_no_clerk_busy(tmp_path):
    """The first is only counted; the second is kept for a person to look at, and does not end the session."""
    made, kind = _waiting(tmp_path)
    made.records[kind] = clerk.Record(kind=kind, nothing="a kill from outside hides no crash of the same kind")
    assert made._look_after_clerks(1.0)
    ((guarded, _),) = made.clerks.values()
    guarded.kill()
    made.clerks = {}
    made._take_record(raw_path(tmp_path, kind))
    write_raw(tmp_path, BUNDLED, Raw(clerk.Told("totals.sum", "total", "1", "2", "none"), GOOD, None))
    assert not made._look_after_clerks(1.0)
    assert not list((tmp_path / "raw").iterdir())
    raw_path(tmp_path, "00ff").write_text("{", encoding="utf-8")
    assert not made._look_after_clerks(1.0)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["00ff.unreadable"]


def test_ctrl_c_while_the_last_are_made_small_leaves_them_for_later(tmp_path):
    """They are minimised when the session is resumed."""
    made, kind = _waiting(tmp_path)
    clerks = []

    def interrupted(_: float) -> None:
        clerks.extend(guarded for guarded, _ in made.clerks.values())
        raise KeyboardInterrupt

    with patch.object(session.time, "sleep", interrupted):
        made._end(quiet)
    assert not clerks[0].alive
    assert raw_path(tmp_path, kind).exists()


@pytest.mark.slow
def test_what_the_clerk_has_done_when_the_session_ends_is_told(tmp_path):
    """Also if the session has not checked yet: its file is no longer among those that wait."""
    made, kind = _waiting(tmp_path)
    assert made._look_after_clerks(60.0)
    ((guarded, _),) = made.clerks.values()
    guarded.process.join()
    assert not raw_path(tmp_path, kind).exists()
    made._end(quiet)
    assert list(made.findings) == [kind]


def test_what_a_worker_was_to_judge_first_goes_to_the_next(tmp_path):
    """Cases that it did not judge are judged later, if it dies and if the session does."""
    first = tuple(make_vector(GOOD.changed(batch=n), id="a").model_dump_json() for n in (2, 3, 4))
    start_worker = Mock()
    made = session.begin(tmp_path, settings(workers=2), first, start_worker)
    for place in (0, 1):
        made._start_worker(place)
    assert [call.args[0].first for call in start_worker.call_args_list] == [first[:2], first[2:]]
    given = start_worker.call_args_list[0].args[0]
    worker.run(given._replace(settings=replace(given.settings, cases=0), first=first[:1]))
    made.workers = [Mock(orders=call.args[0]) for call in start_worker.call_args_list]
    again = session.resume(tmp_path)
    assert again.state.first == (first[2], first[1])
    assert not again.state.running


def test_a_session_is_shown_as_a_line_that_changes_on_a_terminal(tmp_path):
    """With the remaining time."""
    made, _ = _waiting(tmp_path)
    made.settings = replace(made.settings, seconds=60.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    with patch("yololoss.harness.cli.view.Console", return_value=console), View("title", quiet=False) as view:
        view._every = 0.0
        view.show(made)
    assert "0 cases" in screen.getvalue()
    assert "1 to be minimised" in screen.getvalue()
    assert "0:00:59 left" in screen.getvalue()


def test_what_is_found_is_said_once_while_the_session_goes_on(tmp_path):
    """Its path at once; progress from time to time."""
    made, kind = _waiting(tmp_path)
    made._take_record(raw_path(tmp_path, kind))
    screen = io.StringIO()
    with patch("yololoss.harness.cli.view.Console", return_value=Console(file=screen, width=200, soft_wrap=True)):
        view = View("title", quiet=False)
    for _ in range(2):
        view.show(made)
    assert screen.getvalue() == f"title\ntotals.sum broke: {made.findings[kind].path}\n"
    view._every = 0.0
    view.show(made)
    assert screen.getvalue().splitlines()[2].startswith("0 cases")


def test_a_kill_from_outside_is_counted_and_no_finding(tmp_path):
    """As in the clerk's record."""
    made, kind = _waiting(tmp_path)
    clerk.write_record(tmp_path, clerk.Record(kind=kind, nothing="its case, run again, breaks no law"))
    made._take_record(raw_path(tmp_path, kind))
    assert (made.state.unexplained, made.findings) == (1, {})


def test_a_session_tells_what_it_found_and_what_it_could_not(tmp_path, capsys):
    """The first finding in full, the others by a line; kills from outside; that nothing was judged."""
    made, kind = _waiting(tmp_path)
    made._take_record(raw_path(tmp_path, kind))
    summary = summarise(made, None)
    (finding,) = summary.verdict.faults
    twice = summary.verdict.model_copy(update={"faults": (finding, finding)})
    _tell(summary.model_copy(update={"verdict": twice, "unexplained": 2}), tmp_path, verbose=False)
    output = capsys.readouterr().out
    assert "another fault: totals.sum: The total is not (box + obj + cls) x batch, 1 times" in output
    assert "processes killed from outside (no fault of the loss): 2" in output
    nothing = session.begin(tmp_path / "b", settings())
    with pytest.raises(UsageError, match="nothing was judged"):
        _tell(summarise(nothing, None), tmp_path, verbose=False)
