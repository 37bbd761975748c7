"""What a session judges: which laws on which cases, and from which domains cases are made."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.domain import Domain, domains
from yololoss.harness.laws.law import Law, find_laws
from yololoss.harness.subjects.family import LossUnderTest

# A law that runs the loss again costs as much as all laws together that judge the one execution. All of the latter
# judge each case. The former judge this share of the cases, times their share of cases in the gate. So they take about
# half of the time.
ANEW = 0.25
# How many kinds of finding have a counter in the journal. A later kind has none, and counts as seen once.
KINDS = 512


class Origin(NamedTuple):
    """What a case was made from."""

    domain: int  # index in `Plan.domains`
    data: bytes


class Plan:
    """The laws that apply to a subject, and the domains that their cases come from."""

    def __init__(self, laws: Sequence[str], subject: LossUnderTest, waived: Sequence[str] = ()) -> None:
        self.family = subject.family
        self.laws: dict[str, Law] = {
            id: law
            for id, law in find_laws(subject.family, laws).items()
            if domains(law.strategy(subject.family))
            and law.assumes(subject) is None
            and id not in waived
            and not subject.family.only_noted(id, subject.dialect)
        }
        shares: dict[Domain, float] = {}
        self._of: dict[str, tuple[Domain, ...]] = {}
        for id, law in self.laws.items():
            self._of[id] = domains(law.strategy(subject.family))
            for domain in self._of[id]:
                shares[domain] = shares.get(domain, 0.0) + 1 / len(self._of[id])
        self.number = {id: n for n, id in enumerate(self.laws)}
        self.domains = list(shares)
        weights = np.array([shares[domain] for domain in self.domains])
        self.weights = weights / weights.sum() if len(weights) else weights

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that cases should reach."""
        return self.family.regions

    def regions_of(self, case: Case) -> list[str]:
        """The regions in which a case lies."""
        return list(self.family.regions_of(case))

    def case(self, origin: Origin) -> Case:
        """The case made from this origin."""
        return self.domains[origin.domain].case(origin.data)

    def fits(self, law: str, case: Case, domain: int | None = None) -> bool:
        """Whether the law is about the case. ``domain`` is the domain that the case was made for."""
        own = None if domain is None else self.domains[domain]
        return any(each == own or each.holds(case) for each in self._of[law])

    def judges(self, case: Case, domain: int | None, chance: np.random.Generator, saved_under: str = "") -> list[Law]:
        """The laws that judge the case: all that are about it, and of those that run the loss again, a random share."""
        own = domain is not None and self.domains[domain].only_own
        return [
            law
            for id, law in self.laws.items()
            if id == saved_under
            or ((not law.anew or own or chance.random() < ANEW * (law.most or 0) / 100) and self.fits(id, case, domain))
        ]


class Counters:
    """The journal's counters by name. A fingerprint gets its own counter when it is first seen."""

    def __init__(self, plan: Plan) -> None:
        words = ("cases", "first", "law", "milliseconds")
        self.names = [*words, *(f"{word} {id}" for id in plan.laws for word in ("tried", "judged", "broke"))]
        self.names += [f"region {name}" for name in plan.regions]
        self.at = {name: i for i, name in enumerate(self.names)}
        self.kinds = len(self.names)  # from here: fingerprint, count, fingerprint, count, ...
        self.size = self.kinds + 2 * KINDS

    def read(self, counters: NDArray[np.uint64]) -> tuple[Counter[str], Counter[str]]:
        """Counts by name, and by fingerprint."""
        named = Counter({name: int(n) for name, n in zip(self.names, counters, strict=False) if n})
        kinds = counters[self.kinds :].reshape(-1, 2)
        return named, Counter({f"{int(kind):016x}": int(n) for kind, n in kinds if n})
