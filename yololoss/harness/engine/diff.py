"""Finds where two losses differ: rows, values, gradients, each with the smallest case that shows it."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.domain import Domain, domains
from yololoss.harness.engine.minimise import smallest
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.exam import Exam, Law, LawBroken, NotApplicable, Run
from yololoss.harness.laws.law import SEED
from yololoss.harness.subjects.comparison import Aspect
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device, load_loss
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Unsupported

ASPECTS: dict[Aspect, str] = {
    "rows": "Both build the same rows, in the same order.",
    "values": "Both return the same totals, items and balances, and raise the same errors.",
    "gradients": "Both have the same gradients.",
}
SMALL = 30.0  # seconds to minimise a case in
_HERE: dict[str, LossUnderTest] = {}  # in the process of a `Remote`: its loss


class Remote(NamedTuple):
    """A loss in another process: two losses may have modules of the same name, or change their process."""

    spec: str
    execute: Callable[[Case], Outcome]  # raises Unsupported if the loss lacks an option of the case


@contextmanager
def remote(spec: str, device: str, family: str) -> Iterator[Remote]:
    """Load a loss in another process, which ends with this context. Raises UsageError for one of another family."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        found = pool.apply(_load, (spec, device))
        if found != family:
            raise UsageError(f"{spec} is a loss of the family {found}, the other one is of the family {family}")
        yield Remote(spec, lambda case: pool.apply(_execute, (case,)))
        pool.close()
    except BaseException:
        pool.terminate()  # it may never answer
        raise
    finally:
        pool.join()


def _load(spec: str, device: str) -> str:
    torch.set_num_threads(1)
    _HERE["loss"] = load_loss(spec, find_device(device))
    return _HERE["loss"].family.name


def _execute(case: Case) -> Outcome:
    return execute(_HERE["loss"], case)


def differences(one: Remote, two: LossUnderTest, cases: int, folder: Path) -> Iterator[Finding]:
    """Find where the second loss differs from the first: for each aspect the smallest case found, if any.

    No case has a box that fits exactly: there the gradient jumps, and two correct losses may be on different sides.
    """
    (domain,) = domains(two.family.standard)
    laws = [_law(aspect, one, two) for aspect in ASPECTS]
    for number in range(cases):
        data = np.random.default_rng((SEED, number)).bytes(domain.size)
        run = Run(two, domain.case(data))
        for law in list(laws):
            if _broken(law, run) is not None:
                laws.remove(law)
                yield _smallest(law, one, two, domain, data, folder)


def _law(aspect: Aspect, one: Remote, two: LossUnderTest) -> Law:
    family = two.family

    def recorded(case: Case) -> Any:
        try:
            return family.write_down(one.execute(case))
        except Unsupported as option:
            raise NotApplicable(f"the first loss has no {option}") from None

    def judge(exam: Exam) -> None:
        exam.compare(family.comparisons(exam.case, exam.of(recorded), exam.outcome), aspect)

    about = f"expected is what {one.spec} does"
    return Law(
        f"diff.{aspect}",
        ASPECTS[aspect],
        f"The {aspect} of the two losses differ",
        about,
        family,
        judge,
        family.standard,
    )


def _broken(law: Law, run: Run) -> LawBroken | None:
    try:
        law.examine(run)
    except LawBroken as broken:
        return broken
    return None


def _smallest(law: Law, one: Remote, two: LossUnderTest, domain: Domain, data: bytes, folder: Path) -> Finding:
    """The finding of a minimised case, saved with what the first loss does, so that it can be replayed."""
    small = smallest(data, lambda data: _broken(law, Run(two, domain.case(data))) is not None, time.monotonic() + SMALL)
    broken = _broken(law, Run(two, domain.case(small)))
    assert broken is not None, "a loss that differs from call to call"
    held_to = replace(two, recorded={broken.case: two.family.write_down(one.execute(broken.case))})
    under = law.id.replace("diff.", "baseline.")  # a law about recorded behaviour
    return keep(broken, held_to, folder, {"loss": two.spec}, saved_under=under)
