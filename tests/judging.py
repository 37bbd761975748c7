"""What the commands that run laws on many losses share: the settings, one search, and all processors at once."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import hypothesis
import torch
from rich.console import Console
from rich.progress import track

from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.laws.law import GATE, GATE_SEED, Law
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.load import find_device, load_loss

T = TypeVar("T")
R = TypeVar("R")
# The gate's cases, where it is asked whether a law breaks, and not for the smallest case.
QUICK = hypothesis.settings(GATE, phases=[hypothesis.Phase.generate])


def on_its_device(spec: str, name: str) -> LossUnderTest:
    """The loss on the device of that name, held to all that the bundled one is."""
    return load_loss(spec, find_device(name), "yololoss", compiled=name == "compile")


def search(
    law: Law, subject: LossUnderTest, settings: hypothesis.settings = QUICK, seed: int | None = GATE_SEED
) -> LawBroken | None:
    """How the law breaks on the subject; None where it holds, or does not apply."""
    law.tally.clear()
    try:
        law.search(subject, settings, seed)
    except LawBroken as broken:
        return broken
    return None


def apart(function: Callable[[T], R], tasks: Sequence[T], what: str) -> Iterator[R]:
    """What the function makes of each task, in a process of its own, as many at once as there are processors."""
    torch.set_num_threads(1)
    with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
        yield from track(pool.imap(function, tasks), what, len(tasks), console=Console(stderr=True))
