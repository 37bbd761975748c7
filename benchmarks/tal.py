"""How fast the task-aligned loss is, and the memory that it takes: ``python -m benchmarks --family tal``."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.against import ROUNDS, in_turn, quartiles
from benchmarks.memory import peak
from benchmarks.settings import STRIDES, USUAL, Setting
from tests.subjects.plain_tal import PlainTal
from yololoss import TaskAlignedLoss
from yololoss.harness.subjects.load import import_loss

BINS = 16
SETTINGS = (
    USUAL,
    *(replace(USUAL, batch=n, targets=7 * n) for n in (1, 4)),
    *(replace(USUAL, targets=n) for n in (0, 1000)),
    replace(USUAL, side=320),
)
LARGE = Setting(batch=64, targets=6400)  # 8,400 anchors and 100 targets an image
OURS, PLAIN, OTHER = "loss", "plain", "other"
MIB = 2**20
Step = Callable[[], object]


class Model(nn.Module):
    """What such a loss reads of a model."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=100)
        self.weight = nn.Parameter(torch.zeros(1))
        head = nn.Module()
        head.stride, head.nc, head.reg_max = torch.tensor(STRIDES), classes, BINS  # type: ignore[assignment]
        self.model = nn.Sequential(head)
        self.nc = classes


def inputs(setting: Setting) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The levels, which require a gradient, and a batch with its rows in the order of images."""
    generator = torch.Generator().manual_seed(0)
    channels = 4 * BINS + setting.classes
    sides = (setting.side // int(stride) for stride in STRIDES)
    p = [torch.randn(setting.batch, channels, n, n, generator=generator).requires_grad_() for n in sides]
    rows = torch.rand(setting.targets, 6, generator=generator)
    image = (torch.arange(setting.targets) % setting.batch).sort().values.float()
    boxes = torch.cat((rows[:, 2:4], rows[:, 4:] * 0.4 + 0.02), dim=1)
    return p, {"batch_idx": image, "cls": (rows[:, 1:2] * setting.classes).floor(), "bboxes": boxes}


def mapping(p: Sequence[Tensor]) -> dict[str, Any]:
    """The levels in the form of newer versions."""
    boxes, scores = torch.cat([level.flatten(2) for level in p], dim=2).split((4 * BINS, p[0].shape[1] - 4 * BINS), 1)
    return {"boxes": boxes, "scores": scores, "feats": list(p)}


def steps(setting: Setting, other: Any, *, backward: bool) -> dict[str, Step]:
    """A step of each loss on the same inputs: forward and backward to the levels, or forward from a mapping of them."""
    p, batch = inputs(setting)
    given = None if backward else mapping(p)

    def step(make: Callable[[Any], Any]) -> Step:
        loss = make(Model(setting.classes))

        def run() -> object:
            total = loss(given or mapping(p), batch)[0].sum()
            return torch.autograd.grad(total, p) if backward else total

        return run

    made = {OURS: TaskAlignedLoss, PLAIN: PlainTal, **({} if other is None else {OTHER: other})}
    return {name: step(make) for name, make in made.items()}


def report(spec: str | None = None, settings: Sequence[Setting] = SETTINGS, large: Setting = LARGE) -> Iterator[str]:
    """The tables of time and memory, in Markdown. ``spec``: another loss, FILE.py:NAME or MODULE:NAME, beside ours."""
    other = None if spec is None else import_loss(spec)[0]
    over = [PLAIN] if other is None else [PLAIN, OTHER]
    yield f"Forward and backward, torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {BINS} bins a"
    yield f"side: medians of {ROUNDS} rounds in turn, and quartiles of the ratios."
    yield "plain: `tests/subjects/plain_tal.py`." + ("\n" if spec is None else f" other: `{spec}`.\n")
    yield f"| setting | loss, ms | {' | '.join(f'{name} / {OURS}' for name in over)} |"
    yield f"|---|---:|{'---:|' * len(over)}"
    for setting in settings:
        took = in_turn(steps(setting, other, backward=True))
        ratios = " | ".join(quartiles(took[name] / took[OURS]) for name in over)
        yield f"| {setting} | {1000 * np.median(took[OURS]):.1f} | {ratios} |"
        gc.collect()
    yield "\nPeak memory of a forward pass without gradient, beyond its inputs, by torch's profiler. Most of it is the"
    yield f"assignment's. Setting: {large}.\n"
    yield "| loss | MiB | times ours |\n|---|---:|---:|"
    yield from _memory(large, other)


def _memory(setting: Setting, other: Any) -> Iterator[str]:
    ours = 0
    with torch.no_grad():
        for name, step in steps(setting, other, backward=False).items():
            held = peak(step)
            ours = ours or held
            yield f"| {name} | {held / MIB:.0f} | {held / ours:.2f} |"
            gc.collect()
