"""A session's settings, and the state that is saved."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ConfigDict, Field

from yololoss.harness.cases.case import Data
from yololoss.harness.engine.judge import Task
from yololoss.harness.engine.plan import Counts


@dataclass(frozen=True)
class Settings(Task):
    """The settings of a session: the loss under test, and how it is judged. A resumed session keeps them."""

    named: bool = False  # whether the user named the dialect: then the loss may contradict it
    waived: tuple[str, ...] = ()  # laws that may break: that is counted, and no finding
    gate: bool = False  # every law is judged until it breaks, on cases that do not depend on what earlier cases did
    shrink: bool = True  # whether findings are minimised and drawn
    findings: str | None = None  # the folder for findings; None: in the session's folder
    workers: int = 1
    seed: int = 0
    seconds: float | None = None
    cases: int | None = None  # to be made, besides given ones
    until_risk: float | None = None  # the session ends when new findings are as unlikely as this
    options: dict[str, str | None] = field(default_factory=dict)  # that a replay needs

    def findings_in(self, folder: Path) -> Path:
        """The folder for findings of the session in that folder."""
        return folder / "findings" if self.findings is None else Path(self.findings)


class State(Data):
    """The state of a session that is saved."""

    model_config = ConfigDict(frozen=False)

    settings: Settings
    used: float = 0.0  # seconds
    next: int = 0  # number of the next worker
    reached: dict[int, int] = Field(default_factory=dict)  # by a worker's place: the number of its next case
    # By worker whose counts are not added yet: place, first case, crew, and the vectors that it was given
    running: dict[int, tuple[int, int, int, tuple[str, ...]]] = Field(default_factory=dict)
    counts: Counts = Field(default_factory=Counts)
    restarts: int = 0
    unexplained: int = 0  # processes that were killed from outside
    first: tuple[str, ...] = ()  # vectors as JSON, that the next worker judges first
