"""Sessions on a Ray cluster: a real one of several nodes on this machine, one of which is lost in the middle."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import DEFAULT, patch

import numpy as np
import pytest

import yololoss
from tests.all_laws import ROOT
from tests.test_cli import run
from tests.test_fuzz import FEW, HEEDING_CTRL_C, SLOW, _state, _until, orders, rarely
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine import cluster
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.judge import Task
from yololoss.harness.engine.worker import error_path, journal_path
from yololoss.harness.errors import UsageError

pytest.importorskip("ray", reason="ray is not installed here; pip install 'yololoss[fleet]'")
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RaySystemError, RayTaskError

pytestmark = pytest.mark.slow
LAWS = [x for pattern in FEW for x in ("--laws", pattern)]


@pytest.fixture(scope="module")
def ray_cluster():
    """A cluster of three nodes with a processor each: its address, and the process that has it."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.ray_cluster", "2"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as going:
        yield going.stdout.readline().strip(), going
        going.stdin.close()


def _done(out: Path) -> int:
    """The counts of the current workers."""
    return sum(int(Journal(path).counters.sum()) for path in (out / "journal").glob("*.journal"))


def test_a_lost_node_costs_its_running_case_alone(tmp_path, ray_cluster):
    """The session continues on the remaining nodes; findings and counts are in its folder."""
    address, nodes = ray_cluster
    out = tmp_path / "s"
    options = ("--for", "10m", "--workers", "3", "--seed", "7", "--out", str(out), "--json", *LAWS)
    fuzz = [sys.executable, "-m", "yololoss", "fuzz", rarely(tmp_path, "Raises", 30)]
    command = [*HEEDING_CTRL_C, *fuzz, "--ray", address, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as going:
        try:
            _until(lambda: len(list((out / "journal").glob("*.journal"))) == 3)
            print("lose", file=nodes.stdin, flush=True)
            assert nodes.stdout.readline() == "lost\n"
            # however long the cluster takes to notice, so no number of cases ends this session
            _until(lambda: _state(out)["restarts"] == 1)
            counted = _done(out)
            _until(lambda: _done(out) > counted and list((out / "findings").iterdir()))
            going.send_signal(signal.SIGINT)
            output, _ = going.communicate(timeout=SLOW)
        finally:
            going.kill()
    told = json.loads(output)
    assert (going.returncode, told["restarts"]) == (1, 1)
    (finding,) = told["verdict"]["faults"]
    assert finding["law"] == "run.no-exception"
    assert read_vectors(Path(finding["path"])).vectors
    counts = _state(out)["counts"]["named"]
    assert told["seen"][finding["path"]] == counts["broke run.no-exception"]
    assert counts["cases"] == told["cases"]
    # every case is judged by this law, but for those that were cut short: one a worker
    assert 0 <= counts["cases"] - counts["tried run.no-exception"] <= 4
    assert not [*(out / "journal").iterdir(), *(out / "raw").iterdir()]


def test_a_session_on_a_cluster_is_resumed_here(tmp_path, ray_cluster):
    """Each run may have its workers elsewhere: the session's folder is the same."""
    address, _ = ray_cluster
    out = tmp_path / "s"
    command = [sys.executable, "-m", "yololoss", "fuzz", "--ray", address, "--cases", "20", "--out", str(out), *LAWS]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    counted = _state(out)["counts"]["named"]["cases"]
    status, output, errors = run("fuzz", "--resume", "--out", out, "--cases", counted + 10, "--json", cwd=tmp_path)
    assert status == 0, errors
    assert json.loads(output)["cases"] >= counted + 10


def test_a_node_reports_what_a_worker_here_would_leave(tmp_path, monkeypatch):
    """A finding at once and each once, counts of one moment, what ended it; nothing stays behind."""
    monkeypatch.chdir(tmp_path)
    task = Task(rarely(tmp_path, "Raises", 2), "cpu", "upstream")
    node = cluster.Node(orders(tmp_path, task=task), str(tmp_path), yololoss.__version__)
    reports = [node.news(60.0)]
    while not reports[-1].counters:
        reports.append(node.news(0.1))
    reports.append(node.farewell())
    assert sum(len(report.found) for report in reports) == 1
    assert reports[-1].death is None
    assert not node.folder.exists()
    unknown = Task("nothing:here", "cpu", "upstream")
    gone = cluster.Node(orders(tmp_path, task=unknown), "/nowhere", yololoss.__version__)
    report = gone.news(60.0)
    assert report.death is not None
    assert "no such module" in report.error
    assert not gone.folder.exists()
    with pytest.raises(RuntimeError, match=r"a node has yololoss .*, and the session 0"):
        cluster.Node(orders(tmp_path), "/", "0")


@pytest.fixture
def away(tmp_path):
    """A worker on a node whose answer is what ``ray.get`` is made to give."""
    with patch.multiple("ray", remote=DEFAULT, wait=DEFAULT, get=DEFAULT, kill=DEFAULT) as fakes:
        fakes["wait"].return_value = (["news"], [])
        yield cluster.RemoteWorker(orders(tmp_path), 0), fakes


def test_news_are_written_as_a_worker_here_would_leave_them(away, tmp_path):
    """Findings, counts and the case in flight; a node that does not answer at the end keeps nobody waiting."""
    handle, fakes = away
    counters = np.array([5, 7], np.uint64)
    fakes["get"].return_value = cluster.Report(counters.tobytes(), "a case", {"00ff": "{}"}, "why", None)
    assert handle.watch() is None
    assert (tmp_path / "raw" / "00ff.json").read_text(encoding="utf-8") == "{}"
    assert error_path(tmp_path, 0).read_text(encoding="utf-8") == "why"
    journal = Journal(journal_path(tmp_path, 0))
    assert (journal.counters.tolist(), journal.read().text) == ([5, 7], "a case")
    fakes["get"].side_effect = GetTimeoutError()
    handle.end()
    assert fakes["kill"].called
    fakes["wait"].return_value = ([], ["news"])
    assert handle.watch() is None


@pytest.mark.parametrize(
    ("error", "kind", "outside", "why"),
    [
        (RayActorError(), "lost with its node", True, None),
        (RaySystemError("no room"), "could not be started on a node", False, "System error: no room"),
        (ActorDiedError(RayTaskError("init", "no such folder", ValueError())), "could not be", False, "no such folder"),
    ],
)
def test_how_a_worker_on_a_node_may_end(away, tmp_path, error, kind, outside, why):
    """With its node, which is no fault of the loss; or it never started, and the session says why."""
    handle, fakes = away
    fakes["get"].side_effect = error
    death = handle.watch()
    assert death is not None
    assert death.kind.startswith(kind)
    assert death.outside == outside
    assert fakes["kill"].called
    path = error_path(tmp_path, 0)
    assert not path.exists() if why is None else why in path.read_text(encoding="utf-8")


def test_a_cluster_that_cannot_be_had_is_told_in_one_line(tmp_path):
    """None at that address, in bounded time; not installed; a cluster without GPUs, or of another version."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    with patch.object(cluster, "ANSWERS", 3.0):
        status, _, errors = run("fuzz", "--ray", address, cwd=tmp_path)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert f"--ray {address}: no Ray cluster answers there; expected host:port of its head, or auto" in errors
    assert time.monotonic() - begun < 30
    with patch.dict(sys.modules, {"ray": None}):
        status, _, errors = run("fuzz", "--ray", "auto", cwd=tmp_path)
    assert (status, errors) == (2, "yololoss: --ray auto: needs the package ray: pip install 'yololoss[fleet]'\n")
    with patch.object(cluster, "_answers"), patch("ray.init", side_effect=RuntimeError("Version mismatch\nmore")):
        status, _, errors = run("fuzz", "--ray", "auto", cwd=tmp_path)
    assert (status, errors) == (2, "yololoss: --ray auto: Version mismatch\n")


def test_workers_get_the_gpus_that_there_are(tmp_path):
    """One each, or a share where there are more workers; Ray says which, so none is named."""
    with patch.object(cluster, "_answers"), patch("ray.init"):
        found = cluster.Cluster("a:1")
    with patch("ray.cluster_resources", return_value={"CPU": 8.0, "GPU": 2.0}):
        assert (found.room("cpu"), found.room("cuda")) == (8, 2)
        with pytest.raises(UsageError, match="Ray gives out the GPUs; expected --device cuda"):
            found.room("cuda:1")
        for device, crew, share in (("cuda", 2, 1.0), ("cuda", 1, 1.0), ("cuda", 6, 0.33), ("cpu", 3, 0)):
            with patch.object(cluster, "RemoteWorker") as handle, patch.object(cluster, "_answers"):
                found.start_worker(orders(tmp_path, task=Task(BUNDLED, device, "yololoss"), workers=crew))
            assert handle.call_args.args[1] == share
    with (
        patch("ray.cluster_resources", return_value={"CPU": 8.0}),
        pytest.raises(UsageError, match="no node of the cluster has a GPU"),
    ):
        found.room("cuda")


def test_a_worker_in_place_of_a_lost_one_needs_a_cluster_that_answers(tmp_path):
    """If the head is lost, the session ends with one line; its first workers start without a check."""
    with patch.object(cluster, "_answers"), patch("ray.init"):
        found = cluster.Cluster("127.0.0.1:1")
    with patch.object(cluster, "RemoteWorker"), patch.object(cluster, "ANSWERS", 1.0):
        for _ in range(2):
            found.start_worker(orders(tmp_path, workers=2))
        with pytest.raises(UsageError, match="no Ray cluster answers there"):
            found.start_worker(orders(tmp_path, workers=2))
