"""Times the bundled loss beside another one, in turn, in one process: ``python -m benchmarks --against SPEC``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.settings import FLOOR, USUAL, Setting, inputs, made, stepping, work
from tests.subjects.in_place import InPlace
from yololoss.harness.subjects.load import import_loss

ROUNDS = 15
OURS, THEIRS, COMPILED = "loss", "other", "plain, compiled"
SETTINGS = (
    USUAL,
    *(replace(USUAL, batch=n, targets=7 * n) for n in (1, 4)),
    *(replace(USUAL, targets=n) for n in (0, 1000, 10_000)),
    *(replace(USUAL, side=n) for n in (320, 1280)),
    *(replace(USUAL, batch=4, targets=28, classes=n) for n in (1, 1000)),
)


def in_turn(steps: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, NDArray[np.float64]]:
    """Seconds of each step in every round. They take turns, so what else the machine does slows all of them."""
    for step in steps.values():
        step()  # what is made once is no part of it
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = perf_counter()
            step()
            took[name].append(perf_counter() - began)
    return {name: np.array(seconds) for name, seconds in took.items()}


def quartiles(ratios: NDArray[np.float64]) -> str:
    """The median, and the quartiles."""
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def table(spec: str, *, compiled: bool = False, settings: Sequence[Setting] = SETTINGS) -> Iterator[str]:
    """The table of forward and backward in all settings, in Markdown.

    ``compiled``: also a plain loss (`tests/subjects/in_place.py`) that torch compiles by its inductor, which takes a
    minute a setting. Raises UsageError if there is no such loss.
    """
    other, _ = import_loss(spec)
    over = [THEIRS, FLOOR, *([COMPILED] if compiled else [])]
    yield f"Forward and backward, {torch.get_num_threads()} threads, float32: medians of {ROUNDS} rounds in turn, and"
    yield f"quartiles of the ratios. other: `{spec}`.\n"
    yield f"| setting | ms | {' | '.join(f'{OURS} / {name}' for name in over)} |"
    yield f"|---|---:|{'---:|' * len(over)}"
    for setting in settings:
        steps = {OURS: work("step", OURS, setting), FLOOR: work("step", FLOOR, setting)}
        steps[THEIRS] = stepping(made(other, setting), setting)
        if compiled:
            torch.compiler.reset()
            steps[COMPILED] = stepping(torch.compile(made(InPlace, setting)), setting)
        took = in_turn(steps)
        ratios = " | ".join(quartiles(took[OURS] / took[name]) for name in over)
        yield f"| {setting} | {1000 * np.median(took[OURS]):.1f} | {ratios} |"
        inputs.cache_clear()
