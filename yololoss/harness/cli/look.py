"""``yololoss draw``, ``yololoss laws`` and ``yololoss dialects``: show a case, the laws, and what a loss may choose."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import UsageError, closest, short

if TYPE_CHECKING:
    from yololoss.harness.laws.exam import Law
    from yololoss.harness.subjects.family import Family


@click.command()
@click.argument("file", metavar="CASE", type=options.FILE)
@click.option("--id", "name", help="Which vector of the file, if it has several.")
@click.option("--loss", metavar="LOSS", help="Mark where this loss differs from what is expected.")
@options.one_device
@click.option(
    "-o", "--output", type=options.FILE, help="The picture: .png, .svg or .pdf.  [default: the case's id with .png]"
)
def draw(file: Path, name: str | None, loss: str | None, device: str | None, output: Path | None) -> None:
    """Draw a case: each layer's grid, the targets, the anchors that they match, and the cells assigned to them.

    A number in a cell counts the rows that share it. With --loss, cells are marked where that loss builds other rows
    than expected, or has another gradient.

    \b
    Examples:
      yololoss draw .yololoss/findings/assign.rows-476c810e.json --loss utils/loss.py:ComputeLoss
      yololoss draw loss-baseline.json --id shared-cells -o shared-cells.svg
    """
    from yololoss.harness.cases.vectors import read_vectors  # noqa: PLC0415
    from yololoss.harness.findings.draw import LARGEST, SUFFIXES, draw  # noqa: PLC0415
    from yololoss.harness.subjects.execute import execute  # noqa: PLC0415

    vectors = {vector.id: vector for vector in read_vectors(file).vectors}
    if name is None and len(vectors) == 1:
        name = next(iter(vectors))
    if name is None:
        raise UsageError(f"{file}: has {len(vectors)} vectors; choose one with --id: {short(', '.join(vectors))}")
    if name not in vectors:
        raise UsageError(f"{file}: --id {name}: no such vector{closest(name, vectors)}")
    path = output or Path(f"{name}.png")
    if path.suffix not in SUFFIXES:
        raise UsageError(f"-o {path}: expected a name that ends in {', '.join(SUFFIXES)}")
    case = vectors[name].case
    if loss is not None and case.numbers > LARGEST:
        raise UsageError(f"{file}: {case.numbers} logits; --loss takes {LARGEST} at most, without it the case is drawn")
    subject = None if loss is None else options.under_test(options.settings(loss=loss, device=device))
    outcome = None if subject is None else execute(subject, case)
    title = f"{vectors[name].law}: {vectors[name].comment}" if vectors[name].law else name
    draw(case, path, short(title), outcome, subject and subject.dialect)
    options.say(str(path))


@click.command()
@click.argument("id", required=False)
@options.loss
@options.as_json
def laws(id: str | None, loss: str | None, as_json: bool) -> None:
    """List the laws of the loss's family. With ID, show one law: statement, source, scope and an example.

    ID may be a pattern, as in check --laws: assign, 'totals.*-gain'.

    \b
    Examples:
      yololoss laws
      yololoss laws gradients.finite
    """
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    subject = options.under_test(options.settings(loss=loss))
    found = find_laws(subject.family, [id] if id else [])
    told = [_told(law, subject.family) for law in found.values()]
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    width = max(len(law["id"]) for law in told)
    for law in told:
        if id in found:
            options.say(law["id"], "bold")
            rows = ("statement", "source", "dialects", "devices", "cases")
            options.say("\n".join(f"  {name:<10} {law[name]}" for name in rows))
            options.say("\n".join(("  example", *(f"    {line}" for line in _example(found[str(id)], subject.family)))))
        else:
            options.say(f"{law['id']:<{width}}  {law['statement']}")


@click.command()
@click.argument("loss", required=False)
@options.dialect
@options.as_json
def dialects(loss: str | None, dialect: str | None, as_json: bool) -> None:
    """List the known dialects, and every choice with its options; or find out the dialect of LOSS.

    With --dialect, LOSS is held to that dialect: only what it contradicts is listed.

    \b
    Examples:
      yololoss dialects
      yololoss dialects utils/loss.py:ComputeLoss
      yololoss dialects utils/loss.py:ComputeLoss --dialect yolov5-6.1

    Exit status: 0; 1 if the loss contradicts the named dialect.
    """
    from yololoss._suite import FAMILIES  # noqa: PLC0415
    from yololoss.harness.engine.held import held_to  # noqa: PLC0415
    from yololoss.harness.subjects.family import find_family  # noqa: PLC0415

    chosen = options.settings(loss=loss, dialect=dialect)
    subject = options.under_test(chosen)
    if loss is not None:
        held = held_to(chosen, subject)
        if as_json:
            click.echo(json.dumps(asdict(held), indent=1))
        else:
            options.say("\n".join(held.contradicted or held.about) or f"dialect: {held.dialect}, as named")
        sys.exit(options.BROKE if held.contradicted else 0)
    names = dict.fromkeys((*FAMILIES, subject.family.name))  # that of the settings' loss may be a user's own
    listed = {name: _dialects(find_family(name)) for name in names}
    if as_json:
        click.echo(json.dumps(listed, indent=1))
        return
    for name, family in listed.items():
        options.say(f"family {name}: dialects, and what each chooses other than {family['usual']}", "bold")
        known, choices = family["dialects"].items(), family["choices"].items()
        options.say("\n".join(f"  {dialect:<20} {', '.join(changes) or 'nothing'}" for dialect, changes in known))
        options.say("choices, and their options", "bold")
        options.say("\n".join(f"  {choice:<20} {of['options']}\n  {'':<20} {of['about']}" for choice, of in choices))


def _dialects(family: "Family") -> dict[str, Any]:
    from yololoss.harness.subjects.dialect import differences, options_of  # noqa: PLC0415

    usual = family.dialects[family.usual_dialect]
    return {
        "usual": family.usual_dialect,
        "dialects": {name: differences(dialect, usual) for name, dialect in family.dialects.items()},
        "choices": {
            name: {"options": options_of(field.annotation), "usual": getattr(usual, name), "about": field.description}
            for name, field in type(usual).model_fields.items()
        },
    }


def _told(law: "Law", family: "Family") -> dict[str, Any]:
    only = ", ".join(f"{choice} = {' or '.join(law.options(choice))}" for choice in law.only)
    return {
        "id": law.id,
        "statement": law.statement,
        "source": law.source,
        "dialects": f"those with {only}" if only else "all",
        "devices": ", ".join(law.on) or "all",
        "cases": _cases(law, family),
    }


def _cases(law: "Law", family: "Family") -> str:
    if law.cases is None:
        return "those of --baseline"
    if fixed := law.fixed(family):
        return f"{len(fixed)} of its own"
    return "a share of those that it is about, since it runs the loss again" if law.again else "all that it is about"


def _example(law: "Law", family: "Family") -> list[str]:
    """A case that the law judges on the bundled loss, as lines of text."""
    import torch  # noqa: PLC0415

    from yololoss.harness.laws.exam import Exam, NotApplicable, Run  # noqa: PLC0415
    from yololoss.harness.laws.law import drawn  # noqa: PLC0415
    from yololoss.harness.subjects.load import load_loss  # noqa: PLC0415

    strategy = law.strategy(family)
    made = list(law.fixed(family)) if strategy is None else drawn(strategy, 30)
    if not made:
        return ["any case written by yololoss record"]
    cases = sorted(made, key=lambda case: (not case.size[0], len(str(case)), str(case)))
    for case in cases if not law.on else ():
        exam = Exam(law, Run(load_loss(family.bundled, torch.device("cpu"), family.own_dialect), case))
        try:
            law.judge(exam)
        except NotApplicable:
            continue
        if exam.judged:
            return str(case).splitlines()
    return str(cases[0]).splitlines()
