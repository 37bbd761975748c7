"""Cases of the task-aligned family that several tests share: some that a domain draws."""

import numpy as np

from properties.tal.case import Case
from properties.tal.strategies import CROWD, STANDARD, WITH_TARGETS
from tests import tal_slowly
from yololoss.harness.cases.domain import domains


def drawn(count: int, seed: int = 0) -> list[Case]:
    """Cases of three domains in turn, the same in every run."""
    chance = np.random.default_rng(seed)
    known = [domains(each)[0] for each in (WITH_TARGETS, CROWD, STANDARD)]
    return [known[n % 3].case(chance.bytes(known[n % 3].size)) for n in range(count)]  # type: ignore[misc]


def slowly(case: Case) -> tal_slowly.Result:
    """What plain loops make of the case."""
    rows = case.target_rows.double().tolist()
    given = tal_slowly.Case(
        levels=[level.double().numpy() for level in case.logits],
        strides=list(case.strides),
        rows=[(int(image), int(cls), *box) for image, cls, *box in rows],
        classes=case.classes,
        bins=case.reg_max,
        topk=case.topk or 10,
        topk2=case.topk2,
        weights=None if case.class_weights is None else list(case.class_weights),
    )
    return tal_slowly.Slow(given).run()
