"""A process that may die: limits of its time and memory, and why it died."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import psutil

# A server that has imported torch and this package once forks the processes: each then starts in 50 ms, not seconds.
# The server has run nothing else, so a forked process is like a new one. Without a fork server, each is spawned.
SERVER = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = ["yololoss.harness.engine.preloaded"]
MIB = 2**20
BLINK = 1.0  # seconds counted at most between two checks of a process: in a longer gap nobody knows what it did
UNWATCHED = 10.0  # times the limit of a case: a process that nobody watches ends itself after that
ORPHANED = 255  # exit status if the server was killed, though the process itself still runs


class Death(NamedTuple):
    """How a process ended that should not have, and the law that this breaks."""

    law: str
    kind: str
    outside: bool = False  # perhaps killed from outside
    status: int = 0  # exit status, if it ended by itself

    @property
    def ended(self) -> bool:
        """Whether it ended by itself, without an error."""
        return self.law == "run.no-exit" and self.status == 0


def server() -> Any:
    """The multiprocessing context that starts the harness's processes."""
    if SERVER == "forkserver" and multiprocessing.parent_process() is not None:
        # A clerk, which has not run the loss when it starts a process. Another server would take two seconds to start.
        return multiprocessing.get_context("fork")
    context: Any = multiprocessing.get_context(SERVER)
    if SERVER == "forkserver":
        context.set_forkserver_preload(PRELOADED)
        from multiprocessing import forkserver  # noqa: PLC0415  # not on every system

        # several threads that wait for work would otherwise take a core each; torch reads this when it is imported
        with patch.dict(os.environ, {"OMP_WAIT_POLICY": "passive"}):
            forkserver.ensure_running()
    return context


class Guarded:
    """A process that is watched and limited."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...], memory: int) -> None:
        self.process: BaseProcess = server().Process(target=begin, args=(target, str(Path.cwd()), arguments))
        self.process.start()
        self.memory = memory  # MiB that it may use
        self._killed: Death | None = None
        self._began: float | None = None
        self._looked = self._seen = self._ran = 0.0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.is_alive()

    @property
    def resident(self) -> int:
        """Its memory, in MiB."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss // MIB)
        except psutil.Error:
            return 0

    def watch(self, began: float | None, limit: float) -> Death | None:
        """Why it died, if it did. Kills it if it works longer than ``limit`` since ``began``, or grows too large."""
        if self.alive:
            if self._at_work(began) > limit:
                self._killed = Death("run.time-limit", f"did not return within {limit:g} s")
            elif self.resident > self.memory:
                self._killed = Death("run.no-exception", f"took more than {self.memory} MiB of memory")
            else:
                return None
            self.kill()
        return self._killed or self._ended()

    def _at_work(self, began: float | None) -> float:
        """Seconds since ``began`` in which it ran, slept or waited.

        Time in which the machine was suspended, or gave the processor to others, does not count.
        """
        now, used, waits = time.monotonic(), *self._used()
        if began is None or began != self._began:
            self._seen = 0.0
        else:
            self._seen += min(now - self._looked, BLINK) if waits else min(used - self._ran, now - self._looked)
        self._began, self._looked, self._ran = began, now, used
        return self._seen

    def _used(self) -> tuple[float, bool]:
        """Its processor time in seconds, and whether it waits for something other than a processor."""
        try:
            process = psutil.Process(self.process.pid)
            times = process.cpu_times()
            return times.user + times.system, process.status() != psutil.STATUS_RUNNING
        except psutil.Error:
            return self._ran, True

    def _ended(self) -> Death:
        code = self.process.exitcode or 0
        if code == ORPHANED:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, signal.SIGKILL)
        if code >= 0:
            return Death("run.no-exit", f"ended its process, exit status {code}", code == ORPHANED, code)
        try:
            name = signal.Signals(-code).name
        except ValueError:  # pragma: no cover  # a signal that Python has no name for
            name = f"signal {-code}"
        return Death("run.no-exception", f"killed by {name}", name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self.process.kill()
        self.process.join()


def begin(target: Callable[..., None], folder: str, arguments: tuple[Any, ...]) -> None:
    """Call ``target`` in a process of the harness: in this folder, ignoring Ctrl-C, without output."""
    os.chdir(folder)  # the server is in the folder where it was started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session handles Ctrl-C
    _without_a_voice()
    target(*arguments)


def is_watched(seconds: float) -> bool:
    """Whether the process that watches this one still runs. Also restarts a timer of ``seconds``.

    Without the watching process, nothing would end this process if it hangs. So it ends itself when the timer runs out.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # not watched at all
        return True
    faulthandler.dump_traceback_later(seconds, exit=True)
    return parent.is_alive()


def _without_a_voice() -> None:
    """Discard what is written to the file descriptors 1 and 2, such as a crash message: it is not for the terminal."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)
