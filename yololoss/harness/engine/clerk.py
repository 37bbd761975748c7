"""The clerk: confirms a worker's finding in a new process, minimises its case there, and saves it."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from yololoss.harness.cases.case import Case, Data
from yololoss.harness.cases.files import read_file, write_whole
from yololoss.harness.cases.vectors import Vector, make_vector
from yololoss.harness.engine.judge import Judge, Told
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.engine.plan import Origin, Plan
from yololoss.harness.engine.raw import Raw, fingerprint, made, origin, read_raw, write_raw
from yololoss.harness.engine.state import Settings
from yololoss.harness.errors import BadFile
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.subject import Unsupported

HANG = 4.0  # seconds that a case may take while it is minimised: a hundred times as long as usual


class Record(Data):
    """The clerk's result for something that a worker found."""

    kind: str  # the fingerprint
    made: str = ""  # what the minimised case is made from
    explained: str = ""  # the earlier law that breaks on the same case, and has no finding of its own
    finding: Finding | None = None
    nothing: str | None = None  # why it is no finding


class Duty(NamedTuple):
    """What the clerk needs to know."""

    settings: Settings
    folder: Path
    seconds: float  # to minimise a case in


def record_path(folder: Path, kind: str) -> Path:
    """The file of the record of a fingerprint."""
    return folder / "known" / f"{kind}.json"


def attend(duty: Duty, path: Path) -> None:
    """Confirm, minimise and save one finding."""
    subject = duty.settings.under_test()  # first: the case's file can be read once the family of the loss is known
    try:
        raw = read_raw(path)
    except BadFile as error:  # perhaps a full disk; keep the file for a person to look at
        write_record(duty.folder, Record(kind=path.stem, nothing=str(error)))
        return
    again = _in_a_fresh_process(duty, raw, raw.case)
    if raw.told.outside and (again is None or fingerprint(again) != raw.kind):
        record = Record(kind=raw.kind, nothing=_killed_from_outside(duty, raw, again))
    else:
        small = _confirmed(duty, raw, again, subject)
        same = again is not None and (small.told.died or repeats(subject, small.case))
        finding = _kept(duty, small, subject, repeats=same, drawn=duty.settings.shrink)
        record = Record(kind=raw.kind, made=made(small.origin), explained=raw.told.explained, finding=finding)
    write_record(duty.folder, record)
    path.unlink(missing_ok=True)  # the clerk of a killed session may delete it too


def give_up(duty: Duty, path: Path, subject: LossUnderTest) -> None:
    """Save a finding as it was found, since its clerk died."""
    raw = read_raw(path)
    finding = _kept(duty, raw, subject, repeats=False, drawn=False)
    write_record(duty.folder, Record(kind=path.stem, explained=raw.told.explained, finding=finding))


def _kept(duty: Duty, raw: Raw, subject: LossUnderTest, *, repeats: bool, drawn: bool) -> Finding:
    broken = raw.told.broken(find_laws(subject.family)[raw.told.law], raw.case)
    broken.repeats = repeats
    return keep(broken, subject, duty.settings.findings_in(duty.folder), duty.settings.options, drawn=drawn)


def repeats(subject: LossUnderTest, case: Case) -> bool:
    """Whether the loss does the same when the case is run again."""
    with suppress(Unsupported):  # the loss lacks an option of the case, in both runs
        return execute(subject, case).same(execute(subject, case))
    return True


def _killed_from_outside(duty: Duty, raw: Raw, told: Told | None) -> str:
    """Why that is no finding. If its case breaks a law when it runs again, write that as another finding."""
    does = "breaks no law"
    if told is not None:
        own = raw._replace(told=told)
        write_raw(duty.folder, duty.settings.loss, own)
        does = f"breaks {told.law}: {own.kind}"
    return f"a process was killed from outside: its case, run again, {does}"


def _confirmed(duty: Duty, raw: Raw, told: Told | None, subject: LossUnderTest) -> Raw:
    """The minimised case, and how it breaks. ``told`` is how the case broke in a new process; None if it did not."""
    if told is None:
        return raw
    raw = raw._replace(told=told)
    if raw.origin is None or duty.seconds <= 0:
        return raw
    small = _smallest_of(duty, raw, Plan(duty.settings.laws, subject))
    again = _in_a_fresh_process(duty, raw, small.case)
    # if the minimised case breaks only after other cases in its process, keep the case as found, which repeats
    return raw if again is None else small._replace(told=again)


def _in_a_fresh_process(duty: Duty, raw: Raw, case: Case) -> Told | None:
    with Judge(duty.settings) as judge:
        return judge.ask(_vector(raw, case)).told


def _vector(raw: Raw, case: Case) -> Vector[Any, Any]:
    return make_vector(case, id=raw.kind, law=raw.told.law)


def _smallest_of(duty: Duty, raw: Raw, plan: Plan) -> Raw:
    """A minimised case: that of an earlier finding if it breaks this law as well, else a smaller one than was found."""
    with Judge(replace(duty.settings, limit=min(HANG, duty.settings.limit))) as judge:

        @cache  # bytes may differ and make the same case
        def shows(case: Case) -> bool:
            found = judge.ask(_vector(raw, case)).told
            return found is not None and _same(found, raw, duty)

        def breaks(made_from: Origin) -> bool:
            return shows(plan.case(made_from))

        others = [origin(record.made) for record in read_records(duty.folder).values() if record.made]
        law = raw.told.law
        found = next((other for other in others if other and plan.about(law, other) and breaks(other)), None)
        if found is None:
            assert raw.origin is not None
            first, until = raw.origin, time.monotonic() + duty.seconds
            found = first._replace(data=smallest(first.data, lambda data: breaks(first._replace(data=data)), until))
        small = plan.case(found)
        # settings are drawn together, so bytes cannot make them simpler one by one
        while (simpler := next(filter(shows, plan.simpler(law, small).values()), None)) is not None:
            small = simpler
    return raw._replace(origin=found, case=small)


def _same(told: Told, raw: Raw, duty: Duty) -> bool:
    """Whether a law broke as it did in the finding, and no earlier one explains it unless one explained the finding.

    In a gate it may break in any way if the law does not tell several apart, else with the same fingerprint.
    """
    if duty.settings.gate and not raw.told.kind:
        return told.law == raw.told.law and bool(told.explained) <= bool(raw.told.explained)
    return fingerprint(told) == raw.kind


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a finding. Raises OSError."""
    write_whole(record_path(folder, record.kind), record.model_dump_json(indent=1))


def read_records(folder: Path) -> dict[str, Record]:
    """The records of a session, by fingerprint. Raises BadFile."""
    paths = sorted((folder / "known").glob("*.json"))
    return {path.stem: read_file(path, Record) for path in paths}
