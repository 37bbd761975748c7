"""Which findings are one fault: each fault is shown once, with the laws that broke for the same reason."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from yololoss.harness.cases.vectors import Vector, make_vector, read_vectors
from yololoss.harness.engine.judge import Judge, Task, Told
from yololoss.harness.engine.plan import Plan
from yololoss.harness.findings.finding import Finding
from yololoss.harness.laws.law import find_laws

# A law that follows another one is judged on so many cases. Both are one fault if at least so many of those that break
# it, and this share, break the other one too. Of a wrong gradient with a wrong value 0.73 and more did, of two faults
# that have nothing to do with each other half and less.
SAMPLE, SEEN, MOST = 100, 3, 0.6


def groups(again: Sequence[bool], same: Callable[[int, int], bool]) -> list[list[int]]:
    """Which of some findings, in the order of their laws, are one fault: lists of their indices.

    ``again``: for each, whether its law breaks in the same way when the case is judged once more. Those of which it
    does not are one fault: the loss is random, or keeps state for all its objects. ``same(first, later)``: whether two
    others are one, both as indices.
    """
    found: list[list[int]] = []
    for n in range(len(again)):
        for group in found:
            first = group[0]
            if again[n] == again[first] and (not again[n] or same(first, n)):
                group.append(n)
                break
        else:
            found.append([n])
    return found


class _Grouping:
    """Which findings of a session are one fault."""

    def __init__(self, findings: Sequence[Finding], plan: Plan, judge: Judge) -> None:
        self.laws = [finding.law for finding in findings]
        self._findings, self._plan, self._judge = findings, plan, judge
        self._vectors = [read_vectors(Path(finding.path)).vectors[0] for finding in findings]

    def again(self, n: int) -> bool:
        """Whether a finding's law breaks in the same way when its case is judged once more."""
        if self._findings[n].repeats:
            return True
        once_more = self._told(self.laws[n], self._vectors[n])  # another result may still break the law in the same way
        return once_more is not None and once_more.observed == self._findings[n].observed

    def same(self, first: int, later: int) -> bool:
        """Whether two findings are one fault.

        Both cases need the same setting, or the later law is only about cases with a setting that the first case needs.
        Otherwise two of one law are not: it tells them apart. Where the later law follows the first
        (`Family.follows`), they are if both mostly break together. Or they are about the same part of the loss, and the
        case of the first breaks the law of the later one too: a fault of another part would have been explained, or it
        breaks that law for a reason of its own, as does a law about one run that explains none about two. Or the later
        law assumes that the first holds at all (`Family.of_right_values`), or holds where faults of the first have no
        effect (`Family.half_seen`).
        """
        if not self._needed(first).isdisjoint(self._needed(later) | self._only_with(later)):
            return True
        if self.laws[first] == self.laws[later]:
            return False
        family = self._plan.subject.family
        if family.follows.get(self.laws[later]) == self.laws[first]:
            return self._together(first, later)
        part, other = (self.laws[n].partition(".")[0] for n in (first, later))
        before = [law.id for law in self._plan.explaining(self.laws[later])]
        can = self.laws[first] in before or find_laws(family)[self.laws[first]].again
        if part == other and can and self._told(self.laws[later], self._vectors[first]) is not None:
            return True
        if part in family.half_seen and self._holds_without(first, later):
            return True
        return self.laws[later] in family.of_right_values and self.laws[first] in before

    def _holds_without(self, first: int, later: int) -> bool:
        """Whether the later law holds on its case if faults of the first have no effect there."""
        law, vector = self._plan.laws.get(self.laws[later]), self._vectors[later]
        case = None if law is None else self._plan.without([self.laws[first]], law, vector.case)
        return case is not None and self._told(self.laws[later], make_vector(case, id="without")) is None

    def _told(self, law: str, vector: Vector[Any, Any]) -> Told | None:
        return self._judge.ask(vector.model_copy(update={"law": law})).told

    @cache  # noqa: B019  # a grouping ends with its session
    def _needed(self, n: int) -> frozenset[str]:
        """The settings without which the law holds on the finding's case, or breaks for an earlier one.

        Not the number of calls: what is seen in a second call alone may be anything that is kept.
        """
        law, vector = self.laws[n], self._vectors[n]
        simpler = self._plan.simpler(law, vector.case) if law in self._plan.laws else {}
        simpler.pop("calls", None)
        found = set()
        for name, case in simpler.items():
            told = self._told(law, make_vector(case, id="simpler"))
            if told is None or (told.explained and not self._explained(n)):
                found.add(name)
            elif told.died:  # the others would too, each after its whole time limit
                break
        return frozenset(found)

    def _only_with(self, n: int) -> set[str]:
        """The settings of the finding's case without which its law is not about it."""
        law, case = self._plan.laws.get(self.laws[n]), self._vectors[n].case
        if law is None or not self._plan.holds_for(law, case):
            return set()
        return set(case.simpler).difference(self._plan.simpler(law.id, case))

    @cache  # noqa: B019  # as above
    def _explained(self, n: int) -> bool:
        """Whether an earlier law explains that the law breaks on the finding's case."""
        told = self._told(self.laws[n], self._vectors[n])
        return told is not None and bool(told.explained)

    def _together(self, first: int, later: int) -> bool:
        """Whether the first law breaks as well on most of the cases that break the later one.

        Of those that no other law explains: there a fault of an earlier part may break the later law alone.
        """
        both = alone = 0
        for number in range(SAMPLE):
            origin = self._plan.usual(number)
            if all(self._plan.about(self.laws[n], origin) for n in (first, later)):
                vector = make_vector(self._plan.case(origin), id="sample", law=self.laws[later])
                told = self._told(self.laws[later], vector)
                if told is not None and told.explained in ("", self.laws[first]):
                    breaks = self._told(self.laws[first], vector) is not None
                    both, alone = both + breaks, alone + (not breaks)
        return both >= SEEN and both >= MOST * (both + alone)


def grouped(findings: Sequence[Finding], task: Task, plan: Plan) -> tuple[Finding, ...]:
    """One finding for each fault, in the order of their laws: the earliest law stands for it."""
    with Judge(task) as judge:
        by = _Grouping(findings, plan, judge)
        found = groups([by.again(n) for n in range(len(findings))], by.same)
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
