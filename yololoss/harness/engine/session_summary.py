"""The results of a session: a verdict like that of a check, and a line of progress."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yololoss.harness.cases.case import Data
from yololoss.harness.cases.files import write_whole
from yololoss.harness.engine.faults import grouped, with_explained
from yololoss.harness.engine.residual import Risk
from yololoss.harness.engine.session import Session
from yololoss.harness.findings.about import About
from yololoss.harness.findings.verdict import Verdict, explained, settled
from yololoss.harness.laws.law import find_laws

RAISED = "run.no-exception"


class Summary(Data):
    """The results at the end of a session."""

    verdict: Verdict
    seed: int
    seconds: float
    processor: float  # seconds of processor time that the workers used
    cases: int
    judgements: int
    restarts: int  # workers that died, or were killed
    seen: dict[str, int]  # how often each finding was seen, by the path of its case
    unexplained: int  # processes that were killed from outside
    regions: dict[str, int]  # cases in each region
    risk: Risk | None  # how likely the next case shows a new kind of finding


def summarise(session: Session, about: About) -> Summary:
    """The summary of a session, as it is now."""
    counts = session.counts()
    named, kinds = counts.named, counts.kinds
    seen: Counter[str] = Counter()
    for kind, finding in session.findings.items():
        seen[finding.path] += max(kinds[kind], 1)
    return Summary(
        verdict=explained(settled(verdict_of(session, about=about))),
        seed=session.settings.seed,
        seconds=session.used,
        processor=named["milliseconds"] / 1000,
        cases=named["cases"],
        judgements=judgements(named),
        restarts=session.state.restarts,
        seen=dict(seen),
        unexplained=session.state.unexplained,
        regions={name: named[f"region {name}"] for name in session.plan.regions},
        risk=session.risk(),
    )


def verdict_of(session: Session, **more: Any) -> Verdict:
    """The rows of the session's laws, and its faults in the order of their laws. Its status is still open.

    Where most cases raise, exceptions come first: another law may break by chance, on the few that do not.
    """
    order = list(find_laws(session.subject.family))
    findings = sorted(session.findings.values(), key=lambda finding: order.index(finding.law))
    rows = tuple(_rows(session))
    records = session.records.values()
    instead = {each.explained: each.finding.law for each in records if each.explained and each.finding is not None}
    faults = with_explained(grouped(findings, session.settings, session.plan), rows, instead)
    if _raises_mostly(session.counts().named):
        faults = tuple(sorted(faults, key=lambda fault: fault.law != RAISED))
    return Verdict(status=0, seconds=session.used, laws=rows, faults=faults, stopped=session.stopped, **more)


def _raises_mostly(named: Counter[str]) -> bool:
    return named[f"broke {RAISED}"] > named[f"judged {RAISED}"]


def _rows(session: Session) -> Iterator[dict[str, Any]]:
    named = session.counts().named
    found = {finding.law for finding in session.findings.values()}
    for id, told in session.told().items():
        causes = told.pop("explained")
        counts = {"tried": named[f"tried {id}"], "judged": named[f"judged {id}"]}
        why = None
        if id in found or (id in session.settings.waived and named[f"broke {id}"] > 0):
            word = "BROKE"
        elif causes:
            word, why = "explained", causes.most_common(1)[0][0]
        elif counts["judged"] or told["notes"]:
            word = "held"
        else:
            word, why = "not applicable", None if counts["tried"] else "no case was about it"
        yield {"id": id, "word": word, "why": why, **counts, **told}


def judgements(named: Counter[str]) -> int:
    """How often any law was tried."""
    return sum(count for name, count in named.items() if name.startswith("tried "))


def line(session: Session) -> str:
    """Progress in one line."""
    named = session.counts().named
    used = max(session.used, 1e-9)
    reached = sum(named[f"region {name}"] > 0 for name in session.plan.regions)
    waiting = len(list((session.folder / "raw").glob("*.json")))
    parts = [
        f"{named['cases']} cases, {named['cases'] / used:.0f}/s",
        f"{judgements(named) / used:.0f} judgements/s by {len(session.plan.laws)} laws",
        f"{len(session.findings)} findings" + (f" and {waiting} to be minimised" if waiting else ""),
        *([f"{reached} of {len(session.plan.regions)} regions reached"] if session.plan.regions else []),
        f"{session.state.restarts} restarts",
    ]
    if session.settings.seconds is not None:
        parts.append(f"{clock(max(session.settings.seconds - used, 0))} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as hours, minutes, seconds."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def write_summary(summary: Summary, folder: Path) -> None:
    """Write the summary as JSON, and as an HTML page."""
    from yololoss.harness.findings.report import write_report  # noqa: PLC0415

    write_whole(folder / "summary.json", summary.model_dump_json(indent=1))
    assert summary.verdict.about is not None
    write_report(summary.verdict, summary.verdict.about, folder / "report.html")
