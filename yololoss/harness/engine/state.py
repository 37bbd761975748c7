"""A session's settings, and the state that is saved."""

from pydantic import Field

from yololoss.harness.cases.case import Data
from yololoss.harness.engine.judge import LIMIT, MEMORY, Task


class Settings(Data):
    """The settings of a session. A resumed session keeps them."""

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
        """The loss under test."""
        return Task(self.loss, self.device, self.dialect, self.memory, self.limit)


class State(Data):
    """The state of a session that is saved."""

    settings: Settings
    used: float = 0.0  # seconds
    next: int = 0  # number of the next worker
    absorbed: tuple[int, ...] = ()  # workers whose counts are already added
    counts: dict[str, int] = Field(default_factory=dict)
    kinds: dict[str, int] = Field(default_factory=dict)
    restarts: int = 0
    unexplained: int = 0  # processes that were killed from outside
    first: tuple[str, ...] = ()  # cases that the next worker judges first
    given: dict[int, tuple[str, ...]] = Field(default_factory=dict)  # cases that a worker was given, by its number
