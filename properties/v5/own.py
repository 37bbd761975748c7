"""What a dialect leaves to the loss: an overlap of its own, which nobody has named, and an added term.

For the overlap the loss runs on another case with the same targets and logits, each target in an image of its own.
There no two rows share a cell, unless a clamp moves two rows of one target into it. So the objectness gradient of a
cell gives the overlap of its row, and the gradients of the box logits are those of that row's box loss.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.outcome import Call
from yololoss.harness.subjects.subject import Unsupported
from yololoss.v5.hyp import Hyperparameters

from .case import Case, Options, SeededLogits
from .dialects import Dialect
from .formulas import sigmoid
from .reference import Measured, OwnOverlap, Reference, ReferenceCall

LARGEST = 2**22  # logits of the other case


def apart(case: Case) -> Case:
    """The same targets and logits, each target in an image of its own; gains and options as usual."""
    images = [int(target[0]) for target in case.targets]
    targets = tuple((i, *rest) for i, (_, *rest) in enumerate(case.targets))
    logits = tuple(x[torch.tensor(images)] for x in case.logits)
    plain: dict[str, Any] = {
        "hyp": Hyperparameters(anchor_t=case.hyp.anchor_t),
        "options": Options(),
        "layout": "contiguous",
        "predictions": SeededLogits(seed=0),  # any: the copy has its own logits
    }
    return case.with_logits(logits, batch=len(images), targets=targets, **plain)


def not_measured(case: Case) -> str | None:
    """Why a case cannot be judged by an overlap that is measured; None if it can."""
    if case.dtype in ("float16", "bfloat16"):
        return "half precision: an overlap that is taken from the loss has too few digits"
    if len(case.targets) * sum(x[0].numel() for x in case.logits) > LARGEST:
        return "too large for an overlap that is taken from the loss"
    return None


def measure(subject: LossUnderTest, case: Case, dialect: Dialect) -> Measured | None:
    """What a dialect leaves to the loss; None if that is nothing. Raises Unsupported if the loss does not show it."""
    if not dialect.taken and dialect.added_term == "none":
        return None
    own = _own_overlap(subject, case, dialect) if dialect.taken else None
    return Measured(own, _added(subject, case, dialect, own) if dialect.added_term != "none" else ())


def _own_overlap(subject: LossUnderTest, case: Case, dialect: Dialect) -> OwnOverlap:
    """What the loss makes of each row alone."""
    if not case.targets:
        return OwnOverlap(np.zeros(0), np.zeros((0, 4)), 0.0)
    other = apart(case)
    outcome = execute(subject, other)
    if not outcome.gradients:
        raise Unsupported("overlap that could be taken from it")
    known = Reference(other, dialect.but(overlap="iou"))  # rows and weights are those of any overlap
    cells, weights = known.all_cells, known.all_cell_weights
    found = np.concatenate([g.reshape(-1, g.shape[-1]) for g in outcome.gradients])[cells]
    overlaps = np.clip(sigmoid(known.all_objectness_logits.x[cells]) - found[:, 4] / weights[cells], 0, 1)
    rows = np.bincount(cells, minlength=1)[cells]  # in the same cell
    gradients = -found[:, :4] / (known.all_row_weights[:, :1] * rows[:, None])
    own = OwnOverlap(overlaps, gradients, 0.0)
    box = _box_item(outcome.calls[-1], Reference(other, dialect, Measured(own)).calls[-1], known.batch)
    return replace(own, term=box / (other.hyp.box * known.scales[0]))


def _added(subject: LossUnderTest, case: Case, dialect: Dialect, own: OwnOverlap | None) -> tuple[float, ...]:
    """What each call has beside the known terms."""
    known, calls = Reference(case, dialect, Measured(own)), execute(subject, case).calls
    if len(calls) < case.options.calls:
        raise Unsupported("added term that could be taken from it")
    if dialect.added_term == "an item":
        return tuple(sum(call.items[3:]) for call in calls)
    pairs = zip(calls, known.calls, strict=True)
    return tuple(_box_item(call, want, known.batch) - want.items[0] for call, want in pairs)


def _box_item(call: Call, known: ReferenceCall, batch: int) -> float:
    """A loss's box item; of one without items, what its total has beside the other known items."""
    return call.items[0] if len(call.items) >= 3 else call.total / batch - sum(known.items[1:])
