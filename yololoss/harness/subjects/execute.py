"""Runs a subject on a case: a new subject, its own copies of the inputs, and a record of everything that it did."""

import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.cases.case import Case
from yololoss.harness.devices import devices
from yololoss.harness.devices.devices import Around
from yololoss.harness.devices.mirror import NAME
from yololoss.harness.subjects import compiled
from yololoss.harness.subjects.family import LossUnderTest
from yololoss.harness.subjects.outcome import Call, Grid, Outcome, Trouble
from yololoss.harness.subjects.subject import Subject, UnknownForm, Unsupported
from yololoss.harness.subjects.watching import Inputs, Stopped, watched

TIME_LIMIT = 10.0  # seconds that a case may take: a thousand times as long as usual
NOT_OWN = ("torch.", "numpy.", "yololoss.harness.")  # modules that are not the loss's own
TICKS = 10  # the time limit is counted in so many ticks
CLAMPS = ("clamp_", "clamp_min_", "clamp_max_", "clip_")
ASLEEP = 0.05  # share of a tick that a process runs at least, even on a busy machine, unless it sleeps


def execute(under_test: LossUnderTest, case: Case, limit: float | None = None) -> Outcome:
    """Build the subject, get its rows, call it as often as the case says, and take the gradient.

    Whatever goes wrong is in the outcome's troubles. Only Unsupported is raised, if the subject lacks an option of the
    case.
    """
    device, around = under_test.device, under_test.around
    devices.begin(device, case, around)
    p, targets = case.inputs(device)
    given = list(p)  # passed to the subject, which may write to it
    if around.targets_on_host:
        targets = targets.cpu()
    inputs = Inputs(p, targets)
    rows: tuple[Any, ...] | None = None
    calls: list[Call] = []
    gradients: tuple[Grid, ...] = ()
    notes = devices.Notes(device, watched=around.watched)
    usual = compiled.TIME_LIMIT if around.compiled else TIME_LIMIT
    not_own = (*NOT_OWN, f"{under_test.family.package}.")
    with (
        devices.surrounded(device, around),
        watched() as conduct,
        nullcontext() if around.compiled else _older_torch(conduct.troubles),
        _time_limit(limit or under_test.limit or usual),
    ):
        stage = partial(_stage, troubles=conduct.troubles, not_own=not_own)
        subject = None
        # What is logged once, while the loss is built, is for the application, also if it has set up no logging.
        with stage("construction"), patch("logging.lastResort", logging.NullHandler()):
            subject = under_test.make(case, device)
        if subject is not None:
            with stage("build_targets"):
                built = subject.rows(given, targets)
                rows = None if built is None else tuple(built)
            with stage("loss"):
                for _ in range(case.calls):
                    notes = devices.Notes(device, watched=around.watched)
                    with notes.taken():
                        total, items = subject.loss(given, targets)
                    call = _call(subject, total, items)
                    ordered = under_test.family.in_order(under_test.dialect, call.items)
                    calls.append(replace(call, items=ordered))
                with stage("backward"):
                    with notes.taken():
                        grads = torch.autograd.grad(total.sum(), p, allow_unused=True)
                    gradients = tuple(_grid(x, g) for x, g in zip(p, grads, strict=True))
    troubles = conduct.troubles
    if devices.is_lost(device):
        _lost(case, device, troubles)
    else:
        troubles += inputs.troubles(list(conduct.hooks.values()))
        if list(map(id, given)) != list(map(id, p)):
            troubles.append(Trouble("changed its input", "the list of predictions has other items"))
    return Outcome(
        tuple(calls),
        rows,
        gradients,
        tuple(troubles),
        notes.waits,
        notes.elsewhere,
        notes.peak,
        tuple(conduct.warnings),
        tuple(conduct.outside),
    )


def _lost(case: Case, device: torch.device, troubles: list[Trouble]) -> None:
    """The device does not respond any more. The mirror can be restarted; a real device cannot, in this process."""
    detail = "; ".join(t.detail for t in troubles)
    if device.type != NAME:
        raise devices.DeviceLost(case, detail)
    devices.begin(device, case, Around())
    troubles.append(Trouble("killed the device", detail))


def _place(error: BaseException, not_own: tuple[str, ...]) -> str:
    """The last place in the loss's own files that an exception came through: file, line, function; "" if none."""
    own = [
        f"{Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not f"{frame.f_globals.get('__name__')}.".startswith(not_own)
    ]
    return own[-1] if own else ""


@contextmanager
def _stage(name: str, troubles: list[Trouble], not_own: tuple[str, ...]) -> Iterator[None]:
    """Record what the subject raises here, and continue."""
    try:
        yield
    except Unsupported:
        raise
    except SystemExit as error:
        troubles.append(Trouble("exited", f"sys.exit({error}) in {name}"))
    except Stopped as stopped:
        troubles.append(Trouble(stopped.trouble.kind, f"{stopped.trouble.detail} in {name}"))
    except Exception as error:
        where = f"reading the result of {name}" if isinstance(error, UnknownForm) else name
        said = "; ".join(str(error).splitlines())
        troubles.append(Trouble(f"raised in {where}", f"{type(error).__name__}: {said}", _place(error, not_own)))


@contextmanager
def _older_torch(troubles: list[Trouble]) -> Iterator[None]:
    """Let a loss for an older torch clamp integers to float limits, and record where it does.

    torch now refuses this in place. Many losses do it with indices, and would show nothing else.
    """
    places: dict[str, None] = {}

    def tolerant(name: str, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def clamp(self: Tensor, *limits: Any, **named: Any) -> Tensor:
            try:
                return method(self, *limits, **named)
            except RuntimeError as error:
                if self.is_floating_point() or "can't be cast" not in str(error):
                    raise
                caller = sys._getframe(1)
                places[f"{error}, in {name} at {Path(caller.f_code.co_filename).name}:{caller.f_lineno}"] = None
                whole = {key: _whole(limit) for key, limit in named.items()}
                return method(self, *map(_whole, limits), **whole)

        return clamp

    own = {name: getattr(Tensor, name) for name in CLAMPS}
    for name, method in own.items():
        setattr(Tensor, name, tolerant(name, method))
    try:
        yield
    finally:
        for name in own:
            delattr(Tensor, name)  # it was inherited
    for place in places:
        mend = "make its limit an integer, by .long() for a tensor. All else was judged as if it were"
        troubles.append(Trouble("would raise", f"RuntimeError: {place}; {mend}"))


def _whole(limit: Any) -> Any:
    return limit.long() if isinstance(limit, Tensor) else limit if limit is None else int(limit)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt Python code after a time. Does nothing without such signals, or outside the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    spent, seen = 0.0, time.process_time()

    # A tick in which the process hardly ran counts in full: it sleeps or waits. Otherwise its processor time counts, so
    # a busy machine is not blamed on the loss. A suspended machine sends one tick, however long it stood still.
    def tick(*_: Any) -> None:
        nonlocal spent, seen
        now = time.process_time()
        used, seen = now - seen, now
        each = seconds / TICKS
        spent += each if used < ASLEEP * each else min(used, each)
        if spent >= 0.99 * seconds:
            raise Stopped("did not return", f"not within {seconds:g} s,")

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, seconds / TICKS, seconds / TICKS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _call(subject: Subject, total: Tensor, items: Any) -> Call:
    state = subject.state()
    tensors = [t for t in (total, items) if isinstance(t, Tensor)]
    if isinstance(items, Tensor):
        values = items.detach().double().flatten().tolist()
    else:  # compare with None, since a NumPy array has no truth value
        values = _numbers(() if items is None else items)
    return Call(
        total=float(total.detach().sum()),
        items=tuple(values),
        state=None if state is None else tuple(state),
        total_shape=tuple(total.shape),
        items_shape=tuple(items.shape) if isinstance(items, Tensor) else (len(values),),
        total_dtype=_name(total.dtype),
        items_dtype=_name(items.dtype) if isinstance(items, Tensor) else "float",
        total_requires_grad=total.requires_grad,
        items_require_grad=any(t.requires_grad for t in tensors[1:]),
        devices=tuple(t.device.type for t in tensors),
    )


def _numbers(items: Any) -> list[float]:
    try:
        return [float(v) for v in items]
    except (TypeError, ValueError, RuntimeError) as error:
        shown = type(items).__name__
        raise UnknownForm(f"items: expected None, a tensor, or numbers (box, obj, cls), got a {shown}") from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _grid(x: Tensor, gradient: Tensor | None) -> Grid:
    return np.zeros(tuple(x.shape)) if gradient is None else gradient.detach().cpu().double().numpy()
