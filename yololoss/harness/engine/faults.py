"""Which findings are one fault: each fault is shown once, with the laws that broke for the same reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.judge import Judge, Task, Told
from yololoss.harness.findings.finding import Finding


def groups(laws: Sequence[str], again: Sequence[bool], breaks: Callable[[int, int], bool]) -> list[list[int]]:
    """Which of some findings are one fault: lists of their indices. ``laws`` are their laws, in order.

    ``again``: whether the law breaks in the same way when the case is judged once more. Findings of which it does not
    are one fault: the loss is random, or keeps state for all its objects. Two others are one fault if their laws are
    about the same part of the loss, and the case of the earlier one breaks the later law too: ``breaks(law, case)``,
    both as indices. A fault of another part would have been explained, or it breaks that law for a reason of its own.
    """
    found: list[list[int]] = []
    for n, law in enumerate(laws):
        part = law.partition(".")[0]
        for group in found:
            first = group[0]
            rival = again[n] and again[first] and laws[first].partition(".")[0] == part and laws[first] != law
            if not (again[n] or again[first]) or (rival and breaks(n, first)):
                group.append(n)
                break
        else:
            found.append([n])
    return found


def grouped(findings: Sequence[Finding], task: Task) -> tuple[Finding, ...]:
    """One finding for each fault, in the order of their laws: the earliest law stands for it."""
    with Judge(task) as judge:

        def told(law: int, case: int) -> Told | None:
            (vector,) = read_vectors(Path(findings[case].path)).vectors
            return judge.ask(vector.model_copy(update={"law": findings[law].law})).told

        def again(n: int) -> bool:
            if findings[n].repeats:
                return True
            once_more = told(n, n)  # another result may still break the law in the same way
            return once_more is not None and once_more.observed == findings[n].observed

        laws = [finding.law for finding in findings]
        found = groups(laws, [*map(again, range(len(laws)))], lambda law, case: told(law, case) is not None)
    return tuple(explaining(findings[first], (findings[n].law for n in others)) for first, *others in found)


def behind(law: str, causes: Mapping[str, Iterable[str]]) -> set[str]:
    """The law, the laws that explained it, those that explained these, and so on."""
    found, new = {law}, [law]
    while new:
        more = [each for each in causes.get(new.pop(), ()) if each not in found]
        found.update(more)
        new += more
    return found


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
    shown: dict[str, int] = {}  # by law: the index of its first finding
    for n, each in enumerate(found):
        for law in each.laws:
            shown.setdefault(law, n)
    for law, cause in why.items():
        root = cause
        while root not in shown and root in why:  # it was explained itself, by an earlier law
            root = why[root]
        shown.setdefault(law, shown.get(root, -1))
    return tuple(explaining(each, (law for law, at in shown.items() if at == n)) for n, each in enumerate(found))
