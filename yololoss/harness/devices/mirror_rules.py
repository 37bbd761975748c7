"""The rules of the mirror: what an accelerator refuses, what it waits for, and where it differs from a CPU.

Each follows CUDA as torch's documentation describes it: the notes on CUDA semantics, reproducibility and autocast.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
GARBAGE = -(2**40) + 3  # truncated to any integer width, it is no valid index
MASKS = (torch.bool, torch.uint8)
INDEXING = ("index", "index_put", "index_put_", "_unsafe_index", "_unsafe_index_put", "_index_put_impl_")
# Besides pointwise operations, these accept a number (a tensor without dimensions) from the CPU.
NUMBER_TAKEN = (*INDEXING, "masked_fill", "masked_fill_", "fill", "fill_", "index_fill", "index_fill_")
WAITS = {
    "_local_scalar_dense": "item",
    "equal": "equal",
    "masked_select": "boolean index",
    "nonzero": "nonzero",
    "_unique2": "unique",
    "unique_consecutive": "unique",
    "unique_dim": "unique",
    "bincount": "bincount",
}
# Operations that losses use and that have no deterministic form: torch.use_deterministic_algorithms.
UNDETERMINISTIC = ("histc", "kthvalue", "median", "put_")
# Operations that losses use and that autocast runs in float32, in its own dtype, or in the widest input dtype:
# "Autocast Op Reference".
FULL_PRECISION = (
    *("binary_cross_entropy_with_logits", "cumprod", "cumsum", "exp", "expm1", "log", "log10", "log1p", "log2"),
    *("pow", "prod", "reciprocal", "rsqrt", "softplus", "sum"),
)
HALF_PRECISION = ("mm", "mv", "bmm", "matmul", "addmm", "addmv", "addbmm", "baddbmm", "linear")
PROMOTED = ("index_put", "scatter_add", "addcdiv", "addcmul", "atan2", "dot")
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Operation:
    """What the rules need to know about one of torch's operations."""

    name: str  # without namespace and overload
    full_name: str
    writes: bool  # it writes to an argument
    pointwise: bool
    reshapes: bool  # it reshapes an argument in place
    allocates: bool  # it returns uninitialised memory


@cache
def operation(func: Any) -> Operation:
    """The operation of a function. Cached, since torch's look-up is slow."""
    schema, tags = func._schema, func.tags
    name = schema.name.removeprefix("aten::")
    return Operation(
        name,
        f"{name}.{schema.overload_name}" if schema.overload_name else name,
        schema.is_mutable,
        torch.Tag.pointwise in tags,
        torch.Tag.inplace_view in tags,
        name.removeprefix("new_").startswith("empty"),
    )


def _operations() -> Iterator[Any]:
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("aten::"):
            packet = getattr(aten, schema.name.removeprefix("aten::"), None)
            if packet is not None and (schema.overload_name or "default") in packet.overloads():
                yield getattr(packet, schema.overload_name or "default")


def factories() -> Iterator[Any]:
    """The operations that take no tensor and make one on a given device."""
    for func in _operations():
        arguments = func._schema.arguments
        if any(a.name == "device" for a in arguments) and not any("Tensor" in str(a.type) for a in arguments):
            yield func


def autocast() -> Iterator[tuple[Any, Callable[[list[Tensor], torch.dtype], torch.dtype]]]:
    """The operations that autocast changes. For each, the dtype it runs in, from its tensors and autocast's dtype."""
    for func in _operations():
        op = operation(func)
        if op.writes:
            continue
        if op.name in FULL_PRECISION:
            yield func, lambda tensors, half: torch.float32
        if op.name in HALF_PRECISION:
            yield func, lambda tensors, half: half
        if op.name in PROMOTED:
            yield func, lambda tensors, half: max((t.dtype for t in tensors), key=FLOATS.index)
        if op.name == "binary_cross_entropy":
            yield func, _unsafe


def _unsafe(tensors: list[Tensor], half: torch.dtype) -> torch.dtype:
    raise RuntimeError("binary_cross_entropy is unsafe to autocast: use binary_cross_entropy_with_logits")


def refuse_two_devices(op: Operation, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise RuntimeError if tensors lie on two devices and CUDA would refuse that.

    A number may come from the CPU in pointwise operations, and indices if the indexed tensor is on the device.
    """
    if all(t.device.type != "cpu" for t in tensors) or op.name in ("copy_", "_to_copy"):
        return
    if op.name in INDEXING:
        indices = [i for i in args[1] if i is not None]
        if args[0].device.type == "cpu" and any(i.device.type != "cpu" for i in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        tensors = [t for t in tensors if not any(t is i for i in indices)]
    others = [t for t in tensors if t.device.type == "cpu"]
    if not others or len(others) == len(tensors):
        return
    written = op.writes and tensors[0] is others[0]
    numbers = op.pointwise or op.name in NUMBER_TAKEN
    if written or not numbers or any(t.dim() for t in others):
        two = " and ".join(sorted({str(t.device) for t in tensors}, reverse=True))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {two}! (in {op.name})"
        )


def refuse_undeterministic(named: str) -> None:
    """Raise RuntimeError for an operation without a deterministic form, if torch is set to use only such."""
    if named in UNDETERMINISTIC and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{named} does not have a deterministic implementation, but you set it to be required")


def waits_for(named: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Why the host waits for the device here; "" if it does not."""
    if named in INDEXING:
        masks = any(i is not None and i.dtype in MASKS and i.device.type != "cpu" for i in args[1])
        return "boolean index" if masks else ""
    if named == "_to_copy" and kwargs.get("device") is not None:
        return "" if kwargs.get("non_blocking") else _copy(args[0], kwargs["device"])
    if named == "copy_":
        return _copy(args[1], args[0].device)
    if named == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave"
    return WAITS.get(named, "")


def _copy(source: Tensor, to: torch.device) -> str:
    if source.device.type == to.type:
        return ""
    return "copy to the host" if to.type == "cpu" else "copy from the host"


def done(op: Operation, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """Run the operation on the CPU as an accelerator may do it. An index out of range raises as in torch."""
    if op.allocates:
        return _garbage(func(*args, **kwargs))
    otherwise = OTHERWISE.get(op.name)
    if otherwise is None:
        return func(*args, **kwargs)
    if torch.are_deterministic_algorithms_enabled():
        chance = torch.Generator().manual_seed(0)
    return otherwise(func, args, kwargs, chance)


def _garbage(memory: Tensor) -> Tensor:
    """Fill memory with what the mirror shows as uninitialised."""
    if memory.dtype.is_floating_point or memory.dtype.is_complex:
        return memory.fill_(float("nan"))
    if memory.dtype is torch.bool:
        return memory.fill_(True)
    info = torch.iinfo(memory.dtype)
    return memory.fill_(GARBAGE if info.min <= GARBAGE else info.max)


@lru_cache(maxsize=256)
def _always(size: int) -> Tensor:
    """A fixed permutation of so many elements, not the identity."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))


def _by_index(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """index_put: without accumulation any write to a place may come last; with it, a fixed order, not the CPU's."""
    target, indices, values, *rest = args
    accumulate = rest[0] if rest else kwargs.get("accumulate", False)
    found: list[Any] = []  # None: all of an axis
    for index in indices:
        found += index.nonzero(as_tuple=True) if index is not None and index.dtype in MASKS else (index,)
    axes = [axis for axis, index in enumerate(found) if index is not None]
    shape = torch.broadcast_tensors(*(found[axis] for axis in axes))[0].shape  # type: ignore[no-untyped-call]
    count = shape.numel()
    # What is written has the axes of the indices in place of theirs, and first if others lie between these.
    at = axes[0] if axes == [*range(axes[0], axes[0] + len(axes))] else 0
    whole = [size for axis, size in enumerate(target.shape) if axis not in axes]
    rows = values.expand(*whole[:at], *shape, *whole[at:]).reshape(*whole[:at], count, *whole[at:])
    order = _always(count) if accumulate else torch.randperm(count, generator=chance)
    moved = [index if index is None else index.expand(shape).reshape(-1)[order] for index in found]
    return func(target, moved, rows.index_select(at, order), accumulate)


def _along_axis(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """scatter, index_add and similar: (target, axis, index, source, ...), in any order along the axis."""
    target, axis, index, source, *rest = args
    if not isinstance(source, Tensor) or not index.numel():
        return func(*args, **kwargs)
    along = axis if index.dim() == source.dim() else 0  # index_add and index_copy have one index for each slice
    order = torch.randperm(index.shape[along], generator=chance)
    return func(target, axis, index.index_select(along, order), source.index_select(axis, order), *rest, **kwargs)


def _put(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """put_: (target, index into all its elements, source, ...), in any order."""
    target, index, source, *rest = args
    order = torch.randperm(index.numel(), generator=chance)
    return func(target, index.reshape(-1)[order], source.reshape(-1)[order], *rest, **kwargs)


def _reordered(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """sum and mean, over everything or along axes."""
    values, *rest = args
    if not rest or not rest[0]:
        if values.dim():
            flat = values.reshape(-1)
            values = flat[_always(len(flat))].reshape(values.shape)
    else:
        for axis in [rest[0]] if isinstance(rest[0], int) else rest[0]:
            values = values.index_select(axis, _always(values.shape[axis]))
    return func(values, *rest, **kwargs)


def _criterion(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], chance: torch.Generator) -> Any:
    """Binary cross-entropy with logits: (logits, targets, weight, positive weight, reduction)."""
    each, reduction = (*args, None, None)[:4], args[4] if len(args) > 4 else kwargs.get("reduction", 1)
    losses = func(*each, 0)
    reduce = {0: None, 1: aten.mean.default, 2: aten.sum.default}[reduction]
    return losses if reduce is None else _reordered(reduce, (losses,), {}, chance)


OTHERWISE: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any], torch.Generator], Any]] = {
    **dict.fromkeys(("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"), _by_index),
    **dict.fromkeys(
        ("scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_"), _along_axis
    ),
    **dict.fromkeys(("index_add", "index_add_", "index_copy", "index_copy_"), _along_axis),
    **dict.fromkeys(("put", "put_"), _put),
    **dict.fromkeys(("sum", "mean"), _reordered),
    "binary_cross_entropy_with_logits": _criterion,
}
