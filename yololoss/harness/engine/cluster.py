"""Workers on the nodes of a Ray cluster.

One actor for each worker: on its node it runs the same process as on one machine, in its own folder, and watches it.
The session polls it for reports, and writes them into the session's folder as a local worker would. So everything else
works as on one machine. A report comes at once if there is a new finding, else after a quarter of a second. If a node
is lost, what it did since its last report is lost too.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yololoss._suite import VERSION
from yololoss.harness.cases.files import write_whole
from yololoss.harness.engine.guard import Death
from yololoss.harness.engine.handles import LocalWorker, WorkerHandle
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.raw import raw_path
from yololoss.harness.engine.worker import Orders, error_path, journal_path
from yololoss.harness.errors import UsageError

STEP = 0.02  # seconds between two checks of a process
NEWS = 0.25  # seconds between two reports of a worker that finds nothing
ANSWERS = 15.0  # seconds that a cluster has to answer; Ray itself would try for two minutes
FAREWELL = 10.0  # seconds that a node has for its last report


class Report(NamedTuple):
    """A node's report on its worker."""

    counters: bytes  # empty before there is a journal
    in_flight: str
    found: dict[str, str]  # findings that are new: fingerprint, file
    error: str  # what ended the worker, if no case did
    death: Death | None


class Node:
    """The actor: a worker's process on its node."""

    def __init__(self, orders: Orders, folder: str, version: str) -> None:
        if version != VERSION:  # its counters may differ
            raise RuntimeError(f"a node has yololoss {VERSION}, and the session {version}")
        with suppress(OSError):  # a loss named by its module needs no folder
            os.chdir(folder)
        self.folder = Path(tempfile.mkdtemp(prefix="yololoss-"))
        for name in ("journal", "raw"):
            (self.folder / name).mkdir()
        # Ray shows a worker only its own GPU, which is then always the first
        self._worker = LocalWorker(orders._replace(folder=self.folder, place=0))

    def news(self, seconds: float) -> Report:
        """A report: at once if the worker died or found something, else after ``seconds``."""
        until = time.monotonic() + seconds
        while (death := self._worker.watch()) is None and not self._found() and time.monotonic() < until:
            time.sleep(STEP)
        return self._report(death) if death is None else self._last(death)

    def farewell(self) -> Report:
        """End the process, and report for the last time."""
        self._worker.end()
        return self._last(None)

    def _last(self, death: Death | None) -> Report:
        report = self._report(death)
        shutil.rmtree(self.folder)
        return report

    def _found(self) -> list[Path]:
        return list((self.folder / "raw").glob("*.json"))

    def _report(self, death: Death | None) -> Report:
        orders = self._worker.orders
        found = {path.stem: path.read_text(encoding="utf-8") for path in self._found()}
        for kind in found:
            raw_path(orders.folder, kind).unlink()
        error = error_path(orders.folder, orders.number)
        why = error.read_text(encoding="utf-8") if death is not None and error.exists() else ""
        journal = self._worker.journal
        if journal is None:
            return Report(b"", "", found, why, death)
        while True:  # until counts and case are from the same moment
            entry = journal.read()
            counters = journal.counters.tobytes()
            if journal.read().sequence == entry.sequence:
                return Report(counters, entry.text, found, why, death)


class RemoteWorker(WorkerHandle):
    """A worker on a node, with its journal in the session's folder."""

    def __init__(self, orders: Orders, gpus: float) -> None:
        import ray  # noqa: PLC0415

        super().__init__(orders)
        self._ray: Any = ray
        node: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Node)
        self._actor = node.remote(orders, str(Path.cwd()), VERSION)
        self._news = self._actor.news.remote(NEWS)

    def watch(self) -> Death | None:
        """Read the report, if one has come. Returns why the worker died, if it did."""
        if not self._ray.wait([self._news], timeout=0)[0]:
            return None
        death = self._take_in()
        if death is None:
            self._news = self._actor.news.remote(NEWS)
        else:
            self._ray.kill(self._actor)
        return death

    def end(self) -> None:
        """Read the last report, and end the worker. One that has not started has no report."""
        if self.journal is not None and self._take_in() is None:
            self._news = self._actor.farewell.remote()
            self._take_in()
        self._ray.kill(self._actor)

    def _take_in(self) -> Death | None:
        from ray.exceptions import GetTimeoutError, RayActorError, RayError  # noqa: PLC0415

        try:
            report: Report = self._ray.get(self._news, timeout=FAREWELL)
        except GetTimeoutError:
            return Death("run.no-exception", "did not answer at the end", outside=True)
        except RayError as error:
            if isinstance(error, RayActorError) and not error.actor_init_failed:
                return Death("run.no-exception", "lost with its node", outside=True)
            error_path(self.orders.folder, self.orders.number).write_text(str(error).strip(), encoding="utf-8")
            return Death("run.no-exception", "could not be started on a node")
        self._keep(report)
        return report.death

    def _keep(self, report: Report) -> None:
        """Write the report, findings first: so no finding is counted that is not saved."""
        folder, number = self.orders.folder, self.orders.number
        for kind, text in report.found.items():
            write_whole(raw_path(folder, kind), text)
        if report.error:
            error_path(folder, number).write_text(report.error, encoding="utf-8")
        if not report.counters:
            return
        counters = np.frombuffer(report.counters, np.uint64)
        if self.journal is None:
            self.journal = Journal(journal_path(folder, number), len(counters), self.orders.largest)
        self.journal.counters[:] = counters
        if report.in_flight != self.journal.read().text:
            self.journal.write(report.in_flight)


class Cluster:
    """A Ray cluster that this machine is part of."""

    def __init__(self, address: str) -> None:
        """Join the cluster. Raises UsageError if none answers."""
        try:
            import ray  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(f"--ray {address}: needs the package ray: pip install 'yololoss[fleet]'") from error
        _answers(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (Exception, SystemExit) as error:  # Ray exits if nobody answers
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UsageError(f"--ray {address}: {why}") from error
        self._ray: Any = ray
        self._address = address
        self._started = 0

    def room(self, device: str) -> int:
        """How many workers the cluster has GPUs, or CPUs, for. Raises UsageError if it has none."""
        if device.startswith("cuda:"):
            raise UsageError(f"--ray {self._address}: Ray gives out the GPUs; expected --device cuda")
        what = "GPU" if device == "cuda" else "CPU"
        found = int(self._ray.cluster_resources().get(what, 0))
        if not found:
            raise UsageError(f"--ray {self._address}: no node of the cluster has a {what}")
        return found

    def start_worker(self, orders: Orders) -> WorkerHandle:
        """Start a worker on a node that has room. Several workers share a GPU if there are more workers than GPUs.

        Raises UsageError if the cluster itself is lost; Ray would end this process.
        """
        self._started += 1
        if self._started > orders.settings.workers:  # it replaces a lost one
            _answers(self._address)
        gpus = self.room("cuda") if orders.settings.device == "cuda" else 0
        return RemoteWorker(orders, min(1.0, int(100 * gpus / orders.settings.workers) / 100))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Stay part of the cluster inside this context."""
        # Ray reports a lost node on standard output, in thirty lines; standard output is for the session's result
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            try:
                yield
            finally:
                self._ray.shutdown()


def _answers(address: str) -> None:
    """Raise UsageError if no cluster answers."""
    where = () if address == "auto" else ("--address", address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        asked = subprocess.run(command, timeout=ANSWERS, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        asked = None
    if asked is None or asked.returncode:
        raise UsageError(f"--ray {address}: no Ray cluster answers there; expected host:port of its head, or auto")
