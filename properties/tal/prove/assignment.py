"""Every float32 centre, and with it a side: which anchors a loss gives a target, compared with exact arithmetic.

One image for each centre, with one target. Its top-k takes all anchors, so its anchors are those inside its box, and
each has a score, which the gradient of the class logit shows. The centre is that of x. Its number is also the side of
y, whose centre is always the same. Each anchor predicts the target's box.

A loss computes edges in float32, and may make a round trip through centre and size. So an anchor nearer to an edge than
`NEAR` may be inside or not. All others are decided here in float64, in which each number of this is exact: multiples of
2^-44 pixels below 64. A smaller centre differs from 0 by less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from yololoss.harness.prove.centres import batches, bits, centre, centres, first_raising, raised_at_once
from yololoss.harness.prove.proof import Unprovable
from yololoss.harness.subjects.family import LossUnderTest

from ..case import SIDES, Case, GivenLogits
from ..reference import Reference

GRIDS, STRIDES = ((4, 2), (2, 1)), (8.0, 16.0)  # 10 anchors, the usual top-k
HEIGHT, WIDTH = 32, 16  # pixels
SIDE = 1.25  # of x, as a fraction of the image: no loss enlarges it, and it always has an anchor of the second level
MIDDLE = 0.25  # the centre of y: an anchor of the second level
LEAST = 2.0**-18  # side of y: with a smaller one, few digits of the predicted box are left, and so of the score
NEAR = 2.0**-16  # pixels: eight roundings of numbers below 64, each at most 2^-19
SHOWN = 0.99  # a class gradient of the background times this is larger than one with a score, which is near 1
BATCH = 2**13  # images per call: more do not fit the processor's cache

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Odd:
    """A centre whose anchors are wrong, or on which the loss raised."""

    bits: int


def frame(targets: Sequence[tuple[float, ...]] = (), levels: Sequence[Singles] = ()) -> Case:
    """A case of one image on these grids, with these levels (4 + 1, H, W)."""
    sizes = [(SIDES + 1) * rows * columns for rows, columns in GRIDS]
    given = [each.flatten().tolist() for each in levels] or [[0.0] * size for size in sizes]
    return Case(
        batch=1,
        classes=1,
        reg_max=1,
        grids=GRIDS,
        strides=STRIDES,
        targets=tuple(targets),  # type: ignore[arg-type]  # checked when it is made
        predictions=GivenLogits(layers=tuple(map(tuple, given))),
    )


@cache
def reference() -> Reference:
    """The anchors of the grids."""
    return Reference(frame())


def changes() -> set[int]:
    """The bits of the centres at which an anchor comes in or goes out, on either axis, and of the smallest sides."""
    x, y = (reference().points * reference().strides[:, None]).T
    half = SIDE * WIDTH / 2
    edges = {float(edge) / WIDTH for point in x for edge in (point - half, point + half) if 0 <= edge <= WIDTH}
    sides = {2 * abs(float(point) / HEIGHT - MIDDLE) for point in y}
    return {bits(each) for each in (*edges, *sides, LEAST, *(stride / HEIGHT for stride in STRIDES))}


def rows(first: int, stop: int) -> Singles:
    """The targets of the centres of these bits, (n, 6): image, class, x, y, w, h."""
    x = centres(first, stop)
    made = np.zeros((len(x), 6), dtype=np.float32)
    made[:, 0], made[:, 2] = np.arange(len(x)), x
    made[:, 3:] = np.stack((np.full_like(x, MIDDLE), np.full_like(x, SIDE), np.maximum(x, LEAST)), axis=1)
    return made


def levels(targets: Singles) -> list[Singles]:
    """Predictions of these targets' boxes, (n, 4 + 1, H, W) for each level. Each class logit is 0."""
    middle, half = targets[:, 2:4, None] * ((WIDTH,), (HEIGHT,)), targets[:, 4:, None] * ((WIDTH,), (HEIGHT,)) / 2
    points, strides = reference().points.T, reference().strides
    away = points * strides - middle
    sides = np.concatenate((away + half, half - away), axis=1) / strides
    joined = np.concatenate((sides, np.zeros_like(sides[:, :1])), axis=1).astype(np.float32)
    sizes = [rows * columns for rows, columns in GRIDS]
    parts = np.split(joined, np.cumsum(sizes)[:-1], axis=2)
    return [part.reshape(*part.shape[:2], *grid) for part, grid in zip(parts, GRIDS, strict=True)]


def found(subject: LossUnderTest, first: int, stop: int) -> Bools:
    """Which anchors the loss gives the target of each centre of these bits, (n, A)."""
    targets = rows(first, stop)
    p = [torch.from_numpy(level).to(subject.device).requires_grad_() for level in levels(targets)]
    made = subject.make(frame(), subject.device)
    if not made.any_size:
        raise Unprovable("it takes inputs of one size only")
    total, _ = made.loss(list(p), torch.from_numpy(targets).to(subject.device))
    grads = torch.autograd.grad(total.sum(), p)
    shown = torch.cat([grad[:, SIDES].reshape(len(targets), -1) for grad in grads], dim=1).cpu().numpy()
    return np.asarray(shown < SHOWN * shown.max())


def wanted(subject: LossUnderTest, first: int, stop: int) -> tuple[Bools, Bools]:
    """Which anchors the target of each centre must have, and which it may have, (n, A)."""
    r = Reference(frame(), subject.dialect)
    x, y = (r.points * r.strides[:, None]).T
    targets = rows(first, stop).astype(np.float64)
    middle, sides = targets[:, 2:3] * WIDTH, targets[:, 5:] * HEIGHT
    below, enlarged = r.small_side
    across = SIDE * WIDTH / 2 - abs(x - middle)
    # a side as near to the bound may be enlarged or not
    within = [
        np.minimum(across, np.where(sides < bound, enlarged, sides) / 2 - abs(y - MIDDLE * HEIGHT))
        for bound in (below - NEAR, below + NEAR)
    ]
    return np.minimum(*within) > NEAR, np.maximum(*within) > -NEAR


def odd_in(subject: LossUnderTest, first: int, stop: int) -> Odd | None:
    """The first centre of these bits with wrong anchors, tried batch by batch. Raises Unprovable."""
    each = (_odd(subject, *bits) for bits in batches(first, stop, BATCH))
    return next((odd for odd in each if odd is not None), None)


def _odd(subject: LossUnderTest, first: int, stop: int) -> Odd | None:
    try:
        got = found(subject, first, stop)
    except Unprovable:
        raise
    except Exception as error:
        raising = first_raising(partial(found, subject), first, stop)
        if raising is None:
            raise raised_at_once(stop - first, error) from error
        return Odd(raising)
    must, may = wanted(subject, first, stop)
    wrong = ((must & ~got) | (got & ~may)).any(axis=1)
    return Odd(first + int(wrong.argmax())) if wrong.any() else None


def alone(odd: Odd) -> Case:
    """The target of this centre as the only one."""
    target = rows(odd.bits, odd.bits + 1)
    return frame([tuple(target[0].tolist())], [level[0] for level in levels(target)])


def shown(subject: LossUnderTest, odd: Odd) -> tuple[str, str]:
    """The anchors that a centre must have, and those that it has if it is the only target."""
    must, may = wanted(subject, odd.bits, odd.bits + 1)
    either = "".join(f", perhaps {n}" for n in np.flatnonzero(may[0] & ~must[0]))
    try:
        observed = f"{np.flatnonzero(found(subject, odd.bits, odd.bits + 1)[0]).tolist()}"
    except Exception as error:
        observed = f"{type(error).__name__}: {error}"
    return f"anchors {np.flatnonzero(must[0]).tolist()}{either}", observed


def place(odd: Odd) -> str:
    """The centre, in words."""
    return f"centre {centre(odd.bits)!r} (bits {odd.bits:#010x})"
