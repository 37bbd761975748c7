"""What the loss reads from a layer's predictions, with one dense gradient for all of it."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import FunctionCtx
from typing_extensions import override

OBJECTNESS = 4  # its channel, after x, y, w, h


class _Gather(torch.autograd.Function):
    # Autograd's own gradient of a selection is a tensor of zeros as large as what was selected from: one for
    # the objectness, one for the rows, and their sum. Here both are written into the one that is handed back.
    # A linear map, and its transpose made of differentiable operations: any higher derivative works.

    @staticmethod
    @override
    def forward(ctx: FunctionCtx, logits: Tensor, *indices: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*indices)
        ctx.shape = logits.shape  # type: ignore[attr-defined]
        return logits[..., OBJECTNESS].clone(memory_format=torch.contiguous_format), logits[indices]

    @staticmethod
    @override
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        objectness, rows = grads
        indices = ctx.saved_tensors  # type: ignore[attr-defined]
        logits = rows.new_zeros(ctx.shape)  # type: ignore[attr-defined]
        logits[..., OBJECTNESS] = objectness
        return logits.index_put_(indices, rows, accumulate=True), *(None for _ in indices)


def gather(
    logits: Float[Tensor, "B A H W K"], indices: tuple[Int64[Tensor, " n"], ...]
) -> tuple[Float[Tensor, "B A H W"], Float[Tensor, "n K"]]:
    """The objectness logits of all cells, and all logits of the rows at ``indices`` (image, anchor, row, column)."""
    objectness, rows = _Gather.apply(logits, *indices)  # type: ignore[no-untyped-call]
    return objectness, rows
