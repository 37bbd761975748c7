"""What the loss reads from the predictions, and the one gradient that it returns."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.groups import holds_in_a_group
from tests.models import ANCHORS, BATCH, CLASSES, GRIDS, parts, predictions, targets
from yololoss.v5.gather import OBJECTNESS, gather

INDICES = tuple(torch.tensor(i) for i in ((0, 1, 0), (1, 0, 1), (2, 0, 2), (1, 1, 1)))  # the first and last are equal


def logits() -> Tensor:
    values = torch.linspace(-2, 2, 2 * 2 * 3 * 2 * 7, dtype=torch.float64)
    return values.view(2, 2, 3, 2, 7).requires_grad_()


def test_what_is_read_is_what_is_there():
    """The objectness of every cell, and all logits of each row."""
    given = logits()
    objectness, rows = gather(given, INDICES)
    assert torch.equal(objectness, given[..., OBJECTNESS])
    assert torch.equal(rows, given[INDICES])


def test_gradients_are_those_of_indexing():
    """First and second derivatives agree with finite differences, also if two rows share a cell."""

    def read(given: Tensor) -> tuple[Tensor, ...]:
        objectness, rows = gather(given, INDICES)
        return objectness.sin(), rows.sin()

    assert torch.autograd.gradcheck(read, logits())
    assert torch.autograd.gradgradcheck(read, logits())


def test_predictions_of_any_layout_are_read():
    """A permuted view, as of a convolution's output, gives the same values and gradient."""
    given = logits()
    turned = given.detach().permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2).requires_grad_()
    for x in (given, turned):
        objectness, rows = gather(x, INDICES)
        (objectness.square().sum() + rows.square().sum()).backward()
    assert turned.grad is not None
    assert given.grad is not None
    assert torch.equal(turned.grad, given.grad)


class Made(TorchDispatchMode):
    """Keeps every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.tensors += [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        return result


def test_nothing_else_as_large_as_the_predictions_is_made():
    """From the call to the gradients there is one new tensor of a layer's size: the gradient itself."""
    p = predictions()
    with Made() as made:
        gradients = torch.autograd.grad(parts()(p, targets())[0].sum(), p)
    for x, gradient in zip(p, gradients, strict=True):
        memory = {y.untyped_storage().data_ptr() for y in made.tensors if y.untyped_storage().nbytes() == x.nbytes}
        assert memory - {x.data_ptr()} == {gradient.data_ptr()}


def test_second_derivatives_of_the_loss_are_there():
    """A penalty on the gradient's size has a gradient, as for a loss without its own autograd function."""
    p = predictions(torch.float64)
    first = torch.autograd.grad(parts()(p, targets())[0].sum(), p, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), p)
    assert all(bool(g.isfinite().all()) and bool(g.any()) for g in second)


def test_the_graph_may_be_kept_and_hooked():
    """Backward twice over a kept graph doubles the gradient; a hook sees it once each time."""
    p = predictions()
    seen: list[Tensor] = []
    p[0].register_hook(seen.append)
    total = parts()(p, targets())[0].sum()
    total.backward(retain_graph=True)
    once = copy.deepcopy(p[0].grad)
    total.backward()
    assert once is not None
    assert p[0].grad is not None
    assert torch.equal(p[0].grad, 2 * once)
    assert len(seen) == 2


@pytest.mark.parametrize("learning", [(True, False), (False, True)])
def test_layers_that_do_not_learn_get_no_gradient(learning):
    """Only some layers' predictions require a gradient; they get the same one as if all did."""
    everywhere = predictions()
    parts()(everywhere, targets())[0].sum().backward()
    p = [x.detach().requires_grad_(wanted) for x, wanted in zip(predictions(), learning, strict=True)]
    parts()(p, targets())[0].sum().backward()
    for x, among_others, wanted in zip(p, everywhere, learning, strict=True):
        assert among_others.grad is not None
        assert x.grad is None if not wanted else torch.equal(x.grad, among_others.grad)


class Network(nn.Module):
    """One convolution a layer of predictions, in upstream's layout: a permuted view."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleList(nn.Conv2d(2, len(ANCHORS[0]) * (5 + CLASSES), 1) for _ in GRIDS)

    def forward(self, x: Tensor) -> list[Tensor]:
        pooled = (nn.functional.adaptive_avg_pool2d(x, grid) for grid in GRIDS)
        made = (head(y) for head, y in zip(self.heads, pooled, strict=True))
        return [y.view(BATCH, len(ANCHORS[0]), 5 + CLASSES, *y.shape[2:]).permute(0, 1, 3, 4, 2) for y in made]


def learnt(network: nn.Module) -> list[Tensor]:
    """The gradients of a network's parameters, in float32."""
    network.zero_grad()
    image = torch.linspace(-1, 1, BATCH * 2 * 12 * 16).view(BATCH, 2, 12, 16)
    parts()(network(image), targets())[0].sum().backward()
    return [p.grad.float().clone() for p in network.parameters() if p.grad is not None]


def learns_the_same(folder: Path) -> None:
    """DistributedDataParallel's own hooks see the same gradients."""
    network = Network()
    alone = learnt(network)
    assert all(map(torch.equal, learnt(nn.parallel.DistributedDataParallel(network)), alone))


def test_a_network_that_is_distributed_learns_the_same(tmp_path):
    """As it does alone."""
    assert holds_in_a_group(learns_the_same, tmp_path)


def test_a_network_under_autocast_learns_nearly_the_same():
    """Predictions in bfloat16 give gradients that differ by its rounding: 2^-8, of sums of a few hundred."""
    network = Network()
    alone = learnt(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = learnt(network)
    for one, other in zip(alone, halved, strict=True):
        assert (one - other).abs().max() < 0.02 * one.abs().max()
