"""Which findings are one fault: each fault is shown once, with the laws that broke for the same reason."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.engine.judge import Judge, Task
from yololoss.harness.engine.plan import Origin, Plan
from yololoss.harness.engine.raw import origin
from yololoss.harness.findings.finding import Finding
from yololoss.harness.laws.law import SEED

# So many cases are made that have each byte of a finding's case with this chance: on some, its law holds.
CASES, ALIKE = 24, 0.8
LEAST = 3  # cases of a kind, to compare shares
# A law that breaks for another's reason breaks nearly always where that one does, and seldom elsewhere. One that breaks
# for a reason of its own breaks as often in both.
MORE_OFTEN = 0.5


def groups(laws: Sequence[str], again: Sequence[bool], same: Callable[[int, int], bool]) -> list[list[int]]:
    """Which of some findings are one fault: lists of their indices. ``laws`` are their laws, in order.

    ``again``: whether the law breaks in the same way when the case is judged once more. Findings of which it does not
    are one fault: the loss is random, or keeps state for all its objects. Two others are one fault if their laws are
    about the same part of the loss, and are the ``same(earlier, later)``. A fault of another part would have been
    explained, or it breaks that law for a reason of its own.
    """
    found: list[list[int]] = []
    for n, law in enumerate(laws):
        part = law.partition(".")[0]
        for group in found:
            first = group[0]
            rival = again[n] and again[first] and laws[first].partition(".")[0] == part and laws[first] != law
            if not (again[n] or again[first]) or (rival and same(first, n)):
                group.append(n)
                break
        else:
            found.append([n])
    return found


def break_together(earlier: Sequence[bool], later: Sequence[bool]) -> bool:
    """Whether a law breaks where an earlier one does, and seldom elsewhere: on the earlier one's case, and others.

    Both are told for each case. If the earlier law breaks on all of them, its own case, the first, decides.
    """
    where = [b for a, b in zip(earlier, later, strict=True) if a]
    elsewhere = [b for a, b in zip(earlier, later, strict=True) if not a]
    if len(elsewhere) < LEAST or len(where) < LEAST:
        return earlier[0] and later[0]
    return sum(where) / len(where) - sum(elsewhere) / len(elsewhere) >= MORE_OFTEN


def grouped(findings: Sequence[Finding], task: Task, plan: Plan, made: Mapping[str, str]) -> tuple[Finding, ...]:
    """One finding for each fault, in the order of their laws: the earliest law stands for it.

    ``made``: what the cases were made from, by path; one without is judged alone, without cases like it.
    """
    with Judge(task) as judge:

        @cache
        def broken(law: str, path: str) -> list[bool]:
            (vector,) = read_vectors(Path(path)).vectors
            cases = [vector.case, *_like_it(origin(made.get(path, "")), plan)]
            ask = (judge.ask(vector.model_copy(update={"case": case, "law": law})) for case in cases)
            return [answer.told is not None for answer in ask]

        def same(earlier: int, later: int) -> bool:
            one, two = findings[earlier], findings[later]
            return break_together(broken(one.law, one.path), broken(two.law, one.path))

        def again(finding: Finding) -> bool:
            (vector,) = read_vectors(Path(finding.path)).vectors
            told = None if finding.repeats else judge.ask(vector.model_copy(update={"law": finding.law})).told
            return finding.repeats or (told is not None and told.observed == finding.observed)

        found = groups([each.law for each in findings], [*map(again, findings)], same)
    return tuple(explaining(findings[first], (findings[n].law for n in others)) for first, *others in found)


def _like_it(made_from: Origin | None, plan: Plan) -> Iterator[Case]:
    """Cases that are partly like the one made from this."""
    for n in range(CASES if made_from is not None else 0):
        assert made_from is not None
        chance = np.random.default_rng((SEED, n))
        data = np.frombuffer(made_from.data, np.uint8)
        mixed = np.where(chance.random(len(data)) < ALIKE, data, chance.integers(256, size=len(data), dtype=np.uint8))
        yield plan.case(made_from._replace(data=mixed.tobytes()))


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
        for law in (each.law, *each.explains):
            shown.setdefault(law, n)
    for law, cause in why.items():
        root = cause
        while root not in shown and root in why:  # it was explained itself, by an earlier law
            root = why[root]
        shown.setdefault(law, shown.get(root, -1))
    return tuple(explaining(each, (law for law, at in shown.items() if at == n)) for n, each in enumerate(found))
