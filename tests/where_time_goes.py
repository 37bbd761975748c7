"""What a run of the gate spends its time on: ``python -m tests.where_time_goes``.

Every law is run as the gate runs it, in one process; the processor time of each part is added up by wrapping the
functions where one part calls another. The subject's time is that of the loss itself: its construction,
build_targets, the call and the backward pass.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from properties.v5 import budget, forms, reference, strategies
from tests.all_laws import LAWS
from yololoss.harness.laws import exam, law
from yololoss.harness.subjects.load import load_loss

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


def main(laws: Sequence[str] = tuple(LAWS)) -> None:
    """Run every law once and print the table."""
    torch.set_num_threads(1)
    subject = load_loss("yololoss:ComputeLoss", torch.device("cpu"))
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
        *(
            patch.object(strategies, n, timed("strategies", getattr(strategies, n)))
            for n in ("_frame", "target_of", "spot_of", "Case", "regions")
        ),
    ]
    SPENT.clear()
    start = time.process_time()
    cases = 0
    with ExitStack() as patches:
        for each in parts:
            patches.enter_context(each)
        for name in laws:
            LAWS[name].search(subject, law.GATE, law.GATE_SEED)
            cases += LAWS[name].tally.tried
    whole = time.process_time() - start
    SPENT["Hypothesis"] = whole - sum(SPENT.values())
    print(f"{len(laws)} laws, {cases} cases, {whole:.0f} s of one processor\n")
    print("| part | share | times the subject |\n|---|---:|---:|")
    for part, seconds in SPENT.most_common():
        print(f"| {part} | {seconds / whole:.0%} | {seconds / SPENT['subject']:.2f} |")
    harness = (whole - SPENT["subject"]) / SPENT["subject"]
    print(f"| all but the subject | {1 - SPENT['subject'] / whole:.0%} | {harness:.2f} |")


if __name__ == "__main__":
    main()
