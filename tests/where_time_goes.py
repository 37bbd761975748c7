"""What the gate spends its time on: ``python -m tests.where_time_goes [CASES]``.

So many of the gate's cases, by default all, are judged in one process; the processor time of each part is added up by
wrapping the functions where one part calls another. The subject's time is that of the loss itself: its construction,
build_targets, the call and the backward pass.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from properties.v5 import budget, forms, reference
from tests.judging import gate, how_many, on_its_device
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws import exam, law

SPENT: Counter[str] = Counter()
STACK: list[str] = []


def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its own processor time counted for a part, and no more for the part that called it."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        STACK.append(part)
        try:
            return function(*args, **kwargs)
        finally:
            STACK.pop()
            took = time.process_time() - start
            SPENT[part] += took
            if STACK:
                SPENT[STACK[-1]] -= took

    return wrapped


def lazily(cls: type, part: str) -> list[Any]:
    """Patches that time every cached property of a class."""
    from functools import cached_property  # noqa: PLC0415

    patches = []
    for name, value in vars(cls).items():
        if isinstance(value, cached_property):
            new = cached_property(timed(part, value.func))
            new.__set_name__(cls, name)
            patches.append(patch.object(cls, name, new))
    return patches


def main(cases: int | None = None) -> None:
    """Judge the cases and print the table."""
    torch.set_num_threads(1)
    plan = Plan((), on_its_device(BUNDLED, "cpu"))
    cases = cases or how_many(plan)
    parts = [
        *(
            patch.object(forms.ClassSubject, n, timed("subject", getattr(forms.ClassSubject, n)))
            for n in ("__init__", "loss", "rows")
        ),
        patch.object(torch.autograd, "grad", timed("subject", torch.autograd.grad)),
        patch.object(exam, "execute", timed("running the subject", exam.execute)),
        patch.object(law.Law, "examine", timed("judging", law.Law.examine)),
        *lazily(reference.Reference, "reference and budget"),
        *lazily(budget.Budget, "reference and budget"),
    ]
    SPENT.clear()
    start = time.process_time()
    with ExitStack() as patches:
        for each in parts:
            patches.enter_context(each)
        broken = [raw.told for raw in gate(plan, range(cases))]
    whole = time.process_time() - start
    if broken:
        raise SystemExit(f"the bundled loss breaks {broken[0].law}")
    SPENT["plan"] = whole - sum(SPENT.values())
    tried = sum(law.tally.tried for law in plan.laws.values())
    print(f"{len(plan.laws)} laws, {cases} cases, {tried} judgements, {whole:.0f} s of one processor\n")
    print("| part | share | times the subject |\n|---|---:|---:|")
    for part, seconds in SPENT.most_common():
        print(f"| {part} | {seconds / whole:.0%} | {seconds / SPENT['subject']:.2f} |")
    harness = (whole - SPENT["subject"]) / SPENT["subject"]
    print(f"| all but the subject | {1 - SPENT['subject'] / whole:.0%} | {harness:.2f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
