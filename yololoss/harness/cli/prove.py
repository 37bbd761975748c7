"""``yololoss prove``: try every value, for inputs that have few enough values."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import UsageError

if TYPE_CHECKING:
    from yololoss.harness.findings.finding import Finding
    from yololoss.harness.prove.certificate import Certificate
    from yololoss.harness.prove.proof import Map, Proof

WIDEST = 4096  # columns or rows: more than any grid has


def widths(text: str) -> tuple[int, ...]:
    """Numbers of columns, separated by commas."""
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= WIDEST for part in found):
        raise click.BadParameter(f"{text!r}: expected numbers from 1 to {WIDEST} separated by commas, such as 1,2,80")
    return tuple(map(int, found))


@click.command()
@click.argument("loss", required=False)
@click.option(
    "--part",
    metavar="NAME",
    help="assignment: only every centre; logits: only every logit.  [default: both]",
)
@click.option(
    "--widths",
    type=widths,
    default="1,2,3,5,10,13,20,40,80,160",
    show_default=True,
    metavar="N,N,...",
    help="Grid widths of v5 losses. Each is proven as a number of columns and as a number of rows.",
)
@click.option(
    "--centres",
    type=click.FloatRange(0, 1),
    nargs=2,
    default=(0.0, 1.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Try every float32 centre from LOW to HIGH, both included.",
)
@options.one_device
@options.dialect
@options.long_workers
@click.option(
    "--out",
    type=options.FOLDER,
    default=Path(".yololoss/proof"),
    show_default=True,
    help="The folder of certificates. An interrupted proof continues from there.",
)
@options.findings
@options.as_json
def prove(
    part: str | None,
    widths: tuple[int, ...],
    centres: tuple[float, float],
    workers: int | None,
    out: Path,
    findings: Path,
    as_json: bool,
    **given: str | None,
) -> None:
    """Try every value: each float32 centre of a target in [0, 1], and each 16-bit logit.

    Centres are compared with exact arithmetic, logits with the reference. Each proof writes a certificate, which says
    which values were tried, and on which files. If it was interrupted, the same command continues it, unless the loss,
    a version or the machine has changed.

    \b
    Examples:
      yololoss prove
      yololoss prove utils/loss.py:ComputeLoss --part assignment --widths 20,40,80
      yololoss prove utils/loss.py:ComputeLoss --part logits

    Exit status: 0 every value holds; 1 a value refutes the proof, and is shown and saved; 2 the command could not run.
    """
    from yololoss.harness.engine.judge import Task  # noqa: PLC0415
    from yololoss.harness.prove.proof import working  # noqa: PLC0415

    chosen = options.settings(**given)
    if options.under_test(chosen).compile:
        raise UsageError("--device compile: cannot prove, since every shape is compiled again; name a device")
    task = Task(chosen.loss, chosen.device, chosen.dialect)
    told: list[Certificate] = []
    cannot: dict[str, str] = {}  # part: why it cannot be proven
    with working(task, workers or options.usual_workers(chosen.device)) as work:
        for proof in options.under_test(chosen).family.proofs(task, part=part, widths=widths, centres=centres):
            if proof.claim.part in cannot:  # if one grid cannot be proven, none can
                continue
            certificate, finding = _run(proof, out, work, findings, given, cannot, quiet=as_json)
            if certificate is None:
                continue
            told.append(certificate)
            if not as_json:
                _tell(certificate, finding, out / f"{proof.claim.name}.json")
            if finding is not None:  # one value is enough, and the next proof may take a long time
                break
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in told], indent=1))
    refuted = bool(told) and told[-1].verdict == "refuted"
    if cannot and not refuted:
        raise UsageError("; ".join(cannot.values()))
    sys.exit(options.BROKE if refuted else 0)


def _run(
    proof: "Proof[Any]",
    out: Path,
    work: "Map",
    findings: Path,
    given: dict[str, str | None],
    cannot: dict[str, str],
    *,
    quiet: bool,
) -> "tuple[Certificate | None, Finding | None]":
    """Run or continue a proof, with a progress bar."""
    from yololoss.harness.prove.proof import Unprovable  # noqa: PLC0415

    with options.progress(f"{proof.claim.name}: {proof.count} values", quiet=quiet) as bar:
        task = bar.add_task("", total=len(proof.parts))
        try:
            return proof.run(out, work, findings, given, lambda done: bar.update(task, completed=done))
        except Unprovable as reason:
            part = proof.claim.part
            cannot[part] = f"{proof.task.loss}: {part} cannot be proven: {reason}{proof.hint}"
            return None, None
        except KeyboardInterrupt:
            raise UsageError(f"interrupted; the same command continues from {out / proof.claim.name}.json") from None


def _tell(certificate: "Certificate", finding: "Finding | None", path: Path) -> None:
    if finding is not None:
        options.say(f"{finding}\n")
    style = "bold red" if finding else "bold green"
    claim = certificate.claim
    what = ", ".join(f"{columns} columns with {rows} rows" for rows, columns in claim.grids) or "every logit"
    if finding is None:
        options.say(f"{claim.part}, {what}: {certificate.tried} values hold, {certificate.seconds:.0f} s", style)
    else:
        options.say(f"{claim.part}, {what}: refuted by {certificate.odd}", style)
    options.say(f"  certificate {path}")
