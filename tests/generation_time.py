"""How long the gate takes to make a case: ``python -m tests.generation_time``.

The time to choose a domain, to make the case, and to look up which laws judge it; processor time, over 2,000 cases.
"""

import statistics
import time
from itertools import pairwise

from tests.judging import made, on_its_device
from yololoss.harness.config import BUNDLED
from yololoss.harness.engine.plan import Plan


def main() -> None:
    """Print the median and the mean."""
    times = [time.process_time()]
    times += [time.process_time() for _ in made(Plan((), on_its_device(BUNDLED, "cpu")), range(2000))]
    took = [1e3 * (end - start) for start, end in pairwise(times)]
    print(f"{len(took)} cases: median {statistics.median(took):.2f} ms, mean {statistics.mean(took):.2f} ms")


if __name__ == "__main__":
    main()
