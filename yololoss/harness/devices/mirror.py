"""The mirror: a simulated accelerator in pure Python, for hosts without a real one.

A tensor on the device ``mirror`` holds a tensor on the CPU, and every operation runs there. The mirror adds what an
accelerator refuses, and where it may differ from a CPU (`mirror_rules`):

- an operation on tensors of two devices is refused if CUDA refuses it;
- if several writes without accumulation have the same destination, any of them may come last, and sums by atomic
  additions are made in any order. A seed decides both, so findings repeat;
- other sums are made in a fixed order, which is not the CPU's;
- uninitialised memory holds NaN, or a number that is no valid index;
- an index out of range is a device-side assertion: every operation on the device fails from then on;
- every operation that makes the host wait for the device is counted, with the line that called it.

It uses torch's experimental support for backends written in Python.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self, override

from yololoss._suite import FOLDER
from yololoss.harness.devices import mirror_rules as rules

NAME = "mirror"
CPU = torch.device("cpu")
# Frames of torch, the harness and the families, not of the loss.
HARNESS = Path(__file__).parents[1]
OTHERS = (str(Path(torch.__file__).parent), str(HARNESS), str(FOLDER / "properties"), "<")
RUN = str(HARNESS / "subjects" / "execute.py")  # frames outside of it do not belong to the loss either


class Unavailable(Exception):
    """This torch cannot have a mirror. The message says why."""


class DeviceAssert(RuntimeError):
    """An assertion failed on the device: it does not respond any more."""


class MirrorTensor(Tensor):
    """A tensor on the mirror. It has no memory of its own; it holds a tensor on the CPU."""

    on_cpu: Tensor

    @staticmethod
    @override
    def __new__(cls: type[Self], on_cpu: Tensor) -> Self:
        if torch.is_inference_mode_enabled():  # a wrapper made there around a normal tensor cannot be detached
            with torch.inference_mode(False):
                return cls.__new__(cls, on_cpu)
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=_here(),
        )
        made.on_cpu = on_cpu
        return made

    @classmethod
    @override
    def __torch_dispatch__(  # type: ignore[override]  # torch annotates it as a method
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return MIRROR.run(func, args, kwargs or {})

    @override
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # theirs is untyped
        needs = ", requires_grad=True" if self.requires_grad and self.is_leaf else ""
        return f"{repr(self.on_cpu)[:-1]}, device='{self.device}'{needs})"

    @override
    def data_ptr(self) -> int:
        return 0  # a part of a tensor has none either; torch would copy memory from there in a deep copy

    @override
    def __reduce_ex__(self, protocol: Any) -> Any:
        return _on_mirror, (self.on_cpu, self.requires_grad)

    # torch implements these two only for its own tensors; on an accelerator the first copies, the second raises
    @override
    def tolist(self) -> Any:
        return self.cpu().tolist()

    @override
    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return self.detach().cpu().numpy()

    @override
    def __array__(self, *arguments: Any) -> Any:
        return self.numpy()


@cache
def _here() -> torch.device:
    return torch.device(NAME, 0)  # torch knows the name once the mirror is installed


def _on_mirror(on_cpu: Tensor, requires_grad: bool) -> Tensor:
    return MirrorTensor(on_cpu).requires_grad_(requires_grad)


class Mirror:
    """The device: it runs operations, and counts waits."""

    def __init__(self) -> None:
        self.dead = False  # after a device-side assertion
        self.waits: Counter[tuple[str, str]] = Counter()  # (what makes the host wait, file:line): how often
        self.chance = torch.Generator()  # decides what may happen in any order on an accelerator

    def begin(self, seed: int) -> None:
        """Reset the device; its random choices follow this seed."""
        self.dead = False
        self.waits.clear()
        self.chance.manual_seed(seed)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation that has an argument on the mirror, or whose result is requested there."""
        if self.dead:
            raise DeviceAssert(f"{NAME}: an assertion failed on the device before")
        op = rules.operation(func)
        tensors: list[Tensor] = []
        inner_args = _inner(args, tensors)
        inner = {key: _inner(value, tensors) for key, value in kwargs.items()}
        if not all(isinstance(t, MirrorTensor) for t in tensors):
            rules.refuse_two_devices(op, args, tensors)
        rules.refuse_undeterministic(op.name)
        device = kwargs.get("device")
        waits = rules.waits_for(op.name, args, kwargs)
        if waits:
            self.waits[waits, place()] += 1
        if device is not None:
            inner["device"] = CPU
        try:
            result = rules.done(op, func, inner_args, inner, self.chance)
        except (IndexError, RuntimeError) as error:
            if "out of bounds" not in str(error):
                raise
            self.dead = True
            raise DeviceAssert(f"{NAME}: device-side assertion failed: {error}") from error
        if op.reshapes:  # the wrapper's own sizes and strides change as well
            with torch._C._DisableTorchDispatch():
                func(*args, **kwargs)
        if device is not None and device.type != NAME:
            return result
        if not op.writes:
            return _mapped(_wrapped, result)
        # a tensor that the operation writes to stays the same object
        same = {id(t.on_cpu): t for t in tensors if isinstance(t, MirrorTensor)}
        return _mapped(lambda v: same[id(v)] if id(v) in same else _wrapped(v), result)


MIRROR = Mirror()


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among the values, and in lists and tuples among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """``change`` applied to the value, or to each in a list or tuple. torch's own pytree is several times slower."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, each) for each in value])
    return change(value)


def _inner(value: Any, tensors: list[Tensor]) -> Any:
    """The value with the CPU's tensors in the place of the mirror's; adds all tensors that it has to ``tensors``."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.on_cpu if isinstance(value, MirrorTensor) else value
    if isinstance(value, list | tuple):
        return type(value)([_inner(each, tensors) for each in value])
    return value


def _wrapped(value: Any) -> Any:
    return MirrorTensor(value) if isinstance(value, Tensor) else value


def place() -> str:
    """The innermost line of the loss's own code, as file:line; "backward" if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != RUN:
        if not frame.f_code.co_filename.startswith(OTHERS):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward"


@cache
def install() -> None:
    """Register the device with torch, for the whole process. Raises Unavailable."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(f"torch {torch.__version__} has no backends written in Python; use a newer one") from error
    taken = torch._C._get_privateuse1_backend_name()
    if taken != "privateuseone":
        raise Unavailable(f"another backend, {taken}, uses the only slot that torch has for one")
    setup(NAME, backend_module=_Module())
    library: Any = torch.library.Library
    aten, everything = library("aten", "IMPL"), library("_", "IMPL")
    for kernel, function in {"_to_copy": _to_copy, "lift_fresh": lambda x: x}.items():
        aten.impl(kernel, function, "PrivateUse1")
    for func in rules.factories():
        aten.impl(rules.operation(func).full_name, _factory(func), "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for func, dtype in rules.autocast():
        aten.impl(rules.operation(func).full_name, _cast(func, dtype), "AutocastPrivateUse1")
    _KEPT.extend((aten, everything))  # the registrations end when these objects are deleted


_KEPT: list[Any] = []


class _Module:
    """The functions that torch expects of a backend's module."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False  # so that nothing selects it automatically, as DataParallel would

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def synchronize(self, device: Any = None) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


# torch.tensor(..., device=) makes a tensor on the CPU and copies it, below the dispatch to Python
def _to_copy(*args: Any, **kwargs: Any) -> Any:
    return MIRROR.run(torch.ops.aten._to_copy.default, args, kwargs)


def _factory(func: Any) -> Any:
    return lambda *args, **kwargs: MIRROR.run(func, args, kwargs)


def _cast(func: Any, dtype: Callable[[list[Tensor], torch.dtype], torch.dtype]) -> Any:
    key = getattr(torch._C.DispatchKey, "AutocastPrivateUse1")  # noqa: B009  # not in torch's annotations

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in tensors_in((*args, *kwargs.values())) if t.dtype in rules.FLOATS]
        if tensors:
            wanted = dtype(tensors, torch.get_autocast_dtype(NAME))

            def cast(value: Any) -> Any:
                return value.to(wanted) if any(value is t for t in tensors) else value

            args, kwargs = _mapped(cast, args), {name: _mapped(cast, value) for name, value in kwargs.items()}
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            return func(*args, **kwargs)

    return run
