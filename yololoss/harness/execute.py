"""Running a subject on a case: fresh subject, own copies of the inputs, everything it did written down."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.case import Case, Layout
from yololoss.harness.outcome import Call, Grid, Outcome, Trouble
from yololoss.harness.subject import LossUnderTest, Subject


def execute(under_test: LossUnderTest, case: Case) -> Outcome:
    """Build the subject, ask for its rows, call it as often as the case says, take the gradient."""
    device = under_test.device
    troubles: list[Trouble] = []
    p, targets = _inputs(case, device)
    before = [t.detach().clone() for t in (*p, targets)]
    rows = None
    calls: list[Call] = []
    gradients: tuple[Grid, ...] = ()
    stage = "construction"
    try:
        subject = under_test.make(case, device)
        stage = "build_targets"
        rows = subject.rows(p, targets)
        stage = "loss"
        for _ in range(case.options.calls):
            total, items = subject.loss(p, targets)
            calls.append(_call(subject, total, items))
        stage = "backward"
        gradients = _gradients(total, p)
    except Exception as error:  # whatever a subject raises is what it did, not a fault of the harness
        troubles.append(Trouble(f"raised in {stage}", f"{type(error).__name__}: {error}"))
    names = [*(f"predictions[{i}]" for i in range(len(p))), "targets"]
    for name, old, new in zip(names, before, (*p, targets), strict=True):
        if not torch.equal(old.nan_to_num(), new.detach().nan_to_num()):
            troubles.append(Trouble("changed its input", name))
    return Outcome(tuple(calls), None if rows is None else tuple(rows), gradients, tuple(troubles))


def _inputs(case: Case, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Predictions as a head hands them over (no leaves), and targets, in the case's layout."""
    p = [_laid_out(x.to(device, copy=True).requires_grad_(), case.layout) for x in case.logits]
    targets = case.target_rows.to(device, copy=True)
    if case.layout == "sliced":
        targets = torch.nn.functional.pad(targets, (1, 1), value=7)[:, 1:-1]
    return p, targets


def _laid_out(leaf: Tensor, layout: Layout) -> Tensor:
    """The leaf's values in other memory: (B, A, H, W, 5 + C) whatever the layout."""
    if layout == "channels_last":  # the convolution's own order, before the head's .contiguous()
        return leaf.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    if layout == "transposed":
        return leaf.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "sliced":
        return torch.nn.functional.pad(leaf, (1, 1, 1, 1), value=7)[..., 1:-1, 1:-1]
    if layout == "expanded":
        return leaf[:1].expand_as(leaf)
    return leaf.clone()


def _call(subject: Subject, total: Tensor, items: Any) -> Call:
    tensors = [t for t in (total, items) if isinstance(t, Tensor)]
    values = items.detach().double().flatten().tolist() if isinstance(items, Tensor) else _plain(items)
    balance = subject.balance()
    return Call(
        total=float(total.detach().sum()),
        items=tuple(values),
        balance=None if balance is None else tuple(balance),
        total_shape=tuple(total.shape),
        items_shape=tuple(items.shape) if isinstance(items, Tensor) else (len(values),),
        total_dtype=_name(total.dtype),
        items_dtype=_name(items.dtype) if isinstance(items, Tensor) else "float",
        total_requires_grad=total.requires_grad,
        items_require_grad=any(t.requires_grad for t in tensors[1:]),
        devices=tuple(t.device.type for t in tensors),
    )


def _plain(items: Sequence[Any] | None) -> list[float]:
    return [] if items is None else [float(v) for v in items]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gradients(total: Tensor, p: list[Tensor]) -> tuple[Grid, ...]:
    grads = torch.autograd.grad(total.sum(), p, allow_unused=True)
    return tuple(
        np.zeros(tuple(x.shape)) if g is None else g.detach().double().cpu().numpy()
        for x, g in zip(p, grads, strict=True)
    )
