"""How long the strategies take for a case: ``python -m tests.generation_time``.

The time from the start of the strategy to the finished case, drawing included; processor time, over 2,000 cases of
the strategy that most laws use.
"""

import statistics
import time

import hypothesis

from properties.v5.strategies import cases
from yololoss.harness.laws.law import GATE, GATE_SEED


def main() -> None:
    """Print the median and the mean."""
    took: list[float] = []

    @hypothesis.seed(GATE_SEED)
    @hypothesis.settings(GATE, max_examples=2000)
    @hypothesis.given(hypothesis.strategies.data())
    def run(data: hypothesis.strategies.DataObject) -> None:
        start = time.process_time()
        data.draw(cases())
        took.append(time.process_time() - start)

    run()
    print(
        f"{len(took)} cases: median {statistics.median(took) * 1e3:.2f} ms, mean {statistics.mean(took) * 1e3:.2f} ms"
    )


if __name__ == "__main__":
    main()
