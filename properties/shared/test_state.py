"""State: a loss is a function of its inputs. It changes nothing in its inputs, in the process, or in itself."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from .comparing import close, no_trouble


@law(
    "state.inputs-unchanged",
    title="The loss writes to its inputs",
    source="SPEC, drop-in form",
    cases="any",
    everywhere=True,
)
def test_a_call_does_not_change_its_inputs(exam: Exam) -> None:
    """Neither build_targets nor the loss itself writes to predictions or targets."""
    no_trouble(exam, "changed its input", "inputs as they were")


@law("state.rng-unchanged", title="The loss uses the global generator of random numbers", source="DESIGN", cases="any")
def test_a_call_does_not_use_the_global_generators(exam: Exam) -> None:
    """The loss neither seeds the global generators of torch, NumPy and random nor draws from them."""
    no_trouble(exam, "used the global generator", "generators as they were")


@law("state.global-settings-unchanged", title="A call changes a setting of the process", source="DESIGN", cases="any")
def test_a_call_does_not_change_global_settings(exam: Exam) -> None:
    """A call does not change the default dtype, grad mode, threads, determinism or anomaly mode."""
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
    """If the caller has turned gradients off, or deterministic algorithms on, they are still so after a call."""
    after = []

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        before = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("warn")  # the other setter imports the compiler, for 1 s
        try:
            with torch.no_grad():
                subject.loss([x.clone() for x in p], targets)
                after.append((torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()))
        finally:
            torch.set_deterministic_debug_mode(before)
        return subject.loss(p, targets)

    _ = exam.calls
    _ = exam.on(exam.case, calling=calling).calls
    exam.expect_equal("gradients on, algorithms deterministic", [(False, True)] * len(after), after)


def survives(exam: Exam, copied: Callable[[Any], Any], which: str) -> None:
    """A copy of the loss object, before or after a call, gives the same numbers, if the object can be copied."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        subject.put_through(copied)
        return subject.loss(p, targets)

    _ = exam.calls
    close(exam, exam.on(exam.case, calling=calling), which)


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
