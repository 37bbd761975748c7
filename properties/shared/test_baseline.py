"""Baseline: a loss that was changed on purpose still does what it did when it was recorded.

The other laws check that a loss is correct. They cannot judge a loss that is meant to differ. Its owner records its
results (`yololoss record`), and these laws compare the loss with that record: rows bit for bit, values and gradients
within the rounding of another machine. They run on the recorded cases, the smallest first.
"""

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.comparison import Aspect


def stays(exam: Exam, aspect: Aspect) -> None:
    """Compare one aspect of the outcome with its record."""
    exam.compare(exam.subject.family.comparisons(exam.case, exam.subject.recorded[exam.case], exam.outcome), aspect)


@law("baseline.rows", title="The rows are not the recorded ones", source="its own record", cases=None)
def test_rows_are_the_recorded_ones(exam: Exam) -> None:
    """The rows equal the recorded rows, in order and bit for bit."""
    stays(exam, "rows")


@law("baseline.values", title="The values are not the recorded ones", source="its own record", cases=None)
def test_values_are_the_recorded_ones(exam: Exam) -> None:
    """Totals, items, balances, their shapes and dtypes, and the exceptions raised are the recorded ones."""
    stays(exam, "values")


@law("baseline.gradients", title="The gradients are not the recorded ones", source="its own record", cases=None)
def test_gradients_are_the_recorded_ones(exam: Exam) -> None:
    """Gradients are the recorded ones, in the same cells."""
    stays(exam, "gradients")
