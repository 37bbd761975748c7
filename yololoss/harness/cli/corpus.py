"""``yololoss corpus``: folders of case files, as fuzz sessions and checks save them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss._suite import VERSION
from yololoss.harness.cli import options
from yololoss.harness.errors import UsageError, closest, short

if TYPE_CHECKING:
    from yololoss.harness.cases.vectors import Vector

FOLDER = click.argument("folder", metavar="FOLDER", type=options.FOLDER)


@click.group()
def corpus() -> None:
    """Manage a corpus: a folder of case files that are judged first.

    \b
    Examples:
      yololoss corpus merge loss-corpus .yololoss/fuzz/findings .yololoss/findings
      yololoss corpus minimise loss-corpus
      yololoss corpus list loss-corpus
      yololoss corpus promote loss-corpus totals.sum-476c810e -o golden/mine.json
    """


@corpus.command()
@FOLDER
@click.argument("others", metavar="OTHER...", nargs=-1, required=True, type=options.FOLDER)
def merge(folder: Path, others: tuple[Path, ...]) -> None:
    """Add to FOLDER the cases of other folders that it does not have. Makes FOLDER if it does not exist."""
    from yololoss.harness.cases.corpus import add  # noqa: PLC0415

    found = [vector for other in others for vector in _read(other).values()]
    added = add(folder, found, {"project": f"yololoss {VERSION}"})
    options.say(f"{folder}: {len(added)} new of {len(found)} cases")


@corpus.command("list")
@FOLDER
@options.as_json
def list_(folder: Path, as_json: bool) -> None:
    """List the cases: name, law, and what was found."""
    found = _read(folder)
    if as_json:
        told = [{"name": name, "law": v.law, "comment": v.comment} for name, v in found.items()]
        click.echo(json.dumps(told, indent=1))
        return
    lines = [f"{name}  {short(vector.comment) or 'no comment'}" for name, vector in found.items()]
    options.say("\n".join((*lines, f"{len(found)} cases, {len({v.law for v in found.values()})} laws")))


@corpus.command()
@FOLDER
def minimise(folder: Path) -> None:
    """Keep the smallest of the cases that show the same, and delete the others.

    Two cases show the same if they are saved under the same law, for the same place and kind of trouble, and lie in the
    same regions, which docs/measured/reach.md lists.
    """
    from yololoss.harness.cases.corpus import minimised  # noqa: PLC0415
    from yololoss.harness.engine.raw import plain  # noqa: PLC0415
    from yololoss.harness.subjects.family import find_family  # noqa: PLC0415

    def reached(vector: "Vector[Any, Any]") -> tuple[str | None, ...]:
        return vector.law, plain(vector.comment), *find_family(vector.case.family).regions_of(vector.case)

    kept, deleted = minimised(folder, reached)
    options.say(f"{folder}: {kept} cases kept, {deleted} deleted")


@corpus.command()
@FOLDER
@click.argument("name")
@options.loss
@options.dialect
@click.option(
    "-o", "--output", type=options.FILE, required=True, help="The vector file to add it to. Made if it does not exist."
)
def promote(folder: Path, name: str, output: Path, **given: Any) -> None:
    """Make a vector of a case: from now on the loss must do what it does with the case now.

    The case must not break its law any more.

    \b
    Example:
      yololoss corpus promote loss-corpus totals.sum-476c810e --loss utils/loss.py:ComputeLoss -o loss-baseline.json
    """
    from yololoss.harness.engine.judge import Judge, Task  # noqa: PLC0415
    from yololoss.harness.findings.baseline import promote as promoted  # noqa: PLC0415

    found = _read(folder)
    if name not in found:
        raise UsageError(f"{folder}: {name}: no such case{closest(name, found)}")
    chosen = options.settings(**given)
    subject = options.under_test(chosen)
    with Judge(Task(chosen.loss, "cpu", chosen.dialect)) as judge:
        broke, _ = judge.ask(found[name])
    if broke is not None:
        raise UsageError(f"{name}: {chosen.loss} breaks {broke.law} on it: {broke.observed}; fix that first")
    promoted(found[name], output, subject)
    options.say(f"{output}: {name} is now a vector")


def _read(folder: Path) -> "dict[str, Vector[Any, Any]]":
    from yololoss.harness.cases.vectors import read_corpus  # noqa: PLC0415

    return read_corpus(folder)
