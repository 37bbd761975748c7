"""``yololoss explain``: why a step of a training run went wrong."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import USAGE, UsageError

RECORDED = "baseline.values"  # the law that the loss returns what was recorded

if TYPE_CHECKING:
    from yololoss.harness.cases.case import Case
    from yololoss.harness.cases.vectors import Vector
    from yololoss.harness.engine.judge import Judge, Told
    from yololoss.harness.laws.exam import Law
    from yololoss.harness.subjects.family import LossUnderTest


@click.command()
@click.argument("file", type=options.FILE)
@options.loss
@options.one_device
@options.dialect
@options.findings
@options.limit
@options.memory
@click.option(
    "--for",
    "seconds",
    type=options.duration,
    default="1m",
    show_default=True,
    metavar="TIME",
    help="How long the case may be minimised.",
)
def explain(
    file: Path, findings: Path, limit: float | None, memory: int | None, seconds: float, **given: str | None
) -> None:
    """Explain why a step of a training run went wrong.

    FILE is a step that `yololoss.watch` saved. The step is judged again by the laws that need one run of the loss, in
    another process, and its case is minimised: a batch of 64 images comes down to the target that did it.

    \b
    Examples:
      yololoss explain .yololoss/steps/20261129-182425-6059-step-41312-value.json --loss utils/loss.py:ComputeLoss

    Exit status: 0 the loss does what it should on this step; 1 it does not; 2 the step cannot be judged.
    """
    from yololoss.harness.cases.vectors import read_vectors  # noqa: PLC0415
    from yololoss.harness.engine.held import found_if_unnamed  # noqa: PLC0415
    from yololoss.harness.engine.judge import MEMORY, Judge, Task, usual_limit  # noqa: PLC0415
    from yololoss.harness.findings.finding import keep  # noqa: PLC0415
    from yololoss.harness.training.watch import INVALID  # noqa: PLC0415

    chosen = options.settings(**given)
    subject = options.under_test(chosen)
    saved = read_vectors(file)
    if len(saved.vectors) != 1:
        raise UsageError(f"{file}: expected one saved step, got {len(saved.vectors)} cases")
    if (own := saved.vectors[0].case.family) != subject.family.name:
        other = f"{chosen.loss} is of the family {subject.family.name}: name the loss by --loss"
        raise UsageError(f"{file}: a step of a loss of the family {own}, and {other}")
    held = found_if_unnamed(chosen, subject)
    if held.looked:
        options.say(held.about[0])
        subject = options.under_test(options.settings(**given | {"dialect": held.dialect}))
    step, family = saved.vectors[0], subject.family
    options.say(step.comment)
    invalid = family.steps.invalid_input(step.case)
    for wrong in invalid:
        options.say(f"{INVALID}{_named(wrong, saved.source)}")
    task = Task(chosen.loss, chosen.device, held.dialect, memory or MEMORY, limit or usual_limit(chosen.device))
    with Judge(task) as judge:
        options.say(_compared(judge, step))
        asked = ((law, _told(judge, step, law.id)) for law in _laws(subject, step, valid=not invalid))
        law, told = next(((law, told) for law, told in asked if told is not None), (None, None))
        case, told = (
            (step.case, told) if law is None else _smallest(judge, subject, law, step, time.monotonic() + seconds)
        )
    if law is None or told is None:
        options.say("no law is broken: the input is invalid" if invalid else "no law is broken on this step")
    else:
        options.say(
            _named(f"it comes from {family.steps.kept_of(case, step.case) or 'no target'} of the step", saved.source)
        )
        options.say(str(keep(told.broken(law, case), subject, findings, given)))
    for n, cause in enumerate(family.steps.usual_causes(law.id if law else "", step.case)):
        options.say(f"{'' if n else 'usual causes':12}  {n + 1}. {cause}")
    sys.exit(options.BROKE if law is not None else USAGE if invalid else 0)


def _named(text: str, source: dict[str, str]) -> str:
    """The text with the names of images, as far as the trainer gave them."""
    return re.sub(r"image \d+", lambda found: " ".join((found[0], *filter(None, [source.get(found[0])]))), text)


def _told(judge: "Judge", step: "Vector[Any, Any]", law: str) -> "Told | None":
    return judge.ask(step.model_copy(update={"law": law})).told


def _compared(judge: "Judge", step: "Vector[Any, Any]") -> str:
    """What the loss returns now, compared with what it returned in the run; "" where that cannot be compared."""
    answer = judge.ask(step.model_copy(update={"law": RECORDED})) if step.expected is not None else None
    if answer is None or answer.nothing is not None:
        return ""
    told = answer.told
    if told is None:
        return "run again here, the loss returns what it did in the run"
    other = "; was that loss built with other arguments, such as checks=False?" if "raised in" in told.observed else ""
    return f"run again here, {told.what} is {told.observed}, and in the run it was {told.expected}{other}"


def _smallest(
    judge: "Judge", subject: "LossUnderTest", law: "Law", step: "Vector[Any, Any]", until: float
) -> "tuple[Case, Told | None]":
    """The case with as little in it as possible on which the law breaks, and how."""
    from yololoss.harness.cases.vectors import make_vector  # noqa: PLC0415
    from yololoss.harness.engine.minimise import smallest_case  # noqa: PLC0415

    def told(case: "Case") -> "Told | None":
        return _told(judge, make_vector(case, id="step"), law.id)

    case = smallest_case(step.case, subject.family.steps.smaller, lambda case: told(case) is not None, until)
    return case, told(case)


def _laws(subject: "LossUnderTest", step: "Vector[Any, Any]", *, valid: bool) -> Iterator["Law"]:
    """The law that the step is saved under, then all others about it that need one run, in their order.

    Of invalid input only the first, and not if the loss raised: it may refuse that.
    """
    from yololoss.harness.engine.plan import Plan  # noqa: PLC0415
    from yololoss.harness.training.watch import ERROR, LAWS  # noqa: PLC0415

    plan = Plan((), subject)
    if step.case.invalid is None and step.law in plan.laws and (valid or step.law != LAWS[ERROR]):
        yield plan.laws[step.law]
    for id, law in plan.laws.items() if valid else ():
        if id != step.law and not law.again and plan.holds_for(law, step.case):
            yield law
