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
    faults: tuple[Finding, ...] = ()  # a finding for each, in the order of their laws
    failures: tuple[str, ...] = ()  # failures of the run itself: a waiver that is not needed, an error of the harness
    absent: tuple[str, ...] = ()  # devices of auto that are not available, and why
    stopped: str = ""  # why not all cases were judged
    about: About | None = None


def settled(verdict: Verdict) -> Verdict:
    """The verdict with its status, and with a problem if no law had anything to judge."""
    broke = bool(verdict.faults or verdict.failures)
    nothing = not broke and nothing_judged(verdict.laws)
    problem = verdict.problem or (NOTHING if nothing else None)
    return verdict.model_copy(update={"status": USAGE if problem else int(broke), "problem": problem})


def explained(verdict: Verdict) -> Verdict:
    """The verdict whose rows say, of each law that a fault explains, which law shows that fault."""
    shown = {fault.law for fault in verdict.faults}
    why = {law: fault.law for fault in verdict.faults for law in fault.explains if law not in shown}
    rows = ({**row, "word": "explained", "why": why[row["id"]]} if row["id"] in why else row for row in verdict.laws)
    return verdict.model_copy(update={"laws": tuple(rows)})


def headline(verdict: Verdict) -> str:
    """The verdict in a few words."""
    faults, laws = len(verdict.faults), len({law for each in verdict.faults for law in each.laws})
    if verdict.problem:
        return "The loss could not be judged"
    if faults:
        return f"{_counted(faults, 'fault')} ({_counted(laws, 'law')} broke)"
    if verdict.failures:
        return "The run failed"
    held = sum(row["word"] == "held" for row in verdict.laws)
    other = len(verdict.laws) - held
    return f"{held or 'no'} laws hold" + (f", {other} were waived or did not apply" if other else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
