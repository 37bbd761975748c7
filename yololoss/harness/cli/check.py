"""``yololoss check``: the gate."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.cli.mend import gate_workers, mended
from yololoss.harness.cli.view import View
from yololoss.harness.errors import USAGE, UsageError

if TYPE_CHECKING:
    from yololoss.harness.findings.about import About
    from yololoss.harness.findings.verdict import Verdict


@click.command()
@click.argument("loss", required=False)
@options.laws
@options.device
@options.dialect
@click.option("--baseline", type=options.FILE, help="A recorded baseline: the loss must still do the same.")
@options.corpus
@click.option(
    "--cases", type=click.IntRange(min=1), metavar="N", help="How many cases.  [default: 30 for each law, at least 100]"
)
@options.workers
@options.findings
@click.option("--no-shrink", is_flag=True, help="Do not minimise or draw failing cases.")
@click.option("--report", type=options.FILE, help="Write an HTML report.")
@click.option("--junit", type=options.FILE, help="Write a JUnit XML file, for CI systems.")
@options.export
@click.option("--mend", "mends", is_flag=True, help="Also look for what mends each fault, as yololoss mend does.")
@options.mend_for
@click.option("-v", "--verbose", is_flag=True, help="Show every finding in full, not only the first, and every law.")
@options.as_json
def check(
    loss: str | None,
    laws: tuple[str, ...],
    report: Path | None,
    junit: Path | None,
    workers: int | None,
    cases: int | None,
    no_shrink: bool,
    export: str | None,
    mends: bool,
    mend_for: float,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Check all laws on a loss.

    Without LOSS, check takes the loss named in [tool.yololoss] of pyproject.toml or in yololoss.toml, else the bundled
    loss.

    \b
    Examples:
      yololoss check
      yololoss check utils/loss.py:ComputeLoss --report report.html
      yololoss check utils/loss.py:ComputeLoss --laws assign --laws 'boxes.*' --device cpu,mirror
      yololoss check utils/loss.py:ComputeLoss --baseline loss-baseline.json
      yololoss check utils/loss.py:ComputeLoss --mend
    """
    from yololoss.harness.engine.gate import Gate, Options  # noqa: PLC0415
    from yololoss.harness.findings.about import about  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    asked = Options(loss=loss, no_shrink=no_shrink, cases=cases, **{n: v and str(v) for n, v in given.items()})
    gate = Gate(asked, Path.cwd(), look=True)
    gate.prepare()
    subject = next(iter(gate.subjects.values()))
    gate.check_waivers()
    wanted = find_laws(subject.family, laws)
    what = about(subject, gate.chosen.device, shlex.join(["yololoss", *sys.argv[1:]]))
    for line in gate.held.about if not as_json else ():
        options.say(line)
    start = time.monotonic()
    with View(f"laws on {gate.chosen.loss}: {len(wanted)}", quiet=as_json) as view:
        verdict = gate.verdict(wanted, workers or gate_workers(len(wanted), cases), view.show)
    if mends:
        verdict = mended(gate, verdict, mend_for, workers, quiet=as_json)
    verdict = verdict.model_copy(update={"seconds": time.monotonic() - start})
    unwritten = [*_write(verdict, what, junit, report)]
    tests = [*options.write_tests(verdict.faults if export else (), subject)]
    if as_json:
        click.echo(json.dumps(verdict.model_copy(update={"about": what}).model_dump(mode="json"), indent=1))
    else:
        _show(verdict, report, tests, verbose=verbose)
    for line in unwritten:
        click.echo(f"yololoss: {line}", err=True)
    sys.exit(verdict.status or (USAGE if unwritten else 0))


def _write(verdict: "Verdict", what: "About", junit: Path | None, report: Path | None) -> Iterator[str]:
    """Write the files for CI. Yields a line for each that cannot be written: findings are shown all the same."""
    from yololoss.harness.findings.junit import write_junit  # noqa: PLC0415
    from yololoss.harness.findings.report import write_report  # noqa: PLC0415

    for path, write in ((junit, partial(write_junit, verdict)), (report, partial(write_report, verdict, what))):
        try:
            if path is not None:
                write(path)
        except OSError as error:
            yield f"{path}: could not be written: {error.strerror}"


def _show(verdict: "Verdict", report: Path | None, tests: list[str], *, verbose: bool) -> None:
    from yololoss.harness.findings.summary import table  # noqa: PLC0415
    from yololoss.harness.findings.verdict import headline  # noqa: PLC0415

    shown = verdict.faults[: None if verbose else 1]  # the first says most: it is about the earliest step
    for each in (*shown, *verdict.failures):
        options.say(f"{each}\n")
    for fault in verdict.faults[len(shown) :]:
        options.say(f"another fault: {fault.law}: {fault.choice or fault.title}\n  replay     {fault.replay}")
        for mend in fault.mends:
            options.say(str(mend))
    if len(shown) < len(verdict.faults):
        options.say("-v shows each in full\n")
    for line in tests:
        options.say(line)
    if verdict.laws:
        options.say(table(verdict.laws, shutil.get_terminal_size()[0], quiet=not verbose))
    for absent in verdict.absent:
        options.say(f"device {absent}: skipped")
    if verdict.stopped:
        options.say(verdict.stopped)
    if report is not None:
        options.say(f"report: {report}")
    if verdict.problem:
        raise UsageError(verdict.problem)
    style = "bold red" if verdict.status else "bold green"
    options.say(f"{headline(verdict)}, {verdict.seconds:.0f} s", style)
