"""A finding: a law broken by a case, saved so that it can be drawn, replayed and promoted to a vector."""

from contextlib import suppress
from itertools import islice
from pathlib import Path
from shlex import quote
from tempfile import mkdtemp
from typing import Any

from yololoss._suite import VERSION
from yololoss.harness.cases.case import Data
from yololoss.harness.cases.vectors import case_name, make_vector, write_vectors
from yololoss.harness.findings.draw import LARGEST, draw
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Unsupported

MOST = 12  # lines of numbers; more are not read
CURES_ALL, CURES_THIS, POSSIBLY = "cures everything", "cures this fault", "no edit cures it; it may be here"
SHOWN = 4  # names of laws that a finding explains; a report has all


class Mend(Data):
    """What would mend a fault, or where it probably is."""

    file: str
    line: int  # from 1
    was: str  # the lines as they are
    would_be: str  # and as they would be; "" if only the place is known
    sure: str  # `CURES_ALL`, `CURES_THIS` or `POSSIBLY`
    laws: tuple[str, ...]  # that broke, and hold then
    diff: str  # in unified form; "" if only the place is known

    def __str__(self) -> str:
        lines = [f"  {self.sure}: {self.file}:{self.line}", f"    - {self._indented(self.was)}"]
        if self.diff:
            some = ", ".join(self.laws[:SHOWN]) + (", ..." if len(self.laws) > SHOWN else "")
            lines += [
                f"    + {self._indented(self.would_be) or 'nothing: the lines go'}",
                f"    laws that hold then: {some}",
            ]
        return "\n".join(lines)

    def _indented(self, text: str) -> str:
        return text.replace("\n", "\n      ")


class Finding(Data):
    """A broken law, as it is shown to a user."""

    law: str
    title: str  # what is wrong, in a sentence
    statement: str
    where: str
    expected: str
    observed: str
    tolerance: str
    source: str
    repeats: bool  # whether the loss does the same when the case is run again
    device: str
    case: str  # as a table
    numbers: tuple[str, ...]  # what is computed of the case, step by step
    text: str  # all of the above
    path: str  # of the saved case
    unsaved: str = ""  # why it could not be saved in the folder for findings; then the path is a temporary one
    picture: str | None  # path of the picture
    replay: str  # the command that judges the case again
    choice: str = ""  # that the named dialect and the loss make otherwise, if the law broke only for that
    meant: str = ""  # whose rule that is, and what to do if it is meant
    explains: tuple[str, ...] = ()  # other laws that broke for the same reason
    mends: tuple[Mend, ...] = ()  # what would mend it, the most probable first

    @property
    def laws(self) -> tuple[str, ...]:
        """All laws that broke for this reason, its own first."""
        return (self.law, *self.explains)

    def __str__(self) -> str:
        choice = [f"choice: {self.choice}"] if self.choice else []
        only = ["  because    of this choice alone: judged by its own, the loss keeps the law"] if self.choice else []
        only += [f"  meant?     {self.meant}"] if self.meant else []
        some = (
            *self.explains[:SHOWN],
            *([f"and {len(self.explains) - SHOWN} more; a report lists all"] * (len(self.explains) > SHOWN)),
        )
        others = [f"  explains   {', '.join(some)}"] if some else []
        picture = [f"  picture    {self.picture}"] if self.picture else []
        elsewhere = f", since it could not be saved in {self.unsaved}" if self.unsaved else ""
        saved = f"  saved as   {self.path}{elsewhere}"
        lines = (*choice, self.text, *only, *others, saved, *picture, f"  replay     {self.replay}")
        return "\n".join((*lines, *map(str, self.mends)))


def keep(
    broken: LawBroken,
    under_test: LossUnderTest,
    folder: Path,
    options: dict[str, str | None],
    *,
    drawn: bool = True,
    saved_under: str | None = None,
) -> Finding:
    """Save the case, and draw it unless the device is lost. ``options`` are added to the replay command.

    The file's name is made from law and case: the same finding always has the same file. ``saved_under`` is the law
    that a replay judges by, if not the law that broke. Where the folder cannot be written to, a temporary one is used:
    a finding is never lost for its file.
    """
    name, unsaved = case_name(broken.law.id, broken.case), ""
    comment = f"{broken.what}: expected {broken.expected}, observed {broken.observed}"
    vector = make_vector(
        broken.case,
        id=name,
        flags=("FINDING",),
        comment=comment,
        law=saved_under or broken.law.id,
        expected=under_test.recorded.get(broken.case),
    )
    source = {"project": f"yololoss {VERSION}", "loss": under_test.spec}
    try:
        write_vectors(path := folder / f"{name}.json", source, [vector])
    except OSError as error:
        unsaved = f"{folder}: {error.strerror}"
        write_vectors(path := Path(mkdtemp(prefix="yololoss-findings-")) / f"{name}.json", source, [vector])
    outcome = None
    small = broken.case.numbers <= LARGEST
    if small and drawn and not broken.died:
        with suppress(Unsupported):  # the loss lacks an option of the case, which form.interface reports
            outcome = execute(under_test, broken.case)
    family, dialect = under_test.family, under_test.dialect
    if small:
        broken.title = family.title(broken.wrong, broken.case, outcome, dialect)
    numbers = tuple(islice(family.worked_out(broken.case, outcome, dialect), MOST + 1)) if small else ()
    broken.numbers = (*numbers[:MOST], "...") if len(numbers) > MOST else numbers
    given = "".join(f" --{name} {quote(value)}" for name, value in options.items() if value)
    return Finding(
        law=broken.law.id,
        title=broken.title,
        statement=broken.law.statement,
        where=broken.what,
        expected=broken.expected,
        observed=broken.observed,
        tolerance=broken.because,
        source=broken.law.source,
        repeats=broken.repeats,
        device="compile" if under_test.compile else str(under_test.device),
        case=str(broken.case),
        numbers=broken.numbers,
        text=str(broken),
        path=str(path),
        unsaved=unsaved,
        picture=str(_drawn(broken, outcome, dialect, path.with_suffix(".png"))) if drawn and not broken.died else None,
        replay=f"yololoss replay {quote(str(path))}{given}",
    )


def _drawn(broken: LawBroken, outcome: Outcome | None, dialect: Any, path: Path) -> Path:
    title = f"{broken.title}. {broken.law.id}, {broken.what}: expected {broken.expected}, got {broken.observed}"
    draw(broken.case, path, title, outcome, dialect)
    return path
