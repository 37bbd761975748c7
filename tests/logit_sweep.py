"""Loss and gradient over every magnitude of logit: ``python -m tests.logit_sweep > docs/measured/logit-sweep.md``."""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from yololoss import ComputeLoss, Hyperparameters

SIDE = 24  # one matched cell for each of SIDE * SIDE logits
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CHANNELS = {"x, y": (0, 1), "w": (2,), "h": (3,), "w and h": (2, 3), "objectness": (4,), "classes": (5, 6, 7)}
# From -1e4 to 1e4, denser near 0, with the limits at which upstream's gradient or loss is lost.
LIMITS = (-53.0, -51.75, -48.0, -45.5, -28.75, -23.25, -10.0, -9.5)


def magnitudes() -> Tensor:
    """SIDE * SIDE finite logits from -1e4 to 1e4."""
    each_way = (SIDE * SIDE - len(LIMITS)) // 2
    up = torch.logspace(-3, 4, each_way, dtype=torch.float64)
    return torch.cat((-up, torch.tensor(LIMITS, dtype=torch.float64), up))


def fields() -> Iterator[tuple[str, Tensor]]:
    """Name and logits, (SIDE, SIDE, 8): each channel group over all magnitudes, and w against h."""
    values = magnitudes().view(SIDE, SIDE)
    for name, channels in CHANNELS.items():
        logits = torch.zeros(SIDE, SIDE, 8, dtype=torch.float64)
        logits[..., channels] = values[..., None]
        yield name, logits
    crossed = torch.zeros(SIDE, SIDE, 8, dtype=torch.float64)
    steps = torch.cat((-torch.logspace(0, 4, SIDE // 2), torch.logspace(0, 4, SIDE // 2)))
    crossed[..., 2], crossed[..., 3] = steps[:, None], steps[None, :]
    yield "w against h", crossed


def run(logits: Tensor, dtype: torch.dtype, autocast: torch.dtype | None, gamma: float) -> tuple[bool, bool]:
    """Whether loss and gradient are finite with a target in every cell."""
    axis = (torch.arange(SIDE) + 0.4) / SIDE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    rows = torch.zeros(SIDE * SIDE, 6)
    rows[:, 1] = torch.arange(SIDE * SIDE) % 3
    rows[:, 2], rows[:, 3] = x.flatten(), y.flatten()
    rows[:, 4:] = torch.tensor((1.3, 0.9)) / SIDE
    loss = ComputeLoss.from_parts([[[1.0, 1.5]]], [8], 3, Hyperparameters(fl_gamma=gamma, obj_pw=2.0))
    p = logits.to(dtype)[None, None].requires_grad_()
    context = nullcontext() if autocast is None else torch.autocast("cpu", dtype=autocast)
    with context:
        total, _ = loss([p], rows)
    (gradient,) = torch.autograd.grad(total.sum(), p)
    return bool(total.isfinite().all()), bool(gradient.isfinite().all())


def table() -> Iterator[str]:
    """The result as a Markdown table."""
    yield "| dtype | autocast | focal gamma | logits swept | loss | gradient |"
    yield "|---|---|---|---|---|---|"
    for dtype in DTYPES:
        for autocast in (None, torch.float16, torch.bfloat16):
            for gamma in (0.0, 0.5):
                for name, logits in fields():
                    marks = ["finite" if ok else "NOT FINITE" for ok in run(logits, dtype, autocast, gamma)]
                    cast = str(autocast).removeprefix("torch.") if autocast else "off"
                    yield f"| {str(dtype)[6:]} | {cast} | {gamma:g} | {name} | {' | '.join(marks)} |"


if __name__ == "__main__":
    print("# Loss and gradient over every magnitude of logit\n")
    print(f"{SIDE * SIDE} logits a row of the table, from -1e4 to 1e4, each in a matched cell of its own; the")
    print('others are 0. "w against h" crosses magnitudes of both. Made by')
    print("`python -m tests.logit_sweep > docs/measured/logit-sweep.md`; a test compares it.\n")
    print("\n".join(table()))
