"""Why the mutants that nothing notices are no faults."""

from collections.abc import Iterable, Iterator

from tests.mutants import Mutant

# Reason: the changes, each how what `Mutant` prints ends.
ARGUED: dict[str, tuple[str, ...]] = {
    "No centre inside the image has a cell before the first, so nothing is clamped from below.": (
        "min=torch.zeros( 1, dtype=torch.long, device=targets.device),",
        "cell = shifted.long().clamp(max=torch.tensor((columns - 1, rows - 1), device=targets.device))",
        'if [int(v) for v in shifted] <= cell else f", clamped from {tuple(map(int, shifted))}"',
    ),
    "What is put together has the same length in every case.": (
        "self.shifted.tolist(), strict=False)",
        "self.cell.tolist(), self.shifted.tolist())",
    ),
    "A number too many is read and not used.": ("[self.row_pair], : 3].tolist()",),
    "A tensor without dimensions is printed as its number.": (
        "for a, t in torch.cartesian_prod(*map(torch.arange, self.ratio.shape)):",
        "->  centre = self.scaled[self.pair_target[self.row_pair], :2]",
        "->  target = self.pair_target[self.row_pair]",
        "zip(self.row_choice, self.cell.tolist(), self.shifted.tolist(), strict=True)",
        "zip(self.row_choice.tolist(), self.cell.tolist(), self.shifted, strict=True)",
    ),
    "Only how arguments may be handed over; no value changes.": (
        "box2: Boxes, /, corners: bool = False, eps: float = EPS) -> Scalars:",
        "*,  ->  /,",
    ),
    "From 29 on the angle is its limit, and its slope 0, but for rounding.": (
        "u.clamp(- 31, 30).exp().atan()",
        "u.clamp(- 29, 30).exp().atan()",
        "u.clamp(-30, 31).exp().atan()",
        "u.clamp(-30, 29).exp().atan()",
    ),
    "The overlap of two boxes is that of the two the other way round.": (
        "o = _overlap(box2, box1, corners, eps)",
        "return _overlap(box2, box1, corners, eps).iou",
    ),
    "The reduction is mean or sum here.": ('<= "mean" else weighted.sum()',),
    "The larger, or smaller, of two numbers is that of the two the other way round.": (
        "torch.maximum(high2, high1) - torch.minimum(low1, low2),",
        "torch.maximum(high1, high2) - torch.minimum(low2, low1),",
        "(torch.minimum(high2, high1) - torch.maximum(low1, low2)).clamp(min=0).prod(-1)",
        "(torch.minimum(high1, high2) - torch.maximum(low2, low1)).clamp(min=0).prod(-1)",
        "torch.maximum(1 / side_ratio, side_ratio).amax(2)",
    ),
}


def argument(mutant: Mutant) -> str | None:
    """Why the mutant is equivalent; None where nothing says so."""
    return next((reason for reason, changes in ARGUED.items() if str(mutant).endswith(changes)), None)


def unused(survivors: Iterable[Mutant]) -> Iterator[str]:
    """Arguments that fit no survivor."""
    told = [str(mutant) for mutant in survivors]
    return (c for changes in ARGUED.values() for c in changes if not any(line.endswith(c) for line in told))
