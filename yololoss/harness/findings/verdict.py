"""A verdict: the result of a run, as data."""

from typing import Any

from yololoss.harness.cases.case import Data
from yololoss.harness.errors import USAGE
from yololoss.harness.findings.about import About
from yololoss.harness.findings.finding import Finding
from yololoss.harness.findings.rows import NOTHING, nothing_judged


class Verdict(Data):
    """The result of a run. ``laws`` has one row for each law and device, in the order in which they were judged."""

    status: int  # 0: no law broke, 1: one did, 2: the harness could not run
    problem: str | None = None  # why it could not run
    seconds: float = 0.0
    laws: tuple[dict[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()
    failures: tuple[str, ...] = ()  # failures of the run itself: a waiver that is not needed, an error of the harness
    absent: tuple[str, ...] = ()  # devices of auto that are not available, and why
    about: About | None = None


def settled(verdict: Verdict) -> Verdict:
    """The verdict with its status, and with a problem if no law had anything to judge."""
    broke = bool(verdict.findings or verdict.failures)
    nothing = not broke and nothing_judged(verdict.laws)
    problem = verdict.problem or (NOTHING if nothing else None)
    return verdict.model_copy(update={"status": USAGE if problem else int(broke), "problem": problem})


def headline(verdict: Verdict) -> str:
    """The verdict in a few words."""
    choices = len({f.choice for f in verdict.findings if f.choice})
    broken = len({f.law for f in verdict.findings if not f.choice})
    if verdict.problem:
        return "The loss could not be judged"
    if choices or broken:
        laws = f"{broken} {'law' if broken == 1 else 'laws'} broke"
        other = f"{choices} {'choice' if choices == 1 else 'choices'} of the dialect contradicted"
        return ", ".join([other] * (choices > 0) + [laws] * (broken > 0))
    if verdict.failures:
        return "The run failed"
    held = sum(row["word"] == "held" for row in verdict.laws)
    other = len(verdict.laws) - held
    return f"{held} laws hold" + (f", {other} were waived or did not apply" if other else "")
