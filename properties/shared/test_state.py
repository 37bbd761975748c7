"""State: a loss is a function of its inputs. It changes nothing in its inputs, in the process, or in itself."""

import array
import copy
import gc
import io
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject, Unsupported
from yololoss.harness.subjects.watching import SETTINGS

from .comparing import also_twice, close, no_trouble

CALLS = 200  # as many as an epoch of a small dataset has
MOVED = 2.0**-18  # of a fraction among the targets: another number in float32, in the same cell
COUNTED = (60, 90, 120, 240, 480, 960)  # training steps after which it is counted what is in memory
ENOUGH = 3  # counts: others in the process do things once, as a cache is filled
GROWS = 0.5  # what is kept of every step adds 1 or more
# Settings as a caller may have them: not the usual ones.
CALLERS: dict[str, Any] = {
    "torch.set_grad_enabled": False,
    "torch.set_default_dtype": torch.float64,
    "torch.set_float32_matmul_precision": "high",
    "torch.set_warn_always": True,
    "torch.backends.cudnn.benchmark": True,
    "gc.enable": False,
    "logging.disable": 10,
}
PATIENCE = 5.0  # seconds of this thread for all of them: half of the time that a case may take
TEXTS = frozenset((str, bytes, bytearray))
BUFFERS = frozenset((array.array, io.BytesIO))
HELD = ("objects", "references", "bytes of tensors", "bytes of arrays, and letters of texts,")


@law(
    "state.inputs-unchanged",
    title="The loss writes to its inputs",
    source="SPEC, drop-in form",
    cases="any",
    everywhere=True,
)
def test_a_call_does_not_change_its_inputs(exam: Exam) -> None:
    """Neither build_targets nor the loss itself changes the values of predictions or targets, or replaces them."""
    no_trouble(exam, "changed its input", "inputs as they were")


@law(
    "state.nothing-left-in-inputs",
    title="The loss leaves something in its inputs",
    source="SPEC, drop-in form",
    cases="any",
    everywhere=True,
)
def test_a_call_leaves_nothing_in_its_inputs(exam: Exam) -> None:
    """A call leaves no hook, gradient or attribute in predictions or targets, and does not write to them at all."""
    no_trouble(exam, "left something in its input", "inputs as they were")


@law("state.rng-unchanged", title="The loss uses the global generator of random numbers", source="DESIGN", cases="any")
def test_a_call_does_not_use_the_global_generators(exam: Exam) -> None:
    """The loss neither seeds the global generators of torch, NumPy and random nor draws from them."""
    no_trouble(exam, "used the global generator", "generators as they were")


@law("state.global-settings-unchanged", title="A call changes a setting of the process", source="DESIGN", cases="any")
def test_a_call_does_not_change_global_settings(exam: Exam) -> None:
    """A call changes no setting of torch, NumPy, Python or the process (as listed in subjects/watching.py)."""
    no_trouble(exam, "changed a setting", "settings as they were")


@law("state.second-object", title="A second loss object gives other results", source="DESIGN", cases="any", again=True)
def test_a_second_object_gives_the_same_loss(exam: Exam) -> None:
    """A second loss object for the same case returns the same numbers and gradients, up to rounding."""
    _ = exam.calls
    close(exam, exam.on(exam.case), "of a second object")


@law(
    "state.keeps-caller-settings",
    title="A call changes settings that its caller has made",
    source="DESIGN",
    cases="any",
    again=True,
)
def test_settings_that_a_trainer_changed_stay_so(exam: Exam) -> None:
    """What the caller has set is still so after a call: gradients off, the default dtype, and others."""
    after: list[dict[str, Any]] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        before = {name: SETTINGS[name][0]() for name in CALLERS}
        deterministic = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("warn")  # the other setter imports the compiler, for 1 s
        try:
            for name, value in CALLERS.items():
                SETTINGS[name][1](value)
            with suppress(Exception):  # another default dtype may be an error, as another law says
                subject.loss([x.clone() for x in p], targets)
            found = {name: SETTINGS[name][0]() for name in CALLERS}
            after.append({**found, "deterministic": torch.are_deterministic_algorithms_enabled()})
        finally:
            torch.set_deterministic_debug_mode(deterministic)
            for name, value in before.items():
                SETTINGS[name][1](value)
        return subject.loss(p, targets)

    _ = exam.calls
    _ = exam.on(exam.case, calling=calling).calls
    for found in after:
        other = {
            name: found[name] for name, value in {**CALLERS, "deterministic": True}.items() if found[name] != value
        }
        exam.expect(not other, "settings of the caller", "as the caller set them", str(other))


def survives(exam: Exam, copied: Callable[[Any], Any], which: str) -> None:
    """A copy of the loss object, before or after a call, gives the same numbers, if the object can be copied at all."""
    refused: list[str] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        if not refused:
            subject.put_through(copied)
        result = subject.loss(p, targets)
        try:
            subject.put_through(copied)
        except Unsupported as error:
            refused.append(f"{error.__cause__!r:.200}")
        return result

    _ = exam.calls
    also_twice(exam)
    other = exam.on(exam.case, calling=calling)
    _ = other.calls
    exam.expect(not refused, "a copy of the object, after a call", "one, as before the call", "".join(refused[:1]))
    close(exam, other, which)


@law("state.deep-copy", title="A deep copy of the loss gives other results", source="DESIGN", cases="any", again=True)
def test_a_deep_copy_gives_the_same_loss(exam: Exam) -> None:
    """A deep copy of the loss object, before or after a call, gives the same numbers and gradients, up to rounding."""
    survives(exam, copy.deepcopy, "of a deep copy")


@law("state.pickle", title="A pickled copy of the loss gives other results", source="DESIGN", cases="any", again=True)
def test_a_pickled_copy_gives_the_same_loss(exam: Exam) -> None:
    """A pickled and unpickled loss object, before or after a call, returns the same numbers, up to rounding."""
    survives(exam, lambda loss: pickle.loads(pickle.dumps(loss)), "of a pickled copy")


@law(
    "state.rng-independent",
    title="The loss depends on the global generator of random numbers",
    source="DESIGN",
    cases="with targets",
    again=True,
)
def test_the_seed_of_the_global_generator_does_not_matter(exam: Exam) -> None:
    """The loss does not depend on the state of torch's global generator."""
    _ = exam.calls
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        close(exam, exam.on(exam.case), "with another seed of the global generator")


def _on_cpu(exam: Exam) -> None:
    exam.only_if(exam.subject.device.type == "cpu", "what the loss keeps between calls does not depend on the device")


def _often(count: int) -> Iterator[int]:
    """The numbers below ``count``; fewer if what is done for each is slow."""
    end = time.thread_time() + PATIENCE
    return takewhile(lambda _: time.thread_time() < end, range(count))


@law(
    "state.many-calls",
    title="After many calls the loss gives other results",
    source="DESIGN",
    cases="a few",
    again=True,
    everywhere=True,
)
def test_many_calls_give_the_same_loss(exam: Exam) -> None:
    """200 calls of one object on the same inputs give the same total, the last also the same gradients.

    They do nothing else that one call does not, such as print.
    """
    _on_cpu(exam)
    totals: list[float] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        own = [x.detach().requires_grad_() for x in p]
        totals.extend(float(subject.loss(own, targets)[0].detach().sum()) for _ in _often(CALLS))
        return subject.loss(p, targets)

    first = exam.calls[0].total
    other = exam.on(exam.case, calling=calling)
    also_twice(exam)
    _ = other.calls
    allowed, because = 2 * exam.budget.totals[0], exam.budget.because
    exam.expect_close("total of call", [first] * len(totals), totals, allowed, because)
    close(exam, other, f"after {CALLS} calls")
    once, often = (_done_besides(run) for run in (exam, other))
    new = [what for what in often if what not in once]
    exam.expect(not new, f"what {CALLS} calls do and one does not", "nothing", "; ".join(new)[:300])


def _done_besides(exam: Exam) -> list[str]:
    """What a run did besides its work: to the process, and to what is outside it."""
    return [*(f"{trouble.kind}: {trouble.detail}" for trouble in exam.outcome.troubles), *exam.outcome.outside]


@law(
    "state.keeps-nothing",
    title="The loss keeps something of every call, so memory grows",
    source="DESIGN",
    cases="a few",
    again=True,
)
def test_memory_does_not_grow_from_call_to_call(exam: Exam) -> None:
    """In 960 training steps with one object, what is kept in memory stops growing.

    Counted are objects, references, such as the elements of a list, bytes of tensors and arrays, and letters of texts.
    They are constant for a loss that keeps nothing, but for what others in the process do once. Targets are moved a
    little from step to step. A bounded store must be full after 480 steps; of a slow loss, after as many as 5 s allow.
    """
    _on_cpu(exam)
    also_twice(exam)
    held: list[tuple[int, ...]] = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        known = gc.get_objects()  # held here, so that none of them is freed while others are counted
        gc.freeze()  # and left out by the collector, which takes a second for those of a large process
        held.clear()
        try:
            for n in _often(COUNTED[-1]):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # else each warning would be kept, to be told
                    moved = torch.where(targets == targets.round(), targets, targets * (1 + n * MOVED)).to(targets)
                    total, _ = subject.loss([x.detach().clone().requires_grad_() for x in p], moved)
                    total.sum().backward()  # type: ignore[no-untyped-call]
                del total, moved, _
                if n + 1 in COUNTED:
                    held.append(_held(known))
                    if len(held) > 1 and max(_growth(held)) < GROWS:
                        break
        finally:
            gc.unfreeze()
        return subject.loss(p, targets)

    _ = exam.calls
    _ = exam.on(exam.case, calling=calling).calls
    growth = _growth(held) if len(held) > 1 else [GROWS]
    exam.only_if(len(held) >= ENOUGH or max(growth) < GROWS, "the loss is too slow to be called so often")
    for what, each in zip(HELD, growth, strict=True):
        exam.expect(
            each < GROWS, f"{what} that each step leaves, after the first {COUNTED[0]}", f"less than {GROWS}", each
        )


def _growth(held: list[tuple[int, ...]]) -> list[float]:
    """For each of `HELD`, what a step added between two of these counts, at least."""
    counts = pairwise(zip(COUNTED, held, strict=False))
    added = [np.subtract(after, before) / (last - first) for (first, before), (last, after) in counts]
    return [float(each) for each in np.min(added, axis=0)]


def _held(known: list[Any]) -> tuple[int, ...]:
    """How many there are of what `HELD` names, of objects that are known and of all newer ones."""
    gc.collect()
    objects = gc.get_objects()
    references = gc.get_referents(*known, *objects)
    # Python's collector leaves out dicts without containers in them
    more = sum(len(each) for each in references if type(each) is dict and not gc.is_tracked(each))
    tensors = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in objects if type(x) is Tensor}
    plain = sum(len(each) for each in references if type(each) in TEXTS)
    plain += sum(each.nbytes for each in references if type(each) is np.ndarray)
    plain += sum(sys.getsizeof(each) for each in references if type(each) in BUFFERS)
    return len(objects), len(references) + more, sum(tensors.values()), plain


@law(
    "state.default-dtype",
    title="With float64 as torch's default dtype the loss gives other results",
    source="DESIGN",
    cases="a few",
    again=True,
)
def test_the_default_dtype_does_not_matter(exam: Exam) -> None:
    """Under torch.set_default_dtype(torch.float64) the same inputs give the same loss, up to rounding."""
    _ = exam.calls
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        other = exam.on(exam.case)
        _ = other.outcome
    finally:
        torch.set_default_dtype(before)
    close(exam, other, "under torch.set_default_dtype(torch.float64)")
