"""The third term: the distances to the four sides of the target.

With R > 1 it is the distribution focal loss: cross entropies of the two bins around each distance, which is cut off at
0 and R - 1.01. With one bin it is the absolute error, as a share of the image. Each is a mean over the four sides,
weighted by the score, and divided by the sum of scores.
"""

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import FEW
from .case import SIDES
from .items import expect_item, expect_sides, sides_of, with_gains
from .reading import decided
from .strategies import EVERY_KIND, WITH_TARGETS


@law("third.item", title="The third item (DFL; L1 with one bin) is wrong", source="SPEC 5", cases=EVERY_KIND)
def test_the_third_item_is_that_of_the_reference(exam: Exam) -> None:
    """The third item is the gain times the sum of DFL x score over the sum of scores; of L1, with one bin."""
    expect_item(exam, 2)


@law("third.gradient", title="The gradient of the third term is wrong", source="SPEC 5", cases=WITH_TARGETS, again=True)
def test_the_gradient_of_the_third_term_is_that_of_the_reference(exam: Exam) -> None:
    """Without the box term, the gradient of the side logits is that of DFL x score; of L1, with one bin."""
    expect_sides(exam, with_gains(exam, box=0.0))


@law(
    "third.zero-sum",
    title="The gradients of the bins of a side do not sum to 0",
    source="SPEC 10.11",
    cases=WITH_TARGETS,
)
def test_the_gradients_of_the_bins_of_a_side_sum_to_zero(exam: Exam) -> None:
    """With R > 1 the gradients of the R bins of a side sum to 0, as no number added to all of them changes the loss."""
    exam.only_if(exam.case.reg_max > 1, "one bin")
    budget = decided(exam)
    found = sides_of(exam).reshape(exam.case.batch, SIDES, exam.case.reg_max, -1)
    size = abs(found).sum(axis=2)
    allowed = (FEW * budget.unit * exam.case.reg_max + 2 * budget.cast) * size + budget.least * exam.case.reg_max
    r = budget.reference
    off = r.placed(budget.box_gradient + budget.third_gradient).reshape(found.shape)
    allowed = allowed + off.sum(axis=2)
    exam.expect_close("sum of the gradients at image, side, anchor", 0.0, found.sum(axis=2), allowed, budget.because)
