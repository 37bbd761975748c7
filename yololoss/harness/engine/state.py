"""What a session is about and what is saved of it."""

from pydantic import Field

from yololoss.harness.cases.case import Data
from yololoss.harness.engine.judge import LIMIT, MEMORY, Task


class Settings(Data):
    """What a session is about; a session that is resumed keeps them."""

    loss: str
    device: str
    dialect: str | None = None
    laws: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    workers: int = 1
    memory: int = MEMORY
    limit: float = LIMIT
    seed: int = 0
    seconds: float | None = None
    cases: int | None = None
    options: dict[str, str | None] = Field(default_factory=dict)  # that a replay needs

    @property
    def task(self) -> Task:
        """What is put to the test."""
        return Task(self.loss, self.device, self.dialect, self.memory, self.limit)


class State(Data):
    """What is saved of a session."""

    settings: Settings
    used: float = 0.0  # seconds
    next: int = 0  # number of the next worker
    absorbed: tuple[int, ...] = ()  # workers whose counts are in here already
    counts: dict[str, int] = Field(default_factory=dict)
    kinds: dict[str, int] = Field(default_factory=dict)
    restarts: int = 0
    unexplained: int = 0  # processes that were killed from outside
    first: tuple[str, ...] = ()  # cases that a worker is to judge first
    given: dict[int, tuple[str, ...]] = Field(default_factory=dict)  # those that a worker has, by its number
