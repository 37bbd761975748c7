"""``yololoss mend``: what would mend the faults of a loss."""

import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.cli.view import View
from yololoss.harness.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from yololoss.harness.engine.gate import Gate
    from yololoss.harness.findings.finding import Finding
    from yololoss.harness.findings.verdict import Verdict
    from yololoss.harness.subjects.family import Family

CASES_A_WORKER = 100  # with fewer, starting one more process costs as much time as it saves
NOTHING = "no edit mends this, and no line stands out"
SAME = "the difference is above: it mends this fault too"
UNMENDED = "none of the edits mends this; these lines matter most:"


@click.command()
@click.argument("loss", required=False)
@click.option(
    "--case",
    "replay",
    multiple=True,
    type=options.FILE,
    metavar="CASE",
    help="Mend the fault that this saved case shows, without a check of the whole loss. May be repeated.",
)
@options.mend_for
@options.laws
@options.one_device
@options.dialect
@options.findings
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes at the same time.  [default: one for each core, at most 8]"
)
@options.as_json
def mend(
    loss: str | None,
    replay: tuple[Path, ...],
    mend_for: float,
    laws: tuple[str, ...],
    workers: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the lines at fault, and what would mend them.

    Checks the loss, then tries small edits of its files on the cases that fail, and on others. Prints for each fault
    the edit with which all laws hold, as a difference that git apply and patch -p1 take; if there is none, the lines
    at which the fault probably is. It changes no file.

    \b
    Examples:
      yololoss mend utils/loss.py:ComputeLoss
      yololoss mend utils/loss.py:ComputeLoss --for 5m
      yololoss mend utils/loss.py:ComputeLoss --case .yololoss/findings/assign.rows-476c810e.json
      yololoss mend utils/loss.py:ComputeLoss | git apply

    Exit status: 0 the loss has no fault; 1 it has one; 2 the command could not run.
    """
    from yololoss.harness.engine.gate import Gate, Options  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    named: dict[str, Any] = {name: value and str(value) for name, value in given.items()}
    asked = Options(loss=loss, replay=[*map(str, replay)], **named)
    gate = Gate(asked, Path.cwd(), look=True)
    gate.prepare()
    gate.check_waivers()
    for path in replay:
        _refuse_invalid(path, gate.family)
    wanted = find_laws(gate.family, laws)
    for line in gate.held.about if not as_json else ():
        options.say(f"# {line}")
    with View(f"laws on {gate.chosen.loss}: {len(wanted)}", quiet=as_json) as view:
        verdict = gate.verdict(wanted, workers or gate_workers(len(wanted), None), view.show)
    verdict = mended(gate, verdict, mend_for, workers, quiet=as_json)
    if as_json:
        click.echo(json.dumps([fault.model_dump(mode="json") for fault in verdict.faults], indent=1))
    elif verdict.problem:
        raise UsageError(verdict.problem)
    shown: set[str] = set()
    for fault in verdict.faults if not as_json else ():
        _show(fault, shown)
    if not verdict.faults and not as_json:
        options.say("no law broke: there is nothing to mend")
    sys.exit(verdict.status)


def _refuse_invalid(path: Path, family: "Family") -> None:
    """Raise UsageError for a case that its law cannot judge: it shows no fault of the loss."""
    from yololoss.harness.cli.replay import saved  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    laws = find_laws(family)
    for vector in saved(path, family):
        if reason := laws[str(vector.law)].cannot_judge(vector.case):
            raise UsageError(f"{path}: {vector.id}: {reason}")


def _show(fault: "Finding", shown: set[str]) -> None:
    """Print what is known of a fault as comments, and the difference as it is, once: so that all can be applied."""
    options.say(f"# {fault.law}: {fault.title}")
    if fault.choice:
        options.say(f"# {fault.choice}")
        options.say(f"# {fault.meant}")
    if not any(each.diff for each in fault.mends):
        options.say(f"# {UNMENDED if fault.mends else NOTHING}")
    for each in fault.mends:
        options.say("\n".join(f"# {line}" for line in str(each).splitlines()))
        if each.diff in shown:
            options.say(f"# {SAME}")
        elif each.diff:
            options.say(each.diff.rstrip("\n"))
            shown.add(each.diff)
    options.say("")


def _tried(bar: "Progress", task: "TaskID", edits: int) -> None:
    bar.update(task, completed=edits)


def mended(gate: "Gate", verdict: "Verdict", seconds: float, workers: int | None, *, quiet: bool) -> "Verdict":
    """The verdict, whose faults say what would mend them. Those of compilation are left as they are."""
    from yololoss.harness.mend.mend import mend as find  # noqa: PLC0415

    faults = {fault.path: fault for fault in verdict.faults}
    devices = {
        name: [fault for fault in verdict.faults if fault.device == str(subject.device)]
        for name, subject in gate.subjects.items()
        if not subject.compile
    }
    broken = {name: mine for name, mine in devices.items() if mine}
    for name, mine in broken.items():
        with options.progress(f"mend {gate.chosen.loss}", quiet=quiet) as bar:
            found = find(
                mine,
                gate.task(name),
                gate.family,
                known=gate.may_break,
                seconds=seconds / len(broken),
                workers=workers or min(os.cpu_count() or 1, 8),
                show=partial(_tried, bar, bar.add_task("", total=None)),
            )
        faults |= {fault.path: fault for fault in found}
    return verdict.model_copy(update={"faults": tuple(faults[fault.path] for fault in verdict.faults)})


def gate_workers(laws: int, cases: int | None) -> int:
    """Processes for a gate: one for each core, fewer for few cases."""
    from yololoss.harness.engine.gate import usual_cases  # noqa: PLC0415

    return min(os.cpu_count() or 1, 8, math.ceil((cases or usual_cases(laws)) / CASES_A_WORKER))
