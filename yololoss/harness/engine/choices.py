"""What a choice explains: laws that broke only because the loss contradicts a choice of the named dialect."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.faults import explaining
from yololoss.harness.engine.held import Held
from yololoss.harness.engine.judge import Judge, Task
from yololoss.harness.findings.finding import Finding


def by_choice(findings: Sequence[Finding], held: Held, task: Task) -> tuple[Finding, ...]:
    """The findings, with one for each contradicted choice in place of all that it explains.

    A choice explains a finding if its law holds on its case once the loss is judged by its own choice. If no single
    choice does so, all of them together may. The first law stands for the choice; it comes first.
    """
    ways = {line: text for line, text in held.contradicted.items() if text}
    if len(held.contradicted) > 1:
        ways["; ".join(held.contradicted)] = held.dialect
    chosen, rest = [], list(findings)
    for line, dialect in ways.items():
        with Judge(replace(task, dialect=dialect)) as judge:
            explained = [finding for finding in rest if _holds(judge, finding)]
        rest = [finding for finding in rest if finding not in explained]
        if explained:
            first = explained[0].model_copy(update={"choice": line, "meant": held.meant.get(dialect, "")})
            chosen.append(explaining(first, (law for each in explained for law in each.laws)))
    return (*chosen, *rest)


def _holds(judge: Judge, finding: Finding) -> bool:
    """Whether the loss keeps the law on the finding's case, by the dialect of the judge."""
    (vector,) = read_vectors(Path(finding.path)).vectors
    return judge.ask(vector).told is None
