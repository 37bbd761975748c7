"""With its checks off the loss never waits for the device, and its shapes depend only on shapes."""

import pytest
import torch
from torch import Tensor

from properties.v5.strategies import USUAL
from tests.models import ANCHORS, GRIDS, parts, predictions, targets
from tests.waits import waits_of
from yololoss import ComputeLoss
from yololoss.harness.config import BUNDLED
from yololoss.harness.subjects.compiled import graph_breaks
from yololoss.harness.subjects.load import find_device, load_loss
from yololoss.v5.assign import assign_layer

UNCHECKED = "tests.subjects.conforming_forms:Unchecked"
NOTHING = torch.zeros(3, 6)


def step(loss: ComputeLoss, given: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """The total, the items and the gradients."""
    p = predictions(dtype)
    total, items = loss(p, given)
    return total.detach(), items, *torch.autograd.grad(total.sum(), p)


def assert_equal(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> None:
    # float64 inside; sums of as many terms, in another order, and totals rounded to float32
    torch.testing.assert_close(one[:2], other[:2], rtol=2e-7, atol=0)
    torch.testing.assert_close(one[2:], other[2:], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("sort", [False, True])
def test_it_is_the_same_loss(sort, monkeypatch):
    """Total, items and gradients equal those with checks on, except for rounding; also if rows share cells."""
    monkeypatch.setattr(ComputeLoss, "sort_obj_iou", sort)
    given = torch.cat((targets(), targets() * torch.tensor([1, 1, 0.99, 1.01, 1, 1.0])))
    assert_equal(step(parts(checks=False), given), step(parts(), given))


@pytest.mark.parametrize("padding", [NOTHING, NOTHING * torch.nan], ids=["zeros", "NaN"])
def test_targets_may_be_padded(padding):
    """Targets of zeros, or NaN, match nothing, so a batch can always have the same number of them."""
    assert_equal(step(parts(checks=False), torch.cat((targets(), padding))), step(parts(), targets()))


def test_one_row_is_weighed_as_one():
    """A small target in the middle of a cell: one row in all, and none of the other layer."""
    one = targets((0, 2, 2.5 / 8, 1.5 / 6, 0.05, 0.08))
    assert [len(a.cls) for a in parts().assign(predictions(), one)] == [1, 0]
    assert_equal(step(parts(checks=False), one), step(parts(), one))


def test_targets_may_be_nothing_but_padding():
    """A batch without a target is one of background, whatever its padding."""
    assert_equal(step(parts(checks=False), NOTHING), step(parts(), torch.zeros(0, 6)))
    assert_equal(step(parts(checks=False), torch.zeros(0, 6)), step(parts(), torch.zeros(0, 6)))


def test_what_no_row_uses_may_be_anything():
    """NaN among the box logits of cells without a row reaches neither the loss nor another cell's gradient."""
    p = predictions()
    used = torch.autograd.grad(parts()(p, targets())[0].sum(), p)
    spoilt = [
        torch.where(g[..., :1] == 0, torch.tensor([torch.nan] * 4 + [0.0] * 4), 0) + x.detach()
        for x, g in zip(p, used, strict=True)
    ]
    for checks in (True, False):
        given = [x.clone().requires_grad_() for x in spoilt]
        total, _ = parts(checks=checks)(given, torch.cat((targets(), NOTHING)) if not checks else targets())
        assert total.isfinite().all()
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(total.sum(), given))


def test_rows_that_are_there_are_those_that_are_present():
    """An assignment has the rows that are there, unless it is asked for every one; those it tells apart."""
    given = targets(), torch.tensor(ANCHORS[0]), GRIDS[0], 4.0
    some, every = assign_layer(*given), assign_layer(*given, every_row=True)
    assert some.present is None
    assert every.present is not None
    assert len(every.cls) == 5 * len(ANCHORS[0]) * len(targets())
    for name in ("row_choice", "target", "anchor", "cell", "box", "cls", "image"):
        assert torch.equal(getattr(every, name)[every.present], getattr(some, name))


def test_every_row_lies_on_the_device():
    """Not even an index is made elsewhere: to hand one over is a copy, which no CUDA graph captures."""
    mirror = find_device("mirror")
    given = targets().to(mirror), torch.tensor(ANCHORS[0]).to(mirror), GRIDS[0], 4.0
    made = vars(assign_layer(*given, every_row=True))
    assert {value.device for value in made.values() if isinstance(value, Tensor)} == {given[0].device}


def test_it_never_waits_for_the_device():
    """The pretend accelerator counts no wait of the host in a step, forward and backward."""
    assert waits_of(UNCHECKED) == ()


@pytest.mark.slow
def test_its_graph_does_not_break(shapes_are_checked):
    """torch.compile takes the whole call as one graph."""
    if shapes_are_checked:
        pytest.skip("the check of shapes breaks the graph")
    cpu = torch.device("cpu")
    assert graph_breaks(load_loss(UNCHECKED, cpu).make(USUAL, cpu), *USUAL.inputs(cpu)) == []
    assert graph_breaks(load_loss(BUNDLED, cpu).make(USUAL, cpu), *USUAL.inputs(cpu)) != []


def test_no_operation_asks_for_a_value():
    """Not inside torch either, where the pretend accelerator does not see it: as in the gradient of prod()."""
    cpu = torch.device("cpu")
    subject, (p, targets) = load_loss(UNCHECKED, cpu).make(USUAL, cpu), USUAL.inputs(cpu)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        subject.loss(p, targets)[0].sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::scatter_reduce_" in names
    assert not names & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need CUDA")
def test_cuda_graphs_capture_it():
    """A step is captured, forward and backward, and replayed on other predictions and targets."""
    loss = parts(checks=False, device="cuda")
    p = [x.detach().cuda().requires_grad_() for x in predictions()]
    given = torch.cat((targets(), NOTHING)).cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # a capture wants a step before it, on a stream of its own
        torch.autograd.grad(loss(p, given)[0].sum(), p)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, _ = loss(p, given)
        gradients = torch.autograd.grad(total.sum(), p)
    with torch.no_grad():
        for x in p:
            x.mul_(0.5)
        given[:3, 2:4].mul_(0.9)
    graph.replay()
    total_now, _ = loss(p, given)
    torch.testing.assert_close(total, total_now)
    torch.testing.assert_close(gradients, torch.autograd.grad(total_now.sum(), p))
