"""Workers on the nodes of a Ray cluster.

An actor a worker: on its node it runs the same process as here, in a folder of its own, and watches it. The session
asks it for news again and again, and writes what comes into its own folder, as a worker here would have: so whatever
else is true of a session is true of this one. A node that is lost takes with it what it did since the last news, which
comes at once where there is something new to keep, else after a quarter of a second.
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

from yololoss import __version__
from yololoss.harness.cases.files import write_whole
from yololoss.harness.engine.guard import Death
from yololoss.harness.engine.hired import Here, Hired
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.raw import raw_path
from yololoss.harness.engine.worker import Orders, error_path, journal_path
from yololoss.harness.errors import UsageError

STEP = 0.02  # seconds between two looks at a process
NEWS = 0.25  # seconds between two reports of a worker that finds nothing
ANSWERS = 15.0  # seconds that a cluster has to say that it is there; Ray itself would try for two minutes
FAREWELL = 10.0  # seconds that a node has to report at the end


class Report(NamedTuple):
    """What a node tells of its worker."""

    counters: bytes  # none before there is a journal
    in_flight: str
    found: dict[str, str]  # findings that are new: fingerprint, file
    error: str  # what ended it, if that was no case
    death: Death | None


class Node:
    """A worker's process on its node: what the actor is."""

    def __init__(self, orders: Orders, folder: str, version: str) -> None:
        if version != __version__:  # its counters may be others
            raise RuntimeError(f"a node has yololoss {__version__}, and the session {version}")
        with suppress(OSError):  # a loss that is named by its module needs no folder
            os.chdir(folder)
        self.folder = Path(tempfile.mkdtemp(prefix="yololoss-"))
        for name in ("journal", "raw"):
            (self.folder / name).mkdir()
        # Ray shows a worker its own GPU alone, so that is always the first
        self._worker = Here(orders._replace(folder=self.folder, place=0))

    def news(self, seconds: float) -> Report:
        """What there is to report: at once if it died or found something, else after that time."""
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
        while True:  # counts and case of one moment
            entry = journal.read()
            counters = journal.counters.tobytes()
            if journal.read().sequence == entry.sequence:
                return Report(counters, entry.text, found, why, death)


class Away(Hired):
    """A worker on some node, and its journal here."""

    def __init__(self, orders: Orders, gpus: float) -> None:
        import ray  # noqa: PLC0415

        super().__init__(orders)
        self._ray: Any = ray
        node: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Node)
        self._actor = node.remote(orders, str(Path.cwd()), __version__)
        self._news = self._actor.news.remote(NEWS)

    def watch(self) -> Death | None:
        """Take in the news, if there are any; what it died of."""
        if not self._ray.wait([self._news], timeout=0)[0]:
            return None
        death = self._take_in()
        if death is None:
            self._news = self._actor.news.remote(NEWS)
        else:
            self._dismiss()
        return death

    def end(self) -> None:
        """Take in the last news, and end it; one that has not begun has none."""
        if self.journal is not None and self._take_in() is None:
            self._news = self._actor.farewell.remote()
            self._take_in()
        self._dismiss()

    def _take_in(self) -> Death | None:
        from ray.exceptions import GetTimeoutError, RayActorError, RayError  # noqa: PLC0415

        try:
            report: Report = self._ray.get(self._news, timeout=FAREWELL)
        except GetTimeoutError:
            return Death("run.no-exception", "did not answer at the end", outside=True)
        except RayActorError as error:
            if not error.actor_init_failed:
                return Death("run.no-exception", "lost with its node", outside=True)
            return self._failed(str(error))
        except RayError as error:
            return self._failed(str(error))
        self._keep(report)
        return report.death

    def _failed(self, why: str) -> Death:
        error_path(self.orders.folder, self.orders.number).write_text(why.strip(), encoding="utf-8")
        return Death("run.no-exception", "could not be started on a node")

    def _keep(self, report: Report) -> None:
        """Write it down, findings first: what is counted only is nothing lost."""
        folder, number = self.orders.folder, self.orders.number
        for kind, text in report.found.items():
            write_whole(raw_path(folder, kind), text)
        if report.error:
            error_path(folder, number).write_text(report.error, encoding="utf-8")
        if not report.counters:
            return
        counters = np.frombuffer(report.counters, np.uint64)
        if self.journal is None:
            self.journal = Journal(journal_path(folder, number), len(counters))
        self.journal.counters[:] = counters
        if report.in_flight != self.journal.read().text:
            self.journal.write(report.in_flight)

    def _dismiss(self) -> None:
        self._ray.kill(self._actor)


class Cluster:
    """A Ray cluster that this machine is part of."""

    def __init__(self, address: str) -> None:
        """Join it. Raises UsageError where it is not there."""
        try:
            import ray  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(f"--ray {address}: needs the package ray: pip install 'yololoss[fleet]'") from error
        _answers(address)
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (Exception, SystemExit) as error:  # it exits where it waited in vain
            raise UsageError(f"--ray {address}: {_first_line(error)}") from error
        self._ray: Any = ray
        self._address = address
        self._hired = 0

    def room(self, device: str) -> int:
        """For how many workers there are GPUs, or processors. Raises UsageError where there is none."""
        if device.startswith("cuda:"):
            raise UsageError(f"--ray {self._address}: Ray gives out the GPUs; expected --device cuda")
        what = "GPU" if device == "cuda" else "CPU"
        found = int(self._ray.cluster_resources().get(what, 0))
        if not found:
            raise UsageError(f"--ray {self._address}: no node of the cluster has a {what}")
        return found

    def hire(self, orders: Orders) -> Hired:
        """A worker on a node that has room; several share a GPU where there are more workers than these.

        Raises UsageError where the cluster itself was lost, which Ray would answer by ending this process.
        """
        self._hired += 1
        if self._hired > orders.crew:  # in place of one that was lost
            _answers(self._address)
        gpus = self.room("cuda") if orders.task.device == "cuda" else 0
        return Away(orders, min(1.0, int(100 * gpus / orders.crew) / 100))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Be part of it for a while."""
        # Ray tells of a lost node on standard output, in thirty lines; what is there is the session's result
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            try:
                yield
            finally:
                self._ray.shutdown()


def _answers(address: str) -> None:
    """Whether there is a cluster. Raises UsageError."""
    where = () if address == "auto" else ("--address", address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        asked = subprocess.run(command, timeout=ANSWERS, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        asked = None
    if asked is None or asked.returncode:
        raise UsageError(f"--ray {address}: no Ray cluster answers there; expected host:port of its head, or auto")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
