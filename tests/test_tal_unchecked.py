"""With its checks off the task-aligned loss never waits for the device, and its shapes depend only on shapes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.groups import holds_in_a_group
from tests.tal_models import CLASSES, STRIDES, batch, columns, levels, mapping, parts, step
from yololoss import Assigner, E2ELoss, TaskAlignedLoss
from yololoss.harness.devices.devices import Around, Notes, surrounded
from yololoss.harness.subjects.compiled import _quietly
from yololoss.harness.subjects.load import find_device

NOTHING = torch.zeros(3, 6)
KINDS = {
    "plain": {},
    "one bin": {"reg_max": 1},
    "top-k twice": {"assigner": Assigner(7, 1), "class_weights": [1, 2, 3]},
}


def padded(rows: Tensor) -> dict[str, Tensor]:
    """The usual targets with these rows before and after them."""
    usual = batch()
    return columns(torch.cat((rows, torch.cat((usual["batch_idx"][:, None], usual["cls"], usual["bboxes"]), 1), rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_loss(kind):
    """To the last bit: checks change nothing else."""
    for given in (batch(), columns(torch.zeros(0, 6))):
        results = [
            step(parts(checks=on, **KINDS[kind]), levels(reg_max=16 if kind != "one bin" else 1), given)
            for on in (True, False)
        ]
        assert all(map(torch.equal, *results))


INVALID = {
    "zeros": [0.0] * 6,
    "NaN": [torch.nan] * 6,
    "no such image": [2, 0, 0.5, 0.5, 0.5, 0.5],
    "image -1": [-1, 0, 0.5, 0.5, 0.5, 0.5],
    "no such class": [0, 3, 0.5, 0.5, 0.5, 0.5],
    "class -1": [0, -1, 0.5, 0.5, 0.5, 0.5],
    "infinite": [0, 1, torch.inf, 0.5, 0.5, 0.5],
    "infinitely wide": [0, 1, 0.5, 0.5, torch.inf, 0.5],
    "no height": [0, 1, 0.5, 0.5, 0.5, 0],
    "negative": [0, 1, 0.5, 0.5, -0.5, 0.5],
}


@pytest.mark.parametrize("row", INVALID.values(), ids=INVALID)
def test_invalid_rows_are_left_out(row):
    """So a batch may be padded with zeros: scores are as without them to the last bit, total and gradients nearly."""
    given = padded(torch.tensor([row, row]))
    loss = parts(checks=False)
    assigned = loss.assign(levels(), given)
    assert assigned.targets.present.tolist() == [False] * 2 + [True] * 3 + [False] * 3
    assert torch.equal(assigned.score, parts().assign(levels(), batch()).score)
    # a sum over more rows is taken in another order: a few dozen float32 numbers
    torch.testing.assert_close(step(loss, levels(), given), step(parts(), levels(), batch()), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("images", [1, 2])
def test_targets_may_be_nothing_but_padding(images):
    """A batch without a target is one of background, whatever its padding."""
    expected = step(parts(), levels(images=images), columns(torch.zeros(0, 6)))
    assert all(map(torch.equal, step(parts(checks=False), levels(images=images), columns(NOTHING)), expected))


def test_predictions_are_not_looked_at():
    """Levels of another shape with as many anchors are of another image."""
    given = mapping(levels())
    given["feats"] = [level.reshape(*level.shape[:2], 1, -1) for level in given["feats"]]
    assert parts(checks=False)(given, batch())[0].isfinite().all()


def test_centres_outside_the_image_are_taken_as_upstream_does():
    """A box that reaches into the image has anchors there."""
    assigned = parts(checks=False).assign(levels(), batch((0, 1, 1.1, 0.5, 0.6, 0.6)))
    assert bool((assigned.owners.row[0] == 0).any())


@pytest.mark.parametrize("kind", KINDS)
def test_it_never_waits_for_the_device(kind):
    """The pretend accelerator counts no wait of the host in a step, forward and backward, and no tensor elsewhere."""
    mirror = find_device("mirror")
    reg_max = 1 if kind == "one bin" else 16
    loss = parts(checks=False, device=mirror, **KINDS[kind])
    layers = [x.detach().to(mirror).requires_grad_() for x in levels(reg_max=reg_max)]
    given = {name: value.to(mirror) for name, value in batch().items()}
    notes = Notes(mirror, watched=True)
    with surrounded(mirror, Around()), notes.taken():
        total, _ = loss(layers, given)
        total.sum().backward()
    assert notes.waits == ()
    assert notes.elsewhere == ()
    expected, _ = parts(**KINDS[kind])(levels(reg_max=reg_max), batch())
    torch.testing.assert_close(total.cpu(), expected, rtol=1e-6, atol=0)  # it takes sums in an order of its own
    on_device, here = loss.assign(layers, given), parts(**KINDS[kind]).assign(levels(reg_max=reg_max), batch())
    assert torch.equal(on_device.score.cpu(), here.score)  # but what decides is the same to the last bit


def test_a_batch_may_be_elsewhere():
    """As trainers do, which move only the images: targets on the host, all or some, are copied to the predictions.

    So are class weights.
    """
    mirror, weights = find_device("mirror"), [1.0, 2.0, 3.0]
    layers = [x.detach().to(mirror) for x in levels()]
    for given in (batch(), batch() | {"bboxes": batch()["bboxes"].to(mirror)}):
        for checks in (True, False):
            with surrounded(mirror, Around()):
                total, _ = parts(checks=checks, class_weights=weights)(layers, given)
            expected, _ = parts(class_weights=weights)(levels(), batch())
            torch.testing.assert_close(total.cpu(), expected, rtol=1e-6, atol=0)  # sums


@pytest.mark.parametrize("kind", KINDS)
def test_no_operation_asks_for_a_value(kind):
    """Not inside torch either, where the pretend accelerator does not see it: as in the gradient of prod()."""
    loss, layers = parts(checks=False, **KINDS[kind]), levels(reg_max=1 if kind == "one bin" else 16)
    given = batch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        total, _ = loss(layers, given)
        total.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "aten::scatter_reduce_" in names
    assert not names & {
        "aten::item",
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::unique",
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_graph_does_not_break(kind, shapes_are_checked):
    """torch.compile takes the whole call as one graph, and the numbers stay what they are."""
    if shapes_are_checked:
        pytest.skip("the check of shapes breaks the graph")
    reg_max = 1 if kind == "one bin" else 16
    torch._dynamo.reset()
    with _quietly():
        compiled = torch.compile(parts(checks=False, **KINDS[kind]), backend="aot_eager", fullgraph=True)
        results = step(compiled, levels(reg_max=reg_max), batch())
    expected = step(parts(**KINDS[kind]), levels(reg_max=reg_max), batch())
    # the compiler may take sums in another order: a few hundred float32 numbers
    torch.testing.assert_close(results, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_the_graph_of_two_heads_lives_through_epochs(shapes_are_checked):
    """Weights that change each epoch do not compile it again each time, which torch would give up after eight times."""
    if shapes_are_checked:
        pytest.skip("the check of shapes breaks the graph")
    loss = E2ELoss.from_parts(STRIDES, CLASSES, epochs=20, checks=False)
    torch._dynamo.reset()
    with _quietly():
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        for _ in range(12):
            total, _ = compiled({"one2many": mapping(levels()), "one2one": mapping(levels())}, batch())
            loss.update()
    assert total.isfinite().all()


class Network(nn.Module):
    """One convolution, whose output is one level."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(2, 4 * 4 + CLASSES, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.head(x)]


def learnt(network: nn.Module) -> list[Tensor]:
    """The gradients of a network's parameters."""
    network.zero_grad()
    image = torch.linspace(-1, 1, 2 * 2 * 48).view(2, 2, 6, 8)
    TaskAlignedLoss.from_parts([8], CLASSES, 4)(network(image), batch())[0].sum().backward()
    return [p.grad.clone() for p in network.parameters()]


def learns_the_same(folder: Path) -> None:
    """DistributedDataParallel's own hooks see the same gradients."""
    network = Network()
    alone = learnt(network)
    assert all(map(torch.equal, learnt(nn.parallel.DistributedDataParallel(network)), alone))


def test_a_network_that_is_distributed_learns_the_same(tmp_path):
    """As it does alone."""
    assert holds_in_a_group(learns_the_same, tmp_path)


def test_the_graph_may_be_kept():
    """Backward twice over a kept graph doubles the gradient."""
    layers = levels()
    total = parts()(layers, batch())[0].sum()
    total.backward(retain_graph=True)
    once = [x.grad.clone() for x in layers]
    total.backward()
    assert all(torch.equal(x.grad, 2 * g) for x, g in zip(layers, once, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need CUDA")
def test_cuda_graphs_capture_it():
    """A step is captured, forward and backward, and replayed on other predictions and targets."""
    loss = parts(checks=False, device="cuda")
    layers = [x.detach().cuda().requires_grad_() for x in levels()]
    given = {name: value.cuda() for name, value in padded(NOTHING).items()}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # a capture wants a step before it, on a stream of its own
        step(loss, layers, given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, _ = loss(layers, given)
        gradients = torch.autograd.grad(total.sum(), layers)
    with torch.no_grad():
        for x in layers:
            x.mul_(0.5)
        given["bboxes"].mul_(0.9)
    graph.replay()
    torch.testing.assert_close((total, *gradients), step(loss, layers, given))
