"""Run: what a call costs."""

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
# From N to 4 N targets, the second doubling costs 2^e times what the first one cost, where the cost grows as N^e. What
# does not depend on N, such as the cost of the grid, cancels out. A sort has an e of 1.2 here, comparing all pairs 2.
MOST = 2**1.5


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


@law(
    "run.cost-of-targets",
    title="The cost of a call grows faster than the number of targets",
    source="DESIGN",
    cases=(_with_targets(COUNTS[0]),),
    again=True,
)
def test_the_cost_does_not_grow_with_the_square_of_the_targets(exam: Exam) -> None:
    """From 256 to 1,024 targets, operations and elements of their results grow by less than the power 1.5."""
    exam.only_if(exam.subject.device.type == "cpu", "the operations are the same on every device")
    _ = exam.calls
    counted: list[_Counting] = []
    for count in COUNTS:

        def calling(subject: Any, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
            with _Counting() as counting:
                result = subject.loss(p, targets)
            counted.append(counting)
            return result  # type: ignore[no-any-return]

        _ = exam.on(_with_targets(count), calling=calling).calls
    for what in ("operations", "elements"):
        few, more, many = (getattr(each, what) for each in counted)
        grown = f"{what} of a call on {', '.join(map(str, COUNTS))} targets"
        slow = many - more <= MOST * max(more - few, COUNTS[0])
        exam.expect(
            slow, grown, "the second doubling adds at most 2.8 times what the first one adds", f"{few}, {more}, {many}"
        )
