"""Baseline: a loss that was changed on purpose stays what it was when it was recorded.

Laws tell a right loss from a wrong one; they have no word on a loss that is meant to be another. Its owner records what
it does (`yololoss record`), and these laws hold it to that: rows to the bit, values and gradients within the
rounding of another machine. They are judged on the recorded cases, the smallest first.
"""

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.comparison import Aspect

from .recorded import comparisons


def stays(exam: Exam, aspect: Aspect) -> None:
    """What is recorded of that aspect is what it is now."""
    exam.compare(comparisons(exam.case, exam.subject.recorded[exam.case], exam.outcome), aspect)


@law("baseline.rows", source="its own record", cases=None)
def test_rows_are_the_recorded_ones(exam: Exam) -> None:
    """The rows are those that the loss built when it was recorded, in order and bit for bit."""
    stays(exam, "rows")


@law("baseline.values", source="its own record", cases=None)
def test_values_are_the_recorded_ones(exam: Exam) -> None:
    """Totals, items, balances, their shapes and dtypes, and what is raised are as they were when they were recorded."""
    stays(exam, "values")


@law("baseline.gradients", source="its own record", cases=None)
def test_gradients_are_the_recorded_ones(exam: Exam) -> None:
    """Gradients are those that the loss had when it was recorded, and in the same cells."""
    stays(exam, "gradients")
