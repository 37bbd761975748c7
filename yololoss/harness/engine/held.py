"""The dialect that a loss is held to: the named one, or the one that it is found to have."""

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from yololoss.harness.config import Settings
from yololoss.harness.engine.guard import Guarded
from yololoss.harness.engine.judge import MEMORY, STEP, Task
from yololoss.harness.subjects.dialect import Recognised, differences, with_choice, write_dialect
from yololoss.harness.subjects.family import LossUnderTest

LIMIT = 60.0  # seconds of work; it takes one


@dataclass(frozen=True)
class Held:
    """What a loss is judged by, and what was seen of it."""

    dialect: str  # as --dialect takes it
    looked: bool = False  # whether that is what was seen, and not what was named or usual
    # Choices of the named dialect that the loss contradicts: a line each, and the named dialect with that choice alone
    # made as the loss makes it; "" if there is no such dialect
    contradicted: Mapping[str, str] = field(default_factory=dict)
    about: tuple[str, ...] = ()  # lines about a dialect that was not named


def found_if_unnamed(chosen: Settings, subject: LossUnderTest) -> Held:
    """The named dialect as it is; without a name the one that is found. The bundled loss has its own."""
    named = chosen.dialect is not None or chosen.loss == subject.family.bundled
    return Held(subject.dialect_text) if named else held_to(chosen, subject)


def held_to(chosen: Settings, subject: LossUnderTest) -> Held:
    """Look at the loss, in another process. Where that ends, or its family cannot tell, nothing is changed."""
    found, usual = _recognised(chosen), subject.dialect
    if not isinstance(found, Recognised):
        return Held(subject.dialect_text, about=(f"dialect: {subject.dialect_text}, since {found}",) if found else ())
    text = write_dialect(found.dialect, subject.family.dialects)
    looked = found.dialect != usual
    if chosen.dialect is None:
        return Held(text, looked, about=_told(found, text))
    lines = zip(differences(usual, found.dialect), differences(found.dialect, usual), strict=True)
    alone = (with_choice(usual, choice, value) for choice, value in found.dialect if value != getattr(usual, choice))
    known = subject.family.dialects
    texts = {
        f"the dialect has {named}; the loss has {has}": write_dialect(one, known) if one is not None else ""
        for (named, has), one in zip(lines, alone, strict=True)
    }
    return Held(text, looked, contradicted=texts)


def _told(found: Recognised, text: str) -> tuple[str, ...]:
    sure = "sure" if found.sure else "not sure"
    return (
        f"dialect: {text} ({sure}: it explains {found.explained} of {found.tried} other cases)",
        *(f"  {choice}: {' or '.join(other)} would fit as well" for choice, other in found.unsure.items()),
        *(f"  {choice}: not explained, {why}" for choice, why in found.unexplained.items()),
        f'  to hold the loss to it, write in the settings: dialect = "{text}"',
    )


def _recognised(chosen: Settings) -> Recognised | str | None:
    """What was found; why nothing was; None if the loss's family cannot tell."""
    pipe, theirs = multiprocessing.Pipe()
    guarded = Guarded(_look, (theirs, Task(chosen.loss, "cpu", chosen.dialect), chosen.dialect is not None), MEMORY)
    theirs.close()
    began = time.monotonic()
    try:
        while not pipe.poll(STEP):
            death = guarded.watch(began, LIMIT)
            if death is not None:
                return f"the loss, when it was looked at, {death.kind}"
        found: Recognised | None = pipe.recv()
    except EOFError:
        return "the loss ended its process when it was looked at"
    finally:
        guarded.kill()
        pipe.close()
    return found


def _look(pipe: Connection, task: Task, named: bool) -> None:
    """The other process."""
    subject = task.under_test()
    pipe.send(subject.family.recognise(subject, subject.dialect if named else None))
