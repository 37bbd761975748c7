"""``yololoss explain``: why a step of a training run went wrong."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yololoss.harness.cli import options
from yololoss.harness.errors import USAGE, UsageError

if TYPE_CHECKING:
    from yololoss.harness.cases.case import Case
    from yololoss.harness.cases.vectors import Vector
    from yololoss.harness.engine.judge import Task
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
    from yololoss.harness.engine.judge import MEMORY, Task, usual_limit  # noqa: PLC0415

    chosen = options.settings(**given)
    subject = options.under_test(chosen)
    vectors = read_vectors(file).vectors
    if len(vectors) != 1 or vectors[0].case.family != subject.family.name:
        raise UsageError(f"{file}: expected one saved step of a loss of the family {subject.family.name}")
    held = found_if_unnamed(chosen, subject)
    if held.looked:
        options.say(held.about[0])
        chosen = options.settings(**given | {"dialect": held.dialect})
        subject = options.under_test(chosen)
    step, family = vectors[0], subject.family
    options.say(step.comment)
    invalid = family.invalid_input(step.case)
    for wrong in invalid:
        options.say(f"  invalid: {wrong}")
    task = Task(chosen.loss, chosen.device, held.dialect, memory or MEMORY, limit or usual_limit(chosen.device))
    laws = _laws(subject, step, valid=not invalid)
    broken = _break(task, subject, step, laws, seconds, findings, given)
    if broken is None:
        options.say("no law is broken: the input is invalid" if invalid else "no law is broken on this step")
    for n, cause in enumerate(family.usual_causes(broken or "", step.case)):
        options.say(f"{'' if n else 'usual causes':12}  {n + 1}. {cause}")
    sys.exit(options.BROKE if broken is not None else USAGE if invalid else 0)


def _break(
    task: "Task",
    subject: "LossUnderTest",
    step: "Vector[Any, Any]",
    laws: Iterator["Law"],
    seconds: float,
    folder: Path,
    given: dict[str, str | None],
) -> str | None:
    """The first law that breaks on the step, shown on the case with as little in it as possible; None if all hold."""
    from yololoss.harness.cases.vectors import make_vector  # noqa: PLC0415
    from yololoss.harness.engine.judge import Judge  # noqa: PLC0415
    from yololoss.harness.engine.minimise import smallest_case  # noqa: PLC0415
    from yololoss.harness.findings.finding import keep  # noqa: PLC0415

    with Judge(task) as judge:
        asked = ((law, judge.ask(step.model_copy(update={"law": law.id})).told) for law in laws)
        law, told = next(((law, told) for law, told in asked if told is not None), (None, None))
        if law is None or told is None:
            return None
        broken = {step.case: told}

        def breaks(case: "Case") -> bool:
            found = judge.ask(make_vector(case, id="step", law=law.id)).told
            broken.update({case: found} if found is not None else {})
            return found is not None

        case = smallest_case(step.case, subject.family.smaller, breaks, time.monotonic() + seconds)
    kept = subject.family.kept_of(case, step.case)
    if kept:
        options.say(f"it comes from {kept} of the step")
    options.say(str(keep(broken[case].broken(law, case), subject, folder, given)))
    return law.id


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
