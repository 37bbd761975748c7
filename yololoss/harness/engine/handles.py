"""A worker as the session sees it: its orders, its journal, and whether it runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from yololoss.harness.engine.guard import Death, Guarded
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.worker import Orders, journal_path, run
from yololoss.harness.errors import BadFile


class WorkerHandle(ABC):
    """A worker, on this machine or on another."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.journal: Journal | None = None  # once the worker has made it

    @abstractmethod
    def watch(self) -> Death | None:
        """Why it died, if it did."""

    @abstractmethod
    def end(self) -> None:
        """End it. Then everything that it found and counted is in the folder."""


class LocalWorker(WorkerHandle):
    """A process on this machine."""

    def __init__(self, orders: Orders) -> None:
        super().__init__(orders)
        self.guarded = Guarded(run, (orders,), orders.settings.memory)

    def watch(self) -> Death | None:
        """Why it died, if it did. Kills it if its case takes too long or too much memory."""
        limit = self.orders.settings.limit
        if self.journal is None:
            try:
                self.journal = Journal(journal_path(self.orders.folder, self.orders.number))
            except (BadFile, FileNotFoundError):  # not yet made
                return self.guarded.watch(None, limit)
        entry = self.journal.read()
        return self.guarded.watch(entry.began if entry.text else None, limit)

    def end(self) -> None:
        """Kill it. Everything that it has is in the folder."""
        self.guarded.kill()


StartWorker = Callable[[Orders], WorkerHandle]
