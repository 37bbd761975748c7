"""Devices: finding them, the surroundings of a run, and notes taken during it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from yololoss.harness.cases.case import DTYPES, Case, Dtype
from yololoss.harness.devices import mirror, mirror_rules


@dataclass(frozen=True)
class Around:
    """The surroundings of a run of a case, besides the device."""

    chance: int = 0  # seed of the mirror's random choices; on real devices another number is another run
    autocast: Dtype | None = None  # run under autocast to this dtype
    deterministic: bool = False  # torch.use_deterministic_algorithms
    targets_on_host: bool = False  # targets on the CPU, as a data loader returns them
    watched: bool = False  # note tensors that are made on another device
    compiled: bool = False  # under torch.compile


@dataclass(frozen=True, order=True)
class Wait:
    """The host waited for the device."""

    place: str  # file:line, or backward
    what: str  # item, nonzero, boolean index, copy to the host, ...
    times: int


class DeviceLost(BaseException):
    """The device does not respond any more in this process. Not an Exception: no search continues after it."""

    def __init__(self, case: Case, detail: str) -> None:
        super().__init__(case, detail)
        self.case, self.detail = case, detail


def get_device(name: str) -> torch.device:
    """The device of that name. Raises RuntimeError, whose first line is the reason, if it is not available."""
    if name.partition(":")[0] == mirror.NAME:
        try:
            mirror.install()
        except mirror.Unavailable as error:
            raise RuntimeError(str(error)) from error
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (AssertionError, NotImplementedError) as error:
        raise RuntimeError(str(error)) from error
    return device


def begin(device: torch.device, case: Case, around: Around) -> None:
    """Reset the mirror, with a seed made of the case, so that each run of this case makes the same choices."""
    if device.type == mirror.NAME:
        mirror.MIRROR.begin(crc32(case.key.encode()) + around.chance)


def is_lost(device: torch.device) -> bool:
    """Whether the device does not respond any more."""
    if device.type == "cuda":  # pragma: no cover  # needs a CUDA device
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return True
    return device.type == mirror.NAME and mirror.MIRROR.dead


@contextmanager
def surrounded(device: torch.device, around: Around) -> Iterator[None]:
    """Turn on autocast and deterministic algorithms, if ``around`` says so."""
    before = torch.are_deterministic_algorithms_enabled()
    with ExitStack() as stack:
        if device.type == mirror.NAME:  # autograd has no threads for a device that was registered after it started
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        if around.autocast:
            stack.enter_context(torch.autocast(device.type, DTYPES[around.autocast]))
        if around.deterministic:
            stack.callback(torch.use_deterministic_algorithms, before)
            torch.use_deterministic_algorithms(True)
        yield


class Notes:
    """Notes on one call and its backward: waits (mirror), memory (CUDA), tensors made on another device."""

    def __init__(self, device: torch.device, *, watched: bool) -> None:
        self.device = device
        self._elsewhere = _Elsewhere() if watched and device.type != "cpu" else None
        self.peak: int | None = None
        self._waits: Counter[tuple[str, str]] = Counter()

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Where the host waited for the mirror."""
        return tuple(sorted(Wait(place, what, times) for (what, place), times in self._waits.items()))

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The tensors that were made on another device, and where, if this was watched."""
        return tuple(self._elsewhere.found) if self._elsewhere else ()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take notes inside this context."""
        mirror.MIRROR.waits.clear()
        before = self._memory_before()
        with self._elsewhere or ExitStack():
            yield
        if before is not None:  # pragma: no cover  # needs a CUDA device
            self.peak = max(self.peak or 0, torch.cuda.max_memory_allocated(self.device) - before)
        self._waits.update(mirror.MIRROR.waits)

    def _memory_before(self) -> int | None:
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)  # pragma: no cover  # needs a CUDA device
        return torch.cuda.memory_allocated(self.device)  # pragma: no cover


@cache
def _makers() -> frozenset[str]:
    return frozenset({str(func) for func in mirror_rules.factories()} | {"aten.lift_fresh.default"})


class _Elsewhere(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which factory operations make a tensor with dimensions on the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if str(func) in _makers() and any(t.device.type == "cpu" and t.dim() for t in mirror.tensors_in((result,))):
            self.found.append(f"{mirror_rules.operation(func).name} at {mirror.place()}")
        return result
