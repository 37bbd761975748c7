"""Why the mutants that nothing notices are no faults."""

from collections.abc import Iterable, Iterator

from tests.mutants import Mutant

# Reason: the changes, each a part of what `Mutant` prints.
ARGUED: dict[str, tuple[str, ...]] = {}


def argument(mutant: Mutant) -> str | None:
    """Why the mutant is equivalent; None where nothing says so."""
    return next((reason for reason, changes in ARGUED.items() if any(c in str(mutant) for c in changes)), None)


def unused(survivors: Iterable[Mutant]) -> Iterator[str]:
    """Arguments that fit no survivor."""
    told = [str(mutant) for mutant in survivors]
    return (c for changes in ARGUED.values() for c in changes if not any(c in line for line in told))
