"""Run: every valid case gets an answer, and the process goes on as it was."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .comparing import no_trouble


@law(
    "run.no-exception",
    title="The loss raises an exception",
    source="SPEC 6",
    cases="every kind",
    several=True,
    everywhere=True,
)
def test_no_valid_case_raises(exam: Exam) -> None:
    """For a valid case the loss gives rows, values and gradients, and raises nothing."""
    no_trouble(exam, ("raised", "would raise"), "rows, loss and gradients")


@law("run.time-limit", title="The loss does not return in time", source="DESIGN", cases="any", everywhere=True)
def test_every_case_returns_in_time(exam: Exam) -> None:
    """The loss returns within the time limit, which is a thousand times what a case takes."""
    no_trouble(exam, "did not return", "an answer in time")


@law("run.no-exit", title="The loss ends the interpreter", source="DESIGN", cases="any", everywhere=True)
def test_no_case_ends_the_interpreter(exam: Exam) -> None:
    """The loss never calls sys.exit or os._exit."""
    no_trouble(exam, "exited", "an answer")


@law("run.no-output", title="The loss prints something", source="DESIGN", cases="any", everywhere=True)
def test_the_loss_prints_nothing(exam: Exam) -> None:
    """The loss writes nothing to standard output or standard error. It may log, by `logging`, while it is built."""
    no_trouble(exam, "printed", "nothing printed")


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()


@contextmanager
def _descriptors() -> Iterator[list[bytes]]:
    """What is written to the file descriptors of standard output and standard error, past Python's own objects."""
    written: list[bytes] = []
    with tempfile.TemporaryFile() as file:
        own = {number: os.dup(number) for number in (1, 2)}
        _flush()
        for number in own:
            os.dup2(file.fileno(), number)
        try:
            yield written
        finally:
            _flush()
            for number, kept in own.items():
                os.dup2(kept, number)
                os.close(kept)
        file.seek(0)
        written.append(file.read(200))


@law(
    "run.no-output-by-descriptor",
    title="The loss prints something, past Python's standard output",
    source="DESIGN",
    cases="a few",
    again=True,
)
def test_the_loss_prints_nothing_past_python(exam: Exam) -> None:
    """The loss writes nothing to the file descriptors of standard output and error, as a C extension may."""
    _ = exam.calls
    with _descriptors() as written:
        _ = exam.on(exam.case).calls
    exam.expect_equal("what was written to descriptors 1 and 2", b"", b"".join(written))


@law("run.no-warning", title="The loss warns at every call", source="DESIGN", cases="any", again=True)
def test_the_loss_does_not_warn_at_every_call(exam: Exam) -> None:
    """The loss gives no warning at every call. Those about versions (deprecations) are not meant."""
    _ = exam.calls
    first = exam.outcome.warnings
    second = exam.on(exam.case).outcome.warnings if first else ()  # torch gives some once in a process
    same = {*map(_without_numbers, first)} & {*map(_without_numbers, second)}
    exam.expect(not same, "warnings", "none", "; ".join(dict.fromkeys(first)))


def _without_numbers(warning: str) -> str:
    return re.sub(r"[\d.]+", "#", warning)


@law(
    "run.no-effect-outside",
    title="The loss changes something outside its process",
    source="DESIGN",
    cases="any",
    everywhere=True,
)
def test_the_loss_changes_nothing_outside_its_process(exam: Exam) -> None:
    """The loss writes no file, starts no process, and uses no network."""
    did = exam.outcome.outside
    exam.expect(not did, "what the loss did", "nothing outside its process", "; ".join(dict.fromkeys(did))[:300])
