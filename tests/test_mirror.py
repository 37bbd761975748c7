"""The mirror refuses what CUDA refuses, differs from a CPU where CUDA may, and counts waits of the host."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from yololoss.harness.devices import mirror
from yololoss.harness.devices.mirror import MIRROR, DeviceAssert, MirrorTensor
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.load import find_device, find_devices


@pytest.fixture(autouse=True)
def device():
    """The mirror, reset."""
    found = find_device("mirror")
    MIRROR.begin(0)
    with torch.autograd.set_multithreading_enabled(False):  # as the harness does
        yield found


def on(values, **options):
    return torch.tensor(values, device="mirror", **options)


def test_a_tensor_on_the_mirror_is_a_tensor_like_any_other():
    """Made there or moved there, written, sliced, copied, pickled, converted, with gradients."""
    x = torch.arange(6.0).to("mirror").reshape(2, 3).requires_grad_()
    (2 * x[:, 1:]).sum().backward()
    assert x.grad.tolist() == [[0, 2, 2], [0, 2, 2]]
    y = on([[1.0, 2.0], [3.0, 4.0]])
    y[0] *= 10
    y.unsqueeze_(0)
    assert y.shape == (1, 2, 2)
    assert y.cpu().tolist() == [[[10, 20], [3, 4]]]
    assert str(y[0, 0]) == "tensor([10., 20.], device='mirror:0')"
    for copied in (copy.deepcopy(x.detach()), pickle.loads(pickle.dumps(x.detach())), y.new_tensor([1.0])):
        assert isinstance(copied, MirrorTensor)
    assert pickle.loads(pickle.dumps(x)).requires_grad
    assert copy.deepcopy(y[0, 1]).tolist() == [3, 4]  # a part, which does not begin where its memory does
    assert "requires_grad=True" in str(x)
    assert y.sum().item() == 37
    np.testing.assert_array_equal(y.numpy(force=True), [[[10, 20], [3, 4]]])


def test_in_inference_mode_a_tensor_can_be_detached():
    """A loss may use these to assign or to validate."""
    given = on([1.0, 2.0])
    with torch.inference_mode():
        assert given.detach().cpu().tolist() == [1.0, 2.0]


def test_it_is_no_numpy_array():
    """As on CUDA: it must be copied to the host first."""
    with pytest.raises(TypeError, match=r"can't convert mirror:0 device type tensor to numpy\. Use Tensor\.cpu\(\)"):
        on([1.0]).numpy()
    with pytest.raises(TypeError, match="to numpy"):
        np.asarray(on([1.0]))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.tensor(1.0).add_(x[0]),
        lambda x: torch.stack((x[0], torch.tensor(1.0))),
        lambda x: x.gather(0, torch.tensor([0])),
        lambda x: x.index_put_((on([0]),), torch.ones(1)),
        lambda x: torch.ones(3)[on([0])],
        lambda x: x.clamp(min=torch.zeros(3)),
        lambda x: binary_cross_entropy_with_logits(x, x, pos_weight=torch.tensor([1.0])),
    ],
)
def test_tensors_of_two_devices_are_refused(mixed):
    """The mirror refuses them where CUDA does."""
    with pytest.raises(RuntimeError, match="same device"):
        mixed(on([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.tensor(1.0),
        lambda x: torch.where(x > 2, torch.tensor(0.0), x),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.index_put_((torch.tensor([0]),), torch.tensor(5.0)),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: torch.ones(3).copy_(x),
        lambda x: x.masked_fill(x > 1, torch.tensor(0.0)),
    ],
)
def test_numbers_and_indices_may_come_from_the_cpu(mixed):
    """The mirror accepts them where CUDA does."""
    mixed(on([1.0, 2.0, 3.0]))


def last_written(write):
    """The values that came last in one cell, over many seeds."""
    found = set()
    for seed in range(20):
        MIRROR.begin(seed)
        found.add(float(write(torch.zeros(2, device="mirror"), on([1, 1, 1]), on([1.0, 2.0, 3.0]))[1]))
    return found


ALL = slice(None)


def assigned(x, place, values):
    """A copy of x after ``x[place] = values``."""
    copy = x.clone()
    copy[place] = values
    return copy


WRITES = {
    "index_put_": lambda x, i, v: x.index_put_((i,), v),
    "index_put": lambda x, i, v: x.index_put((i,), v),
    "assignment": assigned,
    "assignment beside a slice": lambda x, i, v: assigned(x[None], (ALL, i), v)[0],
    "assignment around a slice": lambda x, i, v: assigned(x.expand(2, 1, 2), (i, ALL, i), v[:, None])[1, 0],
    "mask": lambda x, i, v: torch.stack((x, x)).index_put_((on([True, False]), i[:2]), v[:2])[0],
    "scatter": lambda x, i, v: x.scatter(0, i, v),
    "index_copy": lambda x, i, v: x[:, None].index_copy(0, i, v[:, None])[:, 0],
}


def test_any_element_that_is_put_may_be_the_last():
    """put_ has no deterministic form."""
    assert len(last_written(lambda x, i, v: x.put_(i, v))) > 1
    assert len(last_written(lambda x, i, v: x.put(i, v))) > 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_any_write_to_a_place_may_be_the_last(write):
    """The seed decides, and the same seed gives the same; in order if algorithms must be deterministic."""
    found = last_written(write)
    assert len(found) > 1
    assert last_written(write) == found
    torch.use_deterministic_algorithms(True)
    try:
        assert len(last_written(write)) == 1
    finally:
        torch.use_deterministic_algorithms(False)


FIRST, MASK, PAIRS = torch.tensor([2, 0]), torch.tensor([True, False, True]), torch.tensor([[1], [2]])
PLACES = [
    *((FIRST,), (ALL, FIRST), (ALL, ALL, FIRST), (..., FIRST), (0, ALL, FIRST), (ALL, 0, FIRST)),
    *((ALL, FIRST, FIRST), (FIRST, ALL, FIRST), (FIRST, ALL, ALL, FIRST), (ALL, FIRST, ALL, FIRST)),
    *((MASK,), (ALL, MASK), (MASK, ALL, FIRST), (ALL, MASK & ~MASK), (ALL, FIRST[:0])),
    *((PAIRS,), (ALL, PAIRS), (PAIRS, ALL, FIRST), (ALL, PAIRS, FIRST)),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_places_that_are_not_repeated_are_written_as_on_a_cpu(place):
    """Whatever lies before, between or behind the indices; each value alone, or a number for all."""
    x = torch.arange(81.0).reshape(3, 3, 3, 3)
    there = tuple(part.to("mirror") if isinstance(part, torch.Tensor) else part for part in place)
    for values in (torch.rand(x[place].shape), torch.tensor(0.5)):
        assert torch.equal(assigned(x.to("mirror"), there, values.to("mirror")).cpu(), assigned(x, place, values))


@pytest.mark.parametrize(
    "write",
    [
        lambda x, i, v: x.masked_scatter_(i[:2] > 0, v),
        lambda x, i, v: x.index_fill_(0, i, v[0]),
        lambda x, i, v: x.scatter_(0, i, 5.0),
        lambda x, i, v: x.scatter_reduce_(0, i, v, "amax"),
        lambda x, i, v: x.index_put_((i,), v[0]),
    ],
)
def test_writes_whose_order_does_not_matter_are_written_as_they_are(write):
    """A mask has a value for each place; one number for all, and a maximum, are the same in any order."""
    assert len(last_written(write)) == 1


def test_scalars_and_slices_are_written_as_they_are():
    """Writes without an order are not changed: a number written by index, an index beside a slice, no index at all."""
    x = torch.zeros(2, 2, device="mirror")
    x[:, on([0, 0])] = 1.0
    x.scatter_(1, on([[1], [1]]), 5.0)
    assert x.tolist() == [[1, 5], [1, 5]]
    assert x.scatter(0, on([[]], dtype=torch.long), on([[]])).tolist() == x.tolist()


def test_sums_come_in_another_order_than_on_the_cpu():
    """Always the same, and equal except for rounding. Atomic additions are made in any order."""
    torch.manual_seed(0)
    x = torch.randn(3, 1001)
    there = x.to("mirror")
    for reduce in (
        lambda x: x.sum(),
        lambda x: x.mean(),
        lambda x: x.sum(1),
        lambda x: binary_cross_entropy_with_logits(x, x.sigmoid(), reduction="sum"),
        lambda x: binary_cross_entropy_with_logits(x, x.sigmoid()),
    ):
        MIRROR.begin(1)
        once = reduce(there).cpu()
        MIRROR.begin(2)
        assert torch.equal(reduce(there).cpu(), once)
        torch.testing.assert_close(once, reduce(x))
    assert any(not torch.equal(x.sum(axis).cpu(), there.sum(axis).cpu()) for axis in (0, 1))
    each = binary_cross_entropy_with_logits(there, there.sigmoid(), reduction="none")
    assert torch.equal(each.cpu(), binary_cross_entropy_with_logits(x, x.sigmoid(), reduction="none"))
    assert len({float(_added(there[0], seed)) for seed in range(20)}) > 1


def _added(values, seed):
    MIRROR.begin(seed)
    return torch.zeros(1, device="mirror").index_add(
        0, torch.zeros(len(values), dtype=torch.long, device="mirror"), values
    )


def test_memory_that_nothing_was_written_to_is_garbage():
    """Uninitialised memory has NaN, or a number that is no index; zeros and ones are right."""
    assert torch.empty(2, device="mirror").isnan().all()
    assert torch.empty_like(on([1.0])).isnan().all()
    assert on([1.0]).new_empty(2).isnan().all()
    assert torch.empty_strided((1,), (1,), device="mirror").isnan().all()
    assert torch.empty(1, dtype=torch.long, device="mirror").item() < -(2**32)
    assert torch.empty(1, dtype=torch.uint8, device="mirror").item() == 255
    assert torch.empty(1, dtype=torch.bool, device="mirror").item()
    assert torch.zeros(2, device="mirror").tolist() == [0, 0]
    assert torch.arange(2, device="mirror").tolist() == [0, 1]


@pytest.mark.parametrize("read", [lambda x: x[on([3])], lambda x: x.gather(0, on([3]))])
def test_an_index_out_of_range_kills_the_device(read):
    """Every later operation fails, until the device is reset."""
    x = on([1.0, 2.0])
    with pytest.raises(DeviceAssert, match="device-side assertion failed: index 3 is out of bounds"):
        read(x)
    with pytest.raises(DeviceAssert, match="an assertion failed on the device before"):
        x + 1
    MIRROR.begin(0)
    assert (x + 1).tolist() == [2, 3]


def test_other_errors_are_those_of_torch():
    """A shape that does not fit does not kill the device."""
    with pytest.raises(RuntimeError, match="size"):
        on([1.0, 2.0]) + on([1.0, 2.0, 3.0])
    assert on([1.0]).item() == 1


def test_what_has_no_deterministic_form_is_refused_where_one_is_required():
    """As torch.use_deterministic_algorithms says."""
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="histc does not have a deterministic implementation"):
            on([1.0]).histc()
    finally:
        torch.use_deterministic_algorithms(False)


def test_autocast_does_as_on_cuda():
    """Full precision for what needs it, half for products, the widest for what mixes; what is unsafe is refused."""
    half = on([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float16)
    with torch.autocast("mirror", dtype=torch.bfloat16):
        assert half.exp().dtype == half.sum().dtype == half.pow(2).dtype == torch.float32
        assert (half * half).dtype == torch.float16
        assert (half.float() @ half.float()).dtype == torch.bfloat16
        assert half.float().index_put((on([0]),), half[0]).dtype == torch.float32
        assert torch.arange(2, device="mirror").cumsum(0).dtype == torch.int64
        with pytest.raises(RuntimeError, match="unsafe to autocast"):
            binary_cross_entropy(half.sigmoid(), half.sigmoid())
    with torch.autocast("mirror", enabled=False):
        assert half.exp().dtype == torch.float16


def test_waits_are_counted_where_they_happen():
    """The operation that makes the host wait, and the line that called it."""
    x = on([1.0, 2.0, 0.0])
    MIRROR.begin(0)
    _ = x[0].item(), x[x > 1], x.nonzero(), x.tolist(), torch.equal(x, x)
    _ = torch.tensor([1.0], device="mirror"), x.copy_(torch.ones(3)), torch.repeat_interleave(on([1, 2]))
    # of these only the making of an index
    _ = x.clone(), torch.repeat_interleave(x, 2), x[on([0])], x.to("cpu", non_blocking=True)
    counted = {}
    for (what, place), times in MIRROR.waits.items():
        assert place.startswith("test_mirror.py:")
        counted[what] = counted.get(what, 0) + times
    assert counted == {
        "item": 1,
        "boolean index": 1,
        "nonzero": 1,
        "copy to the host": 1,
        "copy from the host": 4,
        "equal": 1,
        "repeat_interleave": 1,
    }


def test_torch_finds_a_device_module():
    """Programs that ask torch for its accelerator get an answer."""
    module = torch.mirror
    assert not module.is_available()  # nothing is to choose it by itself
    assert module.is_initialized()
    assert (module.current_device(), module.device_count()) == (0, 1)
    module.synchronize()
    torch.manual_seed(0)


def test_a_torch_that_cannot_have_a_mirror_is_told(monkeypatch):
    """An older torch, or one whose slot is used: the reason, in one line."""
    monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "npu")
    with pytest.raises(mirror.Unavailable, match="another backend, npu, uses the only slot"):
        mirror.install.__wrapped__()
    monkeypatch.delattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend")
    with pytest.raises(mirror.Unavailable, match="has no backends written in Python; use a newer one"):
        mirror.install.__wrapped__()
    monkeypatch.setattr(mirror, "install", mirror.install.__wrapped__)
    with pytest.raises(UsageError, match=r"--device mirror: not available here \(torch .* has no backends"):
        find_device("mirror")


def test_auto_is_every_device_that_is_there():
    """Absent devices are listed with the reason; a device that is named must be available."""
    found, absent = find_devices("auto")
    assert {"cpu", "mirror"} <= set(found)
    missing = {"cuda", "mps"} - set(found)
    assert {line.partition(":")[0] for line in absent} == missing
    if "cuda" in missing:
        with pytest.raises(UsageError, match="--device cuda: not available here"):
            find_devices("auto,cuda")
