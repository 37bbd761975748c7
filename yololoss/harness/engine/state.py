"""A session's settings, and the state that is saved."""

from pathlib import Path

from pydantic import Field

from yololoss.harness.cases.case import Data
from yololoss.harness.engine.judge import LIMIT, MEMORY, Task
from yololoss.harness.engine.plan import NOTHING_COUNTED, Counts


class Settings(Data):
    """The settings of a session. A resumed session keeps them."""

    loss: str
    device: str
    dialect: str | None = None
    baseline: str | None = None
    modules: tuple[str, ...] = ()  # files with laws of the user's own
    laws: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()  # laws that may break: that is counted, and no finding
    gate: bool = False  # every law is judged until it breaks, on cases that do not depend on what earlier cases did
    shrink: bool = True  # whether findings are minimised and drawn
    findings: str | None = None  # the folder for findings; None: in the session's folder
    workers: int = 1
    memory: int = MEMORY
    limit: float = LIMIT
    seed: int = 0
    seconds: float | None = None
    cases: int | None = None  # to be made, besides given ones
    until_risk: float | None = None  # the session ends when new findings are as unlikely as this
    options: dict[str, str | None] = Field(default_factory=dict)  # that a replay needs

    @property
    def task(self) -> Task:
        """The loss under test."""
        return Task(self.loss, self.device, self.dialect, self.memory, self.limit, self.baseline, self.modules)

    def findings_in(self, folder: Path) -> Path:
        """The folder for findings of the session in that folder."""
        return folder / "findings" if self.findings is None else Path(self.findings)


class State(Data):
    """The state of a session that is saved."""

    settings: Settings
    used: float = 0.0  # seconds
    next: int = 0  # number of the next worker
    reached: dict[int, int] = Field(default_factory=dict)  # by a worker's place: the number of its next case
    starts: dict[int, tuple[int, int, int]] = Field(default_factory=dict)  # by worker: place, first case, crew
    absorbed: tuple[int, ...] = ()  # workers whose counts are already added
    counts: Counts = NOTHING_COUNTED
    restarts: int = 0
    unexplained: int = 0  # processes that were killed from outside
    first: tuple[str, ...] = ()  # vectors as JSON, that the next worker judges first
    given: dict[int, tuple[str, ...]] = Field(default_factory=dict)  # vectors that a worker was given, by its number
