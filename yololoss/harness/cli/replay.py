"""``yololoss replay``: judge saved findings again."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import USAGE, UsageError, closest, printable

if TYPE_CHECKING:
    from yololoss.harness.cases.vectors import Vector
    from yololoss.harness.engine.judge import Judge
    from yololoss.harness.laws.exam import Law
    from yololoss.harness.subjects.family import Family, LossUnderTest

FIXED, BROKEN, CANNOT = "fixed", "still broken", "cannot run"
SKIP, ABORT = 125, 128  # exit statuses: git bisect tries another commit, or ends


@click.command()
@click.argument("files", metavar="CASE...", nargs=-1, required=True, type=options.FILE)
@options.loss
@options.one_device
@options.dialect
@options.findings
@options.limit
@options.memory
@options.export
@click.option(
    "--bisect",
    is_flag=True,
    help="Exit status for git bisect run: 0 fixed, 1 still broken, 125 cannot run on this loss, 128 the command is "
    "wrong.",
)
@options.as_json
def replay(
    files: tuple[Path, ...],
    findings: Path,
    limit: float | None,
    memory: int | None,
    export: str | None,
    bisect: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Judge saved cases by the laws that they broke. Prints for each: fixed, still broken, or cannot run.

    The cases run in another process. If the loss crashes or hangs there, replay reports it.

    \b
    Examples:
      yololoss replay .yololoss/findings/assign.rows-476c810e.json --loss utils/loss.py:ComputeLoss
      yololoss replay .yololoss/findings/*.json
      git bisect run yololoss replay case.json --loss utils/loss.py:ComputeLoss --bisect

    Exit status: 0 all are fixed; 1 at least one is still broken; 2 at least one cannot run.
    """
    from yololoss.harness.engine.held import refuse_others  # noqa: PLC0415
    from yololoss.harness.engine.judge import MEMORY, Judge, Task, usual_limit  # noqa: PLC0415
    from yololoss.harness.findings.finding import Finding  # noqa: PLC0415

    if bisect:
        _must_be_read(files)
    with _skipping(bisect):
        chosen = options.settings(**given)
        subject = options.under_test(chosen)
        if chosen.loss != subject.family.bundled:
            refuse_others(chosen, subject)
    task = Task(chosen.loss, chosen.device, chosen.dialect, memory or MEMORY, limit or usual_limit(chosen.device))
    given |= {"limit": f"{limit:g}" if limit else None, "memory": str(memory) if memory else None}
    with Judge(task) as judge:
        answers = [answer for path in files for answer in _replay(path, subject, judge, findings, given)]
    broken = (Finding.model_validate(answer["finding"]) for answer in answers if answer["finding"])
    tests = [*options.write_tests(broken if export else (), subject)]
    if as_json:
        click.echo(json.dumps(answers, indent=1))
    for answer in answers if not as_json else ():
        options.say(f"{printable(answer['file'])}: {answer['answer']}{answer['why']}")
        if answer["finding"]:
            options.say(f"{answer['text']}\n")
    for line in tests if not as_json else ():
        options.say(line)
    found = {answer["answer"] for answer in answers}
    if bisect:
        sys.exit(options.BROKE if BROKEN in found else SKIP if CANNOT in found else 0)
    sys.exit(USAGE if CANNOT in found else options.BROKE if BROKEN in found else 0)


def _must_be_read(files: tuple[Path, ...]) -> None:
    """End git bisect if a file cannot be read: that is no loss's fault, and exit status 2 would mean "bad"."""
    from yololoss import _suite  # noqa: PLC0415
    from yololoss.harness.cases.vectors import read_vectors  # noqa: PLC0415

    _suite.load_families()
    for path in files:
        try:
            read_vectors(path)
        except UsageError as error:
            _end(str(error), ABORT)


@contextmanager
def _skipping(bisect: bool) -> Iterator[None]:
    """With ``--bisect``: skip a commit whose loss cannot be loaded or called; end if an option is wrong."""
    try:
        yield
    except UsageError as error:
        if not bisect:
            raise
        _end(str(error), ABORT if str(error).startswith(("--device", "--dialect")) else SKIP)


def _end(why: str, status: int) -> NoReturn:
    click.echo(f"yololoss: {printable(why)}", err=True)
    sys.exit(status)


def saved(path: Path, family: "Family") -> "tuple[Vector[Any, Any], ...]":
    """The cases of a file, if it has some, and each is saved under a law of this family."""
    from yololoss.harness.cases.vectors import read_vectors  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    file = read_vectors(path)
    if not file.vectors:
        raise UsageError(f"{path}: has no case")
    if file.family != family.name:
        raise UsageError(
            f"{path}: cases of the family {file.family}; the loss is of the family {family.name}: "
            "name the one to judge with --loss"
        )
    laws = find_laws(family)
    for vector in file.vectors:
        if vector.law not in laws:
            hint = closest(vector.law or "", laws)
            raise UsageError(f"{path}: {vector.id}: saved under {vector.law or 'no law'}: no such law{hint}")
    return file.vectors


def _replay(
    path: Path, subject: "LossUnderTest", judge: "Judge", folder: Path, given: dict[str, str | None]
) -> list[dict[str, Any]]:
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    try:
        vectors = saved(path, subject.family)
    except UsageError as error:
        why = str(error).removeprefix(f"{path}: ")
        return [{"file": str(path), "answer": CANNOT, "why": f": {why}", "finding": None, "text": ""}]
    laws = find_laws(subject.family)
    return [{"file": str(path), **_judge(laws[str(v.law)], v, subject, judge, folder, given)} for v in vectors]


def _judge(
    law: "Law",
    vector: "Vector[Any, Any]",
    subject: "LossUnderTest",
    judge: "Judge",
    folder: Path,
    given: dict[str, str | None],
) -> dict[str, Any]:
    from yololoss.harness.findings.finding import keep  # noqa: PLC0415
    from yololoss.harness.subjects.family import with_record  # noqa: PLC0415

    held_to = with_record(subject, vector)
    reason = law.assumes(held_to) or law.cannot_judge(vector.case)
    if reason is not None:
        return {"answer": CANNOT, "why": f": {reason}", "finding": None, "text": ""}
    told, nothing = judge.ask(vector)
    if told is not None:
        finding = keep(told.broken(law, vector.case), held_to, folder, given)
        why = f": {told.observed}" if told.died else ""
        return {"answer": BROKEN, "why": why, "finding": finding.model_dump(), "text": str(finding)}
    # after the loss is fixed, a case may have nothing to judge
    return {"answer": FIXED, "why": f" ({nothing})" if nothing else "", "finding": None, "text": ""}
