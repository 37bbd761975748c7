"""The peak memory of a step."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from benchmarks.settings import Setting, inputs, work


def _changes(events: list[Any]) -> Iterator[tuple[int, int]]:
    """The time and bytes of every allocation and release, in all events and those inside them."""
    for event in events:
        if event.tag == _EventType.Allocation:
            yield event.start_time_ns, event.extra_fields.alloc_size
        yield from _changes(event.children)


def peak(step: Callable[[], object]) -> int:
    """The most bytes that a step holds of what it allocates.

    By torch's profiler, which sees every allocation of a tensor on the CPU.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = seen.profiler.kineto_results.experimental_event_tree()
    return max(accumulate((size for _, size in sorted(_changes(events))), initial=0))


def beyond_the_gradient(name: str, setting: Setting) -> float:
    """The peak memory of a step of that loss, without its gradient, as a share of the predictions' size."""
    p, _ = inputs(setting)
    step = work("step", name, setting)
    step()  # what is made once is no part of it
    return peak(step) / sum(x.nbytes for x in p) - 1
