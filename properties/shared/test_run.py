"""Run: every valid case gets an answer, and the process goes on as it was."""

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


@law("run.time-limit", title="The loss does not return in time", source="DESIGN", cases="any")
def test_every_case_returns_in_time(exam: Exam) -> None:
    """The loss returns within the time limit, which is a thousand times what a case takes."""
    no_trouble(exam, "did not return", "an answer in time")


@law("run.no-exit", title="The loss ends the interpreter", source="DESIGN", cases="any")
def test_no_case_ends_the_interpreter(exam: Exam) -> None:
    """The loss never calls sys.exit or os._exit."""
    no_trouble(exam, "exited", "an answer")


@law("run.no-output", title="The loss prints something", source="DESIGN", cases="any")
def test_the_loss_prints_nothing(exam: Exam) -> None:
    """The loss writes nothing to standard output or standard error."""
    no_trouble(exam, "printed", "nothing printed")
