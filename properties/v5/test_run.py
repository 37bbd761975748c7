"""Run: what a call costs."""

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .case import Case
from .strategies import USUAL

COUNTS = (256, 512, 1024)  # targets
FEWER = (64, 128, 256)  # for Python's own work, which is slow where it grows with the square
# From N to 4 N targets, the second doubling costs 2^e times what the first one cost, where the cost grows as N^e. What
# does not depend on N, such as the cost of the grid, cancels out. A sort has an e of 1.2 here, comparing all pairs 2.
MOST = 2**1.5
# The least that the first doubling is taken to cost: what is added besides is no cost, and may be done by chance.
LEAST = {"operations": 256, "elements": 256, "lines of Python": 1000, "bytes of Python and NumPy": 100_000}


def _with_targets(count: int) -> Case:
    """A usual case with so many targets, spread over its two images."""
    spread = ((n % 2, n % 3, (n * 0.618 + 0.01) % 1, (n * 0.414 + 0.02) % 1, 0.1, 0.12) for n in range(count))
    return USUAL.changed(grids=((16, 12), (8, 6), (4, 3)), targets=tuple(spread))


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of torch, and the elements of their results that are new: no views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.elements = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        if not any(each.alias_info for each in func._schema.returns):
            self.elements += sum(each.numel() for each in tree_leaves(result) if isinstance(each, Tensor))
        return result


@contextmanager
def _lines() -> Iterator[list[int]]:
    """How many lines Python runs in this thread. A loop, also one in an expression, runs its line again each time."""
    count, before = [0], sys.gettrace()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        count[0] += event == "line"
        return trace

    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


@contextmanager
def _bytes() -> Iterator[list[int]]:
    """The most memory that Python and NumPy have at once, beyond what they have before. Torch has its own."""
    count, already = [0], tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield count
    finally:
        count[0] = tracemalloc.get_traced_memory()[1] - before
        if not already:
            tracemalloc.stop()


@law(
    "run.cost-of-targets",
    title="The cost of a call grows faster than the number of targets",
    source="DESIGN",
    cases=(_with_targets(COUNTS[0]),),
    again=True,
)
def test_the_cost_does_not_grow_with_the_square_of_the_targets(exam: Exam) -> None:
    """From N to 4 N targets, operations, their results, lines of Python and its memory grow by less than N^1.5.

    N is 64 for lines of Python, 256 for all else.
    """
    exam.only_if(exam.subject.device.type == "cpu", "the operations are the same on every device")
    _ = exam.calls
    counted: dict[str, list[int]] = {name: [] for name in LEAST}

    def unmeasured(subject: Any, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        with _Counting():
            return subject.loss(p, targets)  # type: ignore[no-any-return]

    def lines_of(subject: Any, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        with _lines() as lines:
            result = subject.loss(p, targets)
        counted["lines of Python"].append(lines[0])
        return result  # type: ignore[no-any-return]

    def rest_of(subject: Any, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        with _bytes() as used, _Counting() as counting:
            result = subject.loss(p, targets)
        counted["bytes of Python and NumPy"].append(used[0])
        counted["operations"].append(counting.operations)
        counted["elements"].append(counting.elements)
        return result  # type: ignore[no-any-return]

    _ = exam.on(_with_targets(FEWER[0]), calling=unmeasured).calls  # the first call imports, and fills caches
    for calling, counts in ((lines_of, FEWER), (rest_of, COUNTS)):
        for count in counts:
            _ = exam.on(_with_targets(count), calling=calling).calls
        for what, numbers in counted.items():
            if numbers:
                _grows_slowly(exam, what, counts, numbers)
                numbers.clear()


def _grows_slowly(exam: Exam, what: str, counts: tuple[int, ...], numbers: list[int]) -> None:
    few, more, many = numbers
    exam.expect(
        many - more <= MOST * max(more - few, LEAST[what]),
        f"{what} of a call on {', '.join(map(str, counts))} targets",
        "the second doubling adds at most 2.8 times what the first one adds",
        f"{few}, {more}, {many}",
    )
