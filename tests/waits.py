"""Where a loss makes the host wait for the device in a step: ``python -m tests.waits [LOSS ...]``.

Counted on the mirror, in one call and its backward, with three layers and a batch of two. Without an argument, the
bundled loss, and one written as losses in the wild are.
"""

import sys
from collections.abc import Iterator

from properties.v5.strategies import USUAL
from yololoss.harness.config import BUNDLED
from yololoss.harness.devices.devices import Wait
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import find_device, load_loss

DEFAULT = (BUNDLED, "tests.subjects.in_place:InPlace")


def waits_of(spec: str) -> tuple[Wait, ...]:
    """The waits of one step."""
    return execute(load_loss(spec, find_device("mirror")), USUAL).waits


def table(specs: list[str]) -> Iterator[str]:
    """A heading and a table a loss."""
    for spec in specs:
        waits = waits_of(spec)
        yield f"{spec}: {sum(w.times for w in waits)} waits a step\n"
        yield "| where | what | times |\n|---|---|---:|"
        yield from (f"| {w.place} | {w.what} | {w.times} |" for w in sorted(waits, key=lambda w: -w.times))
        yield ""


if __name__ == "__main__":
    print("\n".join(table(sys.argv[1:] or list(DEFAULT))))
