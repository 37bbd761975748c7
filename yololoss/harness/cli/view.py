"""Progress of a session, on standard error."""

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from yololoss.harness.errors import printable

if TYPE_CHECKING:
    from yololoss.harness.engine.session import Session

PLAIN = 30.0  # seconds between two lines if there is no terminal


class View:
    """Progress of a session, on standard error: on a terminal one line that is updated, else a line every 30 s."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._live = Live(console=self._console, transient=True) if self._console.is_terminal and not quiet else None
        self._every = 0.5 if self._live else PLAIN
        self._shown = time.monotonic()
        self._known: set[str] = set()
        self._say(title)

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(printable(text)))

    def show(self, session: "Session") -> None:
        """Print new findings, and progress if enough time has passed since the last line."""
        from yololoss.harness.engine.session_summary import line  # noqa: PLC0415

        for kind in session.findings.keys() - self._known:
            finding = session.findings[kind]
            self._say(f"{finding.law} broke: {finding.path}")
            self._known.add(kind)
        if time.monotonic() - self._shown < self._every:
            return
        self._shown = time.monotonic()
        if self._live is not None:
            self._live.update(Text(line(session)))
        else:
            self._say(line(session))
