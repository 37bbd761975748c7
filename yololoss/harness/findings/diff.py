"""Finds where two losses differ: rows, values, gradients, each with the smallest case that shows it."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from hypothesis import Phase, settings
from typing_extensions import Self

from yololoss.harness.cases.case import Case
from yololoss.harness.findings.finding import Finding, keep
from yololoss.harness.laws.exam import Exam, LawBroken, NotApplicable
from yololoss.harness.laws.law import GATE, GATE_SEED, Law
from yololoss.harness.subjects.comparison import Aspect
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device, load_loss
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Unsupported

ASPECTS: dict[Aspect, str] = {
    "rows": "Both build the same rows, in the same order.",
    "values": "Both return the same totals, items and balances, and raise the same errors.",
    "gradients": "Both have the same gradients.",
}
_HERE: dict[str, LossUnderTest] = {}  # in the process of a `Remote`: its loss


class Remote:
    """A loss in another process: two losses may have modules of the same name, or change their process."""

    def __init__(self, spec: str, device: str) -> None:
        self.spec = spec
        self._pool = multiprocessing.get_context("spawn").Pool(1)
        try:
            self._pool.apply(_load, (spec, device))
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def execute(self, case: Case) -> Outcome:
        """Run the loss on a case. Raises Unsupported if the loss lacks an option of it."""
        return self._pool.apply(_execute, (case,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._pool.close()
        else:  # it may never answer
            self._pool.terminate()
        self._pool.join()


def _load(spec: str, device: str) -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    _HERE["loss"] = load_loss(spec, find_device(device))


def _execute(case: Case) -> Outcome:
    from yololoss.harness.subjects.execute import execute  # noqa: PLC0415

    return execute(_HERE["loss"], case)


def differences(one: Remote, two: LossUnderTest, cases: int, folder: Path) -> Iterator[Finding]:
    """Find where the second loss differs from the first: for each aspect the smallest case found, if any.

    No case has a box that fits exactly: there the gradient jumps, and two correct losses may be on different sides.
    """
    family = two.family
    limits = settings(GATE, max_examples=cases, phases=[Phase.generate, Phase.shrink])
    for aspect, statement in ASPECTS.items():

        def judge(exam: Exam, aspect: Aspect = aspect) -> None:
            try:
                expected = family.write_down(one.execute(exam.case))
            except Unsupported as option:
                raise NotApplicable(f"the first loss has no {option}") from None
            exam.compare(family.comparisons(exam.case, expected, exam.outcome), aspect)

        law = Law(
            f"diff.{aspect}",
            statement,
            f"expected is what {one.spec} does",
            judge=judge,
            cases=family.standard,
            family=family,
        )
        try:
            law.search(two, limits, GATE_SEED)
        except LawBroken as broken:
            # saved with what the first loss does, under a law about recorded behaviour, so that it can be replayed
            held_to = replace(two, recorded={broken.case: family.write_down(one.execute(broken.case))})
            yield keep(broken, held_to, folder, {"loss": two.spec}, saved_under=f"baseline.{aspect}")
