"""The clerk: confirms what a worker found in a fresh process, makes the case small there, and saves it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from yololoss.harness.cases.case import Case, Data
from yololoss.harness.cases.files import read_file, write_whole
from yololoss.harness.cases.vectors import Vector, make_vector
from yololoss.harness.engine.judge import Judge, Task, Told
from yololoss.harness.engine.plan import Plan
from yololoss.harness.engine.raw import Raw, fingerprint, read_raw, write_raw
from yololoss.harness.errors import BadFile
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.law import find_laws

HANG = 4.0  # seconds that a case may take while it is made small: a hundred times what one takes


class Record(Data):
    """What became of what a worker found."""

    kind: str  # the fingerprint
    finding: Finding | None = None
    nothing: str | None = None  # why it is none


class Duty(NamedTuple):
    """What the clerk is told."""

    task: Task
    laws: tuple[str, ...]
    waived: tuple[str, ...]
    folder: Path
    options: dict[str, str | None]  # that a replay needs
    seconds: float  # to make a case small in


def record_path(folder: Path, kind: str) -> Path:
    """Where it is written what became of it."""
    return folder / "known" / f"{kind}.json"


def attend(duty: Duty, path: Path) -> None:
    """Confirm, make small, save."""
    subject = duty.task.under_test()  # first: it makes the loss's family known, of which the case is
    try:
        raw = read_raw(path)
    except BadFile as error:  # perhaps a full disk; the file stays, to be looked at
        write_record(duty.folder, Record(kind=path.stem, nothing=str(error)))
        return
    again = _in_a_fresh_process(duty, raw, raw.case)
    if raw.told.outside and (again is None or fingerprint(again) != raw.kind):
        record = Record(kind=raw.kind, nothing=_killed_from_outside(duty, raw, again))
    else:
        small, told, repeats = _confirmed(duty, raw, again)
        broken = told.broken(find_laws(subject.family)[told.law], small)
        broken.repeats = repeats
        record = Record(kind=raw.kind, finding=keep(broken, subject, duty.folder / "findings", duty.options))
    write_record(duty.folder, record)
    path.unlink(missing_ok=True)  # the clerk of a session that was killed may be at it as well


def _killed_from_outside(duty: Duty, raw: Raw, told: Told | None) -> str:
    """Why that is no finding; what its case breaks by itself waits as one of its own, which others may have found."""
    does = "is answered"
    if told is not None:
        own = raw._replace(told=told)
        write_raw(duty.folder, duty.task.loss, own)
        does = f"breaks {told.law} by itself: {own.kind}"
    return f"a process was killed from outside: its case, run again, {does}"


def _confirmed(duty: Duty, raw: Raw, told: Told | None) -> tuple[Case, Told, bool]:
    """The smallest case, how it breaks, and whether it does so again in a new process, as ``told`` from one."""
    if told is None:
        return raw.case, raw.told, False
    raw = raw._replace(told=told)
    if raw.origin is None or duty.seconds <= 0:
        return raw.case, told, True
    domain = Plan(duty.laws, duty.task.under_test(), duty.waived).domains[raw.origin.domain]
    small = domain.case(_smallest_of(raw, domain, replace(duty.task, limit=min(HANG, duty.task.limit)), duty.seconds))
    again = _in_a_fresh_process(duty, raw, small)
    # what breaks in a process with a past alone is kept as it was found, where it was seen to break without one
    return (raw.case, told, True) if again is None else (small, again, True)


def _in_a_fresh_process(duty: Duty, raw: Raw, case: Case) -> Told | None:
    with Judge(duty.task) as judge:
        return judge.ask(_vector(raw, case)).told


def _vector(raw: Raw, case: Case) -> Vector[Any, Any]:
    return make_vector(case, id=raw.kind, law=raw.told.law)


def _smallest_of(raw: Raw, domain: Any, task: Task, seconds: float) -> bytes:
    seen: dict[Case, bool] = {}
    assert raw.origin is not None
    with Judge(task) as judge:

        def breaks(data: bytes) -> bool:
            case = domain.case(data)
            if case not in seen:
                found = judge.ask(_vector(raw, case)).told
                seen[case] = found is not None and fingerprint(found) == raw.kind
            return seen[case]

        return smallest(raw.origin.data, breaks, time.monotonic() + seconds)


def smallest(data: bytes, breaks: Callable[[bytes], bool], until: float) -> bytes:
    """The plainest bytes that still break: as many as possible 0, the others as low as possible.

    Stops where it can do no more, or at a time.
    """
    found, better = data, True
    while better:
        better = False
        for size in (64, 32, 13, 8, 4, 2, 1):
            for start in range(0, len(found), size):
                for candidate in _plainer(found, start, size):
                    if time.monotonic() > until:
                        return found
                    if breaks(candidate):
                        found, better = candidate, True
                        break
    return found


def _plainer(data: bytes, start: int, size: int) -> Iterator[bytes]:
    """The bytes with some of them 0; a single one lower by ever less."""
    part = data[start : start + size]
    if not any(part):
        return
    yield data[:start] + bytes(len(part)) + data[start + size :]
    value, step = data[start], data[start] // 2
    while size == 1 and step:
        yield data[:start] + bytes([value - step]) + data[start + 1 :]
        step //= 2


def write_record(folder: Path, record: Record) -> None:
    """Write down what became of it. Raises OSError."""
    write_whole(record_path(folder, record.kind), record.model_dump_json(indent=1))


def read_records(folder: Path) -> dict[str, Record]:
    """What became of everything that was found, by fingerprint. Raises BadFile."""
    paths = sorted((folder / "known").glob("*.json"))
    return {path.stem: read_file(path, Record) for path in paths}
