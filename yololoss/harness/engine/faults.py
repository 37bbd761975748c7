"""Which findings are one fault: each fault is shown once, with the laws that broke for the same reason."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.judge import Judge, Task
from yololoss.harness.findings.finding import Finding


def grouped(findings: Sequence[Finding], task: Task) -> tuple[Finding, ...]:
    """One finding for each fault, in the order of their laws: the earliest law stands for it.

    Two findings are one fault if their laws are about the same part of the loss, and the case of the earlier law breaks
    the later law too. A fault of another part would have been explained, or breaks that law for a reason of its own.
    """
    heads: list[Finding] = []
    with Judge(task) as judge:
        for finding in findings:
            about = finding.law.partition(".")[0]
            rivals = [head for head in heads if head.law.partition(".")[0] == about and head.law != finding.law]
            same = next((head for head in rivals if _breaks(judge, finding.law, head)), None)
            if same is None:
                heads.append(finding)
            else:
                heads[heads.index(same)] = explaining(same, (finding.law,))
    return tuple(heads)


def _breaks(judge: Judge, law: str, finding: Finding) -> bool:
    (vector,) = read_vectors(Path(finding.path)).vectors
    return judge.ask(vector.model_copy(update={"law": law})).told is not None


def explaining(finding: Finding, laws: Iterable[str]) -> Finding:
    """The finding, which also explains these laws."""
    more = dict.fromkeys((*finding.explains, *laws))
    more.pop(finding.law, None)
    return finding.model_copy(update={"explains": tuple(more)})


def with_explained(
    found: Sequence[Finding], rows: Iterable[dict[str, Any]], other: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The faults with the laws that broke only where their own laws did.

    ``rows``: those of the laws; an explained one says by which law. ``other``: for an explaining law without a
    finding, the law of the finding that stands for it.
    """
    why = {row["id"]: other.get(row["why"], row["why"]) for row in rows if row["word"] == "explained"}
    shown = {law: each.law for each in found for law in (each.law, *each.explains)}
    for law, cause in why.items():
        root = cause
        while root not in shown and root in why:  # it was explained itself, by an earlier law
            root = why[root]
        shown.setdefault(law, shown.get(root, ""))
    return tuple(explaining(each, (law for law, head in shown.items() if head == each.law)) for each in found)
