"""``yololoss record`` and ``yololoss diff``: compare a loss with its earlier version, or with another loss."""

import json
import sys
from pathlib import Path

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import UsageError


@click.command()
@click.argument("loss")
@click.option("-o", "--output", type=options.FILE, required=True, help="The file to write.")
@click.option("--case", "more", type=options.FILE, multiple=True, help="Record the cases of this file too. Repeatable.")
@options.laws
@options.dialect
@click.option("--force", is_flag=True, help="Overwrite a file with other content, without asking.")
def record(
    loss: str, output: Path, more: tuple[Path, ...], laws: tuple[str, ...], dialect: str | None, force: bool
) -> None:
    """Record what a loss does now, as a baseline for check --baseline.

    Use it for a loss that was changed on purpose. The file holds about 80 cases with rows, values and gradients, and
    the names of the laws that the loss breaks now (of all laws, or of those that --laws names). A NaN is no choice: a
    law about it is not recorded, and a check still says that it breaks.

    \b
    Examples:
      yololoss record utils/loss.py:ComputeLoss -o loss-baseline.json
      yololoss check utils/loss.py:ComputeLoss --baseline loss-baseline.json
    """
    from yololoss.harness.engine.gate import survey  # noqa: PLC0415
    from yololoss.harness.findings.baseline import baseline_cases, record_cases, write_baseline  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    chosen = options.settings(loss=loss, dialect=dialect)
    subject = options.under_test(chosen)
    titles = {id: law.title for id, law in find_laws(subject.family, laws).items()}
    cases = baseline_cases(subject.family, more)
    with options.progress(f"cases of {loss}") as bar:
        task = bar.add_task("", total=len(cases))
        vectors = record_cases(subject, cases, lambda: bar.advance(task))
    with options.progress(f"laws on {loss}, about a minute") as bar:
        bar.add_task("", total=None)
        verdict = survey(
            loss, [f"--laws={pattern}" for pattern in laws] + ([f"--dialect={dialect}"] if dialect else [])
        )
    if verdict.problem:
        raise UsageError(verdict.problem)
    broken = tuple(sorted(row["id"] for row in verdict.laws if row["word"] in ("BROKE", "explained")))
    known = tuple(law for law in broken if law not in subject.family.never_known)
    changed = write_baseline(output, loss, vectors, known, lambda: force or _may_overwrite(output))
    options.say(f"{output}: {len(vectors)} cases, {len(broken)} laws broken{'' if changed else ': unchanged'}")
    for law in broken:
        not_known = "" if law in known else "; this is no choice, so it is not recorded as known"
        options.say(f"  {law}: {titles[law]}{not_known}")


def _may_overwrite(path: Path) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{path}: exists with other content; --force overwrites it")
    return click.confirm(f"{path} exists with other content. Overwrite it?")


@click.command()
@click.argument("one", metavar="LOSS_A")
@click.argument("two", metavar="LOSS_B")
@click.option(
    "--cases", type=click.IntRange(min=1), default=200, show_default=True, metavar="N", help="Cases to compare."
)
@options.laws
@options.dialect
@options.one_device
@click.option("--no-laws", is_flag=True, help="Compare only results, and not which laws each loss breaks.")
@options.findings
@options.as_json
def diff(
    one: str,
    two: str,
    cases: int,
    laws: tuple[str, ...],
    dialect: str | None,
    device: str | None,
    no_laws: bool,
    findings: Path,
    as_json: bool,
) -> None:
    """Find where two losses differ: rows, values, gradients (each with its smallest case) and laws.

    \b
    Examples:
      yololoss diff old/utils/loss.py:ComputeLoss utils/loss.py:ComputeLoss
      yololoss diff yololoss:ComputeLoss port.py:Loss --no-laws

    Exit status: 0 no difference; 1 they differ; 2 one of them could not run.
    """
    from yololoss.harness.engine.diff import differences, remote  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    chosen = options.settings(loss=two, dialect=dialect, device=device)
    subject = options.under_test(chosen)
    find_laws(subject.family, laws)
    other_loss = remote(one, chosen.device, subject.family.name)
    with options.progress(f"{one} against {two}", quiet=as_json) as bar, other_loss as other:
        bar.add_task("", total=None)
        found = list(differences(other, subject, cases, findings))
        told = {} if no_laws else _verdicts(one, two, laws, subject.dialect_text, chosen.device)
    if as_json:
        given = {"differences": [each.model_dump() for each in found], "laws": told}
        click.echo(json.dumps(given, indent=1))
    else:
        for each in found:
            options.say(f"{each}\n")
        for law, (of_one, of_two) in told.items():
            options.say(f"{law}: {of_one} for {one}, {of_two} for {two}")
        aspects = ", ".join(each.law.removeprefix("diff.") for each in found) or "nothing"
        apart = "" if no_laws else f"; {len(told)} laws have different outcomes"
        options.say(f"{cases} cases: they differ in {aspects}{apart}")
    sys.exit(options.BROKE if found or told else 0)


def _verdicts(one: str, two: str, laws: tuple[str, ...], dialect: str, device: str) -> dict[str, tuple[str, str]]:
    """The laws whose outcomes on the two losses differ, and both outcomes. Raises UsageError if a loss cannot run."""
    from yololoss.harness.engine.gate import survey  # noqa: PLC0415

    given = [*(f"--laws={pattern}" for pattern in laws), f"--dialect={dialect}", f"--device={device}"]
    found = []
    for loss in (one, two):
        verdict = survey(loss, given)
        if verdict.problem:
            raise UsageError(verdict.problem)
        found.append({row["id"]: row["word"] for row in verdict.laws})
    return {law: (found[0][law], found[1][law]) for law in found[0] if found[0][law] != found[1][law]}
