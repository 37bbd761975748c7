"""A process that may die of what it does: how long and how large it may get, and what it died of."""

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

import psutil

# Processes are made by a server that has imported torch and this package once: each then takes 50 ms, not seconds. It
# has run nothing, so what it forks is as good as new. Where there is no such server each begins from nothing.
SERVER = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = ["yololoss.harness.engine.preloaded"]
MIB = 2**20
BLINK = 1.0  # seconds between two looks at a process; if there are more, nobody knows what it did
ORPHANED = 255  # exit status where the server was killed, though the process itself goes on


class Death(NamedTuple):
    """How a process ended that should not have, and the law that says so."""

    law: str
    kind: str
    outside: bool = False  # perhaps killed by somebody else
    status: int = 0  # exit status, where it ended by itself


def server() -> Any:
    """The context that makes processes of ours."""
    context: Any = multiprocessing.get_context(SERVER)
    if SERVER == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    return context


class Guarded:
    """A process under watch."""

    def __init__(self, target: Callable[..., None], arguments: tuple[Any, ...], memory: int) -> None:
        self.process: BaseProcess = server().Process(target=begin, args=(target, str(Path.cwd()), arguments))
        self.process.start()
        self.memory = memory  # MiB that it may grow to
        self._killed: Death | None = None
        self._began: float | None = None
        self._looked = self._seen = 0.0

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
        """What it died of; kills it where it took too long over something that ``began``, or grew too large."""
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
        """Seconds that it was seen at what began then: where the whole machine stood still, so did who looks."""
        now = time.monotonic()
        if began is None or began != self._began:
            self._seen = 0.0
        else:
            self._seen += min(now - self._looked, BLINK)
        self._began, self._looked = began, now
        return self._seen

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
        """End it now."""
        self.process.kill()
        self.process.join()


def begin(target: Callable[..., None], folder: str, arguments: tuple[Any, ...]) -> None:
    """Do so in a process of ours: in this folder, deaf to Ctrl-C, and mute."""
    os.chdir(folder)  # the server's is where it was started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session to answer
    _without_a_voice()
    target(*arguments)


def is_watched(seconds: float) -> bool:
    """Whether the process that watches this one is there.

    If it goes, nobody ends this process any more should it hang: so it ends itself unless this is asked again in time.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # not under watch at all
        return True
    faulthandler.dump_traceback_later(seconds, exit=True)
    return parent.is_alive()


def _without_a_voice() -> None:
    """What a subject writes past Python's own streams, such as its last words, is not for the session's terminal."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)
