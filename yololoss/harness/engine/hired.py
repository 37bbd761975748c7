"""A worker as the session sees it: its orders, its journal, and whether it lives."""

from abc import ABC, abstractmethod

from yololoss.harness.engine.guard import Death, Guarded
from yololoss.harness.engine.journal import Journal
from yololoss.harness.engine.worker import Orders, journal_path, run
from yololoss.harness.errors import BadFile


class Hired(ABC):
    """A worker, wherever it is."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.journal: Journal | None = None  # once it is there

    @abstractmethod
    def watch(self) -> Death | None:
        """What it died of, if it did."""

    @abstractmethod
    def end(self) -> None:
        """End it; what it found and counted is in the folder then."""


class Here(Hired):
    """A process on this machine."""

    def __init__(self, orders: Orders) -> None:
        super().__init__(orders)
        self.guarded = Guarded(run, (orders,), orders.task.memory)

    def watch(self) -> Death | None:
        """What it died of; kills it where its case takes too long, or too much memory."""
        limit = self.orders.task.limit
        if self.journal is None:
            try:
                self.journal = Journal(journal_path(self.orders.folder, self.orders.number))
            except (BadFile, FileNotFoundError):  # not yet made
                return self.guarded.watch(None, limit)
        entry = self.journal.read()
        return self.guarded.watch(entry.began if entry.text else None, limit)

    def end(self) -> None:
        """Kill it: all that it has is in the folder."""
        self.guarded.kill()
