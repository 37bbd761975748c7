"""Cases of the task-aligned family that several tests share: the golden vectors', and some that a domain draws."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from properties.tal.case import Case, Gains, GivenLogits, Override, SeededLogits
from properties.tal.strategies import CROWD, STANDARD, WITH_TARGETS
from tests import tal_slowly
from yololoss.harness.cases.domain import domains

TOPKS = {"E2ELoss": ((10, None), (7, 1)), "E2EDetectLoss": ((10, None), (1, None))}  # of the two heads


def floats(values: Any) -> tuple[Any, ...]:
    """Nested lists of numbers as tuples of floats."""
    return tuple(floats(each) if isinstance(each, list) else float(each) for each in values)


def predictions_of(given: dict[str, Any]) -> SeededLogits | GivenLogits:
    """The logits of a recorded vector."""
    if given["kind"] == "values":
        return GivenLogits(layers=floats(given["layers"]))
    numbers = {name: float(given[name]) for name in given if name in SeededLogits.model_fields and "_" in name}
    return SeededLogits(
        **numbers,
        seed=given["seed"],
        sharp=float(given.get("sharp", 0)),
        peak=floats(given["peak"]) if "peak" in given else None,
        overrides=tuple(Override(level=i, at=k, value=float(v)) for i, k, v in given.get("overrides", ())),
    )


def heads_of(case: dict[str, Any]) -> Iterator[Case]:
    """The case of each head of a recorded vector."""
    kind = case.get("e2e", {}).get("class")
    topks = TOPKS.get(kind, ((case.get("topk"), case.get("topk2")),))
    for given, (topk, topk2) in zip(case["predictions"], topks, strict=True):
        yield Case(
            batch=case["batch"],
            classes=case["classes"],
            reg_max=case["reg_max"],
            grids=tuple((rows, columns) for rows, columns in case["grids"]),
            strides=floats(case["strides"]),
            targets=floats(case["targets"]),
            dtype=case["dtype"],
            topk=topk,
            topk2=topk2,
            gains=Gains(**{name: float(value) for name, value in case.get("gains", {}).items()}),
            class_weights=floats(case["class_weights"]) if "class_weights" in case else None,
            predictions=predictions_of(given),
        )


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
