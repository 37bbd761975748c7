"""Processes that try edits, as the command sees them: what it asks of them, and what it does when one dies."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from yololoss.harness.engine.guard import Guarded
from yololoss.harness.engine.judge import START, STEP, Task
from yololoss.harness.errors import UsageError
from yololoss.harness.mend.trial import Ask, Files, serve

DIED = None  # the answer where the process ended, or took too long


class Trier:
    """One process. It answers one message at a time; if that ends it, a new one starts."""

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench
        self.asked: Any = None
        self._began = 0.0
        self._start()

    def _start(self) -> None:
        bench = self._bench
        self.pipe, theirs = multiprocessing.Pipe()
        arguments = (theirs, bench.task, bench.family, bench.given, bench.folder.name)
        self._guarded = Guarded(serve, arguments, bench.task.memory)
        theirs.close()
        self.files: Files | None = None
        self._asks: Ask | None = None

    def ready(self) -> Files:
        """The loss's own files, once it is loaded."""
        if self.files is None:
            try:
                if not self.pipe.poll(START):
                    raise EOFError  # pragma: no cover  # the machine is too busy
                self.files = self.pipe.recv()
            except (EOFError, OSError) as error:
                loss = self._bench.task.loss
                raise UsageError(f"{loss}: a process that tries edits ended when it loaded it") from error
        return self.files

    def is_ready(self) -> bool:
        """Whether the loss is loaded, which may take long: others go on meanwhile."""
        return self.files is not None or (self.pipe.poll(0) and self.ready() is not None)

    def ask(self, message: Any) -> None:
        """Send a message."""
        self.ready()
        if self._asks is not self._bench.asks:
            self._asks = self._bench.asks
            self.pipe.send(self._asks)
        self.asked, self._began = message, time.monotonic()
        self.pipe.send(message)

    def answer(self) -> tuple[bool, Any]:
        """Whether there is an answer, and it."""
        try:
            if self.pipe.poll(0):
                return True, self.pipe.recv()
        except (EOFError, OSError):
            self._guarded.process.join()
        if self._guarded.watch(self._began, self._bench.task.limit) is None:
            return False, None
        self.restart()
        return True, DIED

    def restart(self) -> None:
        """End the process, and start another."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        self._guarded.kill()
        self.pipe.close()


class Bench(AbstractContextManager["Bench"]):
    """Some processes that try edits of a loss, and the folder in which these may write."""

    def __init__(self, task: Task, family: str, given: tuple[str, ...], workers: int) -> None:
        self.task, self.family, self.given = task, family, given
        self.asks = Ask(())  # what is asked of every edit
        self.folder = tempfile.TemporaryDirectory(prefix="yololoss-mend-", ignore_cleanup_errors=True)
        self._triers = [Trier(self) for _ in range(workers)]

    @property
    def files(self) -> Files:
        """The loss's own files."""
        return self._triers[0].ready()

    def answers(self, messages: Iterable[Any], until: float) -> Iterator[tuple[Any, Any]]:
        """Ask one message after another, and yield each with its answer, in the order in which they come.

        Ends when there are no more messages. After a time of the monotonic clock it asks none, and what is not answered
        within the limit of one message is lost.
        """
        waiting, free, busy, over = iter(messages), [*self._triers], list[Trier](), False
        try:
            while (now := time.monotonic()) < until + self.task.limit:
                over = over or now >= until
                for trier in [each for each in free if not over and each.is_ready()]:
                    message = next(waiting, None)
                    over = over or message is None
                    if message is not None:
                        free.remove(trier)
                        busy.append(trier)
                        trier.ask(message)
                if over and not busy:
                    return
                wait([trier.pipe for trier in (*busy, *free) if trier in busy or trier.files is None], STEP)
                for trier in [*busy]:
                    there, answer = trier.answer()
                    if there:
                        busy.remove(trier)
                        free.append(trier)
                        yield trier.asked, answer
        finally:
            for trier in busy:
                trier.restart()

    def __exit__(self, *_: object) -> None:
        for trier in self._triers:
            trier.close()
        self.folder.cleanup()


def shown_path(path: str) -> str:
    """A path as it is shown: from the current folder if it is in there."""
    place = Path(path)
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)
