"""What a session judges: which laws on which cases, and the sequence in which cases are made."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.domain import Domain, domains
from yololoss.harness.laws.exam import Law, Tally
from yololoss.harness.laws.law import SEED, find_laws
from yololoss.harness.subjects.family import LossUnderTest

# A law that runs the loss again costs as much as all laws together that read one run. The latter judge every case that
# they are about. Of the former, so many judge a case on average: then they take a third of a gate's time, and each has
# the cases that it needs. A session without an end gives them less: there they have cases enough after a minute.
AGAIN, AGAIN_FOR_LONG = 0.75, 0.25
# How many kinds of finding have a counter in the journal. A later kind has none, and counts as seen once.
KINDS = 512
# A case that is a law's own takes up to a second. So many made ones come first: most faults break a law on one of them.
OWN, EARLY = "own", 64
ON_DEVICE = 6.0  # times the cases of other laws
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread evenly: every domain gets its share, early on too


class Origin(NamedTuple):
    """What a case was made from."""

    domain: int  # index in `Plan.domains`
    data: bytes


class Plan:
    """The laws that apply to a subject, and the domains that their cases come from."""

    def __init__(self, laws: Sequence[str], subject: LossUnderTest, again: float = AGAIN) -> None:
        self.subject = subject
        self.laws = {id: law for id, law in find_laws(subject.family, laws).items() if law.assumes(subject) is None}
        self.number = {id: n for n, id in enumerate(self.laws)}
        index: dict[Domain, int] = {}
        self._of: dict[str, frozenset[int]] = {}  # by law: the indices of its domains
        for id, law in self.laws.items():
            drawn = domains(law.strategy(subject.family))
            found = [domain for each in drawn if (domain := each.narrowed(subject.dialect)) is not None]
            self._of[id] = frozenset(index.setdefault(domain, len(index)) for domain in found)
        self.domains = list(index)
        shares = np.zeros(len(self.domains))
        for id, numbers in self._of.items():
            shares[list(numbers)] += self._weight(id) / max(len(numbers), 1)
        self.weights = shares / max(shares.sum(), 1)
        self._shares = np.cumsum(self.weights)
        # the share of the cases of its own domains that a law judges, if it runs the loss again
        runs_again = {id: self._weight(id) for id, law in self.laws.items() if law.again}
        self._again = {
            id: again * weight / sum(runs_again.values()) / max(self.weights[list(self._of[id])].sum(), 1e-9)
            for id, weight in runs_again.items()
        }

    def _weight(self, id: str) -> float:
        """A law's share of the cases: larger if it is about this kind of device, which other runs do not judge."""
        return ON_DEVICE if self.laws[id].on else 1.0

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that cases should reach."""
        return self.subject.family.regions

    def own_cases(self) -> Iterator[Case]:
        """The cases of laws that have their own, and draw none."""
        yield from dict.fromkeys(case for law in self.laws.values() for case in law.own(self.subject))

    def origin(self, number: int, chance: np.random.Generator) -> Origin:
        """What the case of that number is made from. Domains take turns, by their weights."""
        turn = (number + 0.5) * GOLDEN % 1
        domain = min(int(np.searchsorted(self._shares, turn, side="right")), len(self.domains) - 1)
        return Origin(domain, chance.bytes(self.domains[domain].size))

    def usual(self, number: int) -> Origin:
        """What that case of a gate is made from."""
        return self.origin(number, np.random.default_rng((SEED, number)))

    def case(self, origin: Origin) -> Case:
        """The case made from this origin."""
        return self.domains[origin.domain].case(origin.data)

    def about(self, law: str, origin: Origin) -> bool:
        """Whether a law is about the case made from this origin."""
        made_for, case, own = self.domains[origin.domain], self.case(origin), self._of[law]
        return origin.domain in own or (not made_for.only_own and any(self.domains[n].holds(case) for n in own))

    @cache  # noqa: B019  # a process has one plan
    def explaining(self, law: str) -> tuple[Law, ...]:
        """The laws that may explain that a law broke: earlier ones that read the same run.

        First those about what the loss shows of its steps, since the others may break for that; then those of its part.

        Their tallies are their own: what they judge here is not counted. None for a law that is not in the plan.
        """
        if law not in self.number:  # a saved case may be replayed by a law that does not apply to the subject
            return ()
        given = self.subject.family.given
        wanted = given.get(law, given.get(law.partition(".")[0]))
        earlier = (each for id, each in self.laws.items() if self.number[id] < self.number[law] and not each.again)
        fits = (
            each for each in earlier if wanted is None or not {each.id, each.id.partition(".")[0]}.isdisjoint(wanted)
        )
        part = law.partition(".")[0]
        nearest = sorted(fits, key=lambda each: (not self.is_shown(each.id), each.id.partition(".")[0] != part))
        return tuple(replace(each, tally=Tally()) for each in nearest)

    def is_shown(self, law: str) -> bool:
        """Whether a law is about what a loss shows of its own steps."""
        return law.partition(".")[0] in self.subject.family.shown

    def holds_for(self, law: Law, case: Case) -> bool:
        """Whether the law must hold for a case, whatever it was made for."""
        return law.everywhere or any(self.domains[n].holds(case) for n in self._of[law.id])

    def simpler(self, law: str, case: Case) -> dict[str, Case]:
        """The cases with one setting as usual that a law is about too, by the name of the setting."""
        return {name: each for name, each in case.simpler.items() if self.holds_for(self.laws[law], each)}

    def without(self, causes: Sequence[str], law: Law, case: Case) -> Case | None:
        """The case on which faults of earlier laws have no effect on a law; None if there is none that it is about."""
        other: Case | None = case
        for part in dict.fromkeys(id.partition(".")[0] for id in causes):
            other = other and self.subject.family.without(part, law.id, other)
        return None if other is None or other == case or not self.holds_for(law, other) else other

    def judges(self, case: Case, domain: int | None, chance: np.random.Generator, saved_under: str = "") -> list[Law]:
        """The laws that judge a case, in their order: all that read its run, and a share of those that run it again.

        ``domain`` is the one that the case was made for; None for a given case, which all laws judge that have it as
        their own, or that it is saved under.
        """
        given, only_own = domain is None, domain is not None and self.domains[domain].only_own
        about = {n for n, each in enumerate(self.domains) if n == domain or (not only_own and each.holds(case))}
        found = []
        for id, law in self.laws.items():
            if given:
                judges = case in law.own(self.subject) or not (law.again or about.isdisjoint(self._of[id]))
            elif law.again:
                judges = domain in self._of[id] and (only_own or chance.random() < self._again[id])
            else:
                judges = not about.isdisjoint(self._of[id])
            if judges or id == saved_under:
                found.append(law)
        return found


@dataclass(frozen=True)
class Counts:
    """What was counted: by name, and by fingerprint. Counts of several workers are added."""

    named: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)  # cases that showed it
    fresh: Counter[str] = field(default_factory=Counter)  # of these, those that vary no earlier case
    numbers: Counter[str] = field(default_factory=Counter)  # the sum of the numbers of the latter

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(mine + more for mine, more in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def alone(self) -> int:
        """How many fresh cases showed a kind of finding that no other fresh case showed."""
        return len({self.numbers[kind] for kind, count in self.fresh.items() if count == 1})


class Counters:
    """The journal's counters by name. A fingerprint gets its own counters when it is first seen."""

    def __init__(self, plan: Plan) -> None:
        words = ("cases", "made", "fresh", "first", "hung", "law", "milliseconds", "spoilt")
        self.names = [*words, *(f"{word} {id}" for id in plan.laws for word in ("tried", "judged", "broke"))]
        self.names += [f"region {name}" for name in plan.regions]
        self.at = {name: i for i, name in enumerate(self.names)}
        self.kinds = len(self.names)  # from here, for each kind: its fingerprint, and three counters, as in `Counts`
        self.size = self.kinds + 4 * KINDS

    def read(self, counters: NDArray[np.uint64]) -> Counts:
        """The counts."""
        named = Counter({name: int(n) for name, n in zip(self.names, counters, strict=False) if n})
        kinds = {f"{int(kind):016x}": counts for kind, *counts in counters[self.kinds :].reshape(-1, 4) if counts[0]}
        return Counts(named, *(Counter({kind: int(counts[i]) for kind, counts in kinds.items()}) for i in range(3)))
