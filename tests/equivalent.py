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
    ),
    "The larger of two numbers is that of the two the other way round.": (
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
