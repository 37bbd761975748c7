"""A first look at a loss, in another process: whether it can be called, and which dialect it is held to."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from shlex import quote
from typing import Any, NamedTuple

from yololoss.harness.cases.case import Data
from yololoss.harness.config import Settings
from yololoss.harness.engine.guard import Guarded
from yololoss.harness.engine.judge import MEMORY, STEP, Task
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.compiled import NAME as COMPILE
from yololoss.harness.subjects.dialect import Recognised, differences, whose_rule, with_choice, write_dialect
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.forms import ADAPTERS
from yololoss.harness.subjects.load import find_devices
from yololoss.harness.subjects.outcome import Trouble
from yololoss.harness.subjects.subject import Unsupported

LIMIT = 30.0  # seconds of work; it takes one
NAMED = 3  # dialects that have the same rule
CALLED = 20  # cases on which a loss is called before it is judged, until one does not raise


class Called(NamedTuple):
    """What a first call of a loss shows."""

    raised: Trouble | None  # the first exception, if every case raises one
    kind: str | None  # what the loss is, if it is not what its family judges


@dataclass(frozen=True)
class Held:
    """What a loss is judged by, and what was seen of it."""

    dialect: str  # as --dialect takes it
    looked: bool = False  # whether that is what was seen, and not what was named or usual
    # Choices of the named dialect that the loss contradicts: a line each, and the named dialect with that choice alone
    # made as the loss makes it; "" if there is no such dialect
    contradicted: Mapping[str, str] = field(default_factory=dict)
    meant: Mapping[str, str] = field(default_factory=dict)  # by these dialects: what to do if the loss is meant so
    about: tuple[str, ...] = ()  # lines about a dialect that was not named


def found_if_unnamed(chosen: Settings, subject: LossUnderTest) -> Held:
    """The named dialect as it is; without a name the one that is found. The bundled loss has its own.

    Raises UsageError for a loss that cannot be called: it breaks no law, since there is nothing to judge.
    """
    if chosen.loss == subject.family.bundled:
        return Held(subject.dialect_text)
    refuse_others(chosen, subject)
    return Held(subject.dialect_text) if chosen.dialect is not None else held_to(chosen, subject)


def refuse_others(chosen: Settings, subject: LossUnderTest) -> None:
    """Raise UsageError for a loss of another kind, or that raises on every case, on the CPU and on each of its devices.

    It breaks no law: there is nothing to judge. A loss that ends its process is judged.
    """
    devices = ("cpu", *(name for name in find_devices(chosen.device)[0] if name != COMPILE))
    seen: list[Called] = []
    for name in dict.fromkeys(devices):
        called = _asked(Task(chosen.loss, name, chosen.dialect), _call)
        if not isinstance(called, Called):
            return
        seen.append(called)
        if called.raised is None:
            break
    raised, kind = seen[0] if seen[-1].raised else seen[-1]
    if kind is not None:
        with chosen.blamed():
            raise UsageError(f"--loss {chosen.loss}: {kind}")
    if raised is not None:
        raise UsageError(
            f"{chosen.loss} cannot be called: {raised.kind} on each of {CALLED} cases: {raised.said}. "
            f"It is given {subject.family.given_to}; a loss that wants other things needs an adapter: {ADAPTERS}"
        )


def held_to(chosen: Settings, subject: LossUnderTest) -> Held:
    """Look at the loss, in another process. Where that ends, or its family cannot tell, nothing is changed."""
    found, usual = _recognised(chosen), subject.dialect
    if not isinstance(found, Recognised):
        return Held(subject.dialect_text, about=(f"dialect: {subject.dialect_text}, since {found}",) if found else ())
    text = write_dialect(found.dialect, subject.family.dialects)
    looked = found.dialect != usual
    if chosen.dialect is None:
        return Held(text, looked, about=_told(found, text, subject.dialect_text))
    lines = zip(differences(usual, found.dialect), differences(found.dialect, usual), strict=True)
    alone = [with_choice(usual, choice, value) for choice, value in found.dialect if value != getattr(usual, choice)]
    known = subject.family.dialects
    meant = (_meant(each, usual, known) for each in (*alone, found.dialect) if each is not None)
    texts = {
        f"the dialect has {named}; the loss has {has}": write_dialect(one, known) if one is not None else ""
        for (named, has), one in zip(lines, alone, strict=True)
    }
    return Held(text, looked, contradicted=texts, meant=dict(meant))


def _meant(dialect: Data, usual: Data, known: Mapping[str, Data]) -> tuple[str, str]:
    """The text of a dialect that a loss was found to have; whose rule that is, and what to do if it is meant."""
    text, names = write_dialect(dialect, known), whose_rule(dialect, usual, known)
    more = f" and {len(names) - NAMED} more dialects" if len(names) > NAMED else ""
    rule = f"as it stands this is the rule of {', '.join(names[:NAMED])}{more}; " if names else ""
    return text, f"{rule}if that is meant, use --dialect {quote(text)}"


def _told(found: Recognised, text: str, usual: str) -> tuple[str, ...]:
    if found.tried and not found.explained:
        why = f"in all of {found.tried} other cases the loss has other results"
        return (f"dialect: none that is known fits, as {why}; it is judged by {text}",)
    sure = "sure" if found.sure else "not sure"
    doubt = "" if found.sure else f"if it is not meant so, --dialect {quote(usual)} tells what is wrong; "
    return (
        f"dialect: {text} ({sure}: it explains {found.explained} of {found.tried} other cases)",
        *(f"  {choice}: {' or '.join(other)} would fit as well" for choice, other in found.unsure.items()),
        *(f"  {choice}: not explained, {why}" for choice, why in found.unexplained.items()),
        f'  {doubt}to hold the loss to it, write in the settings: dialect = "{text}"',
    )


def _recognised(chosen: Settings) -> Recognised | str | None:
    """What was found; why nothing was; None if the loss's family cannot tell."""
    found: Recognised | str | None = _asked(Task(chosen.loss, "cpu", chosen.dialect), _look, chosen.dialect is not None)
    return found


def _asked(task: Task, look: Callable[..., None], *arguments: Any) -> Any:
    """What a function sends that looks at the loss in another process; why it ended, if it did."""
    pipe, theirs = multiprocessing.Pipe()
    guarded = Guarded(look, (theirs, task, *arguments), MEMORY)
    theirs.close()
    began = time.monotonic()
    try:
        while not pipe.poll(STEP):
            death = guarded.watch(began, LIMIT)
            if death is not None:
                return f"the loss, when it was looked at, {death.kind}"
        return pipe.recv()
    except EOFError:
        return "the loss ended its process when it was looked at"
    finally:
        guarded.kill()
        pipe.close()


def _look(pipe: Connection, task: Task, named: bool) -> None:
    """The other process: sends the dialect."""
    subject = task.under_test()
    pipe.send(subject.family.recognise(subject, subject.dialect if named else None))


def _call(pipe: Connection, task: Task) -> None:
    """The other process: sends what the loss raises on every case, if it does, and of what kind it is."""
    subject = task.under_test()
    raised = _raised(subject)
    pipe.send(Called(raised, subject.family.other_kind(subject, raised)))


def _raised(subject: LossUnderTest) -> Trouble | None:
    """The first exception if every one of some cases raises; None if one does not."""
    plan, raised = Plan((), subject), []
    for number in range(CALLED):
        case = plan.case(plan.usual(number))
        with suppress(Unsupported):
            outcome = execute(subject, case)
            first = next((each for each in outcome.troubles if each.kind.startswith("raised in ")), None)
            if outcome.calls or first is None:
                return None
            raised.append(first)
    return raised[0] if raised else None
