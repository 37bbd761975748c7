"""Judges the commits of a line, one after the other, as far as time allows."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from yololoss.harness.history.commits import Repository
from yololoss.harness.history.line import Step
from yololoss.harness.history.order import next_step
from yololoss.harness.history.trees import clear, laid_out
from yololoss.harness.history.verdicts import Judge, Kept, Result


def run(
    repository: Repository,
    steps: Sequence[Step],
    judge: Judge,
    kept: Kept,
    home: Path,
    *,
    seconds: float,
    show: Callable[[int], object],
) -> dict[str, Result]:
    """The results by key. Those that are kept are not made again; each new one is kept at once. Ctrl-C ends the run.

    ``home``: where a commit's files are laid out. ``show`` is told how many commits are judged.
    """
    clear(home)
    until = time.monotonic() + seconds
    keys = [step.key for step in steps]
    known = {key: result for key in dict.fromkeys(keys) if (result := kept.get(key)) is not None}
    while True:
        show(sum(key in known for key in keys))
        number = next_step(keys, {key: result.signature for key, result in known.items()})
        if number is None or time.monotonic() > until:
            return known
        step = steps[number]
        try:
            with laid_out(repository, step.commit.id, home) as folder:
                result = judge(step, folder)
        except KeyboardInterrupt:
            return known
        known[step.key] = result
        kept.put(step.key, result)
