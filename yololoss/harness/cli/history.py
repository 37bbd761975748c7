"""``yololoss history``: since which commit a loss has a fault."""

import json
import math
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import UsageError

LIMIT = 600.0  # seconds; a check takes half a minute


@click.command()
@click.argument("repo", type=click.Path(path_type=Path))
@click.argument("loss")
@click.option("--since", metavar="REV", help="The oldest commit.  [default: the first one]")
@click.option("--to", metavar="REV", help="The newest commit.  [default: HEAD]")
@click.option(
    "--loss",
    "ranges",
    metavar="REV..REV=LOSS",
    multiple=True,
    help="What the loss was called in these commits, where its class or file was renamed by hand: "
    "v1.0..v2.0=old/loss.py:OldLoss. As in git, the first one is not among them, and either may be left out. May be "
    "repeated.",
)
@click.option(
    "--for",
    "seconds",
    type=options.duration,
    metavar="TIME",
    help="Judge no more commits after this time, such as 30m.  [default: judge all]",
)
@click.option(
    "--limit", type=options.duration, metavar="TIME", help="The most time that a commit may take.  [default: 10m]"
)
@click.option(
    "--cases", type=click.IntRange(min=1), metavar="N", help="How many cases for each commit.  [default: as check]"
)
@options.laws
@options.one_device
@options.dialect
@options.workers
@click.option(
    "--out",
    type=options.FOLDER,
    default=Path(".yololoss/history"),
    show_default=True,
    help="Where results are kept, so that another run continues.",
)
@click.option("--report", type=options.FILE, help="Write an HTML page.")
@options.as_json
def history(
    repo: Path,
    loss: str,
    since: str | None,
    to: str | None,
    ranges: tuple[str, ...],
    seconds: float | None,
    limit: float | None,
    cases: int | None,
    laws: tuple[str, ...],
    device: str | None,
    dialect: str | None,
    workers: int | None,
    out: Path,
    report: Path | None,
    as_json: bool,
) -> None:
    """Find since when a loss is wrong: judge it at every commit that touched its file or what that imports.

    REPO is a folder of a git repository, and the path of LOSS begins there. A commit's files are code, and judging runs
    them: only judge a repository that you trust. Its working tree, index and refs stay as they are. Settings of the
    project are not used, so that all commits are judged alike.

    The newest and the oldest commit are judged first, then those between two that differ, then the others. A run that
    was ended continues when it is started again.

    \b
    Examples:
      yololoss history . utils/loss.py:ComputeLoss
      yololoss history . utils/loss.py:ComputeLoss --since v1.0 --for 30m --report history.html
      yololoss history . utils/loss.py:ComputeLoss --loss ..v1.0=loss.py:Loss

    Exit status: 0 no commit has a fault; 1 at least one has; 2 the command could not run, or no commit was judged.
    """
    from yololoss.harness.findings.page import write_page  # noqa: PLC0415
    from yololoss.harness.history.commits import Repository  # noqa: PLC0415
    from yololoss.harness.history.line import Asked, read_line  # noqa: PLC0415
    from yololoss.harness.history.run import run  # noqa: PLC0415
    from yololoss.harness.history.table import lines, make_table, told  # noqa: PLC0415
    from yololoss.harness.history.verdicts import How, Kept, judge_by  # noqa: PLC0415

    given = {"cases": cases, "device": device, "dialect": dialect}
    named = (f"--{name}={value}" for name, value in given.items() if value)
    how = How(
        limit or LIMIT,
        (*named, *(f"--laws={pattern}" for pattern in laws)),
        (f"--workers={workers}",) if workers else (),
    )
    with Repository(repo) as repository, _ended_as_by_ctrl_c():
        steps = read_line(repository, Asked(loss, since, to, ranges))
        with options.progress(f"{len(steps)} commits that touched {loss}", quiet=as_json) as bar:
            task = bar.add_task("", total=len(steps))

            def show(done: int) -> None:
                bar.update(task, completed=done)
                if bar.disable and not as_json:
                    click.echo(f"{done} of {len(steps)} commits judged", err=True)

            results = run(
                repository,
                steps,
                judge_by(how, repository.prefix),
                Kept(out / "results", how),
                out / "trees",
                seconds=seconds or math.inf,
                show=show,
            )
    table = make_table(loss, steps, results)
    if as_json:
        click.echo(json.dumps(table.model_dump(mode="json"), indent=1))
    else:
        options.say("\n".join(lines(table)))
    if report is not None:
        command = shlex.join(["yololoss", *sys.argv[1:]])
        rows = {row.commit: row for row in table.rows}
        write_page(report, "history.html.j2", table=table, told=told, commits=rows, command=command)
    if not any(row.judged and not row.why for row in table.rows):
        why = next((row.why for row in reversed(table.rows) if row.why), "there was no time")
        raise UsageError(f"no commit was judged: {why}")
    sys.exit(table.status)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, as `timeout` sends it, ends what was started and shows what was judged, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
