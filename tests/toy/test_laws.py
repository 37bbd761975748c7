"""The five laws of the toy family."""

import numpy as np

from tests.toy.family import Reference, ToyDomain
from yololoss.harness.cases.domain import strategy
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

ANY, SEVERAL = strategy(ToyDomain()), strategy(ToyDomain(least=2))


@law("totals.finite", source="README", cases=ANY, infinite=True)
def test_the_total_is_finite(exam: Exam) -> None:
    """The total is finite for finite logits."""
    total = exam.calls[-1].total
    exam.expect(np.isfinite(total), "total", "finite", total)


@law("totals.value", source="README", cases=ANY)
def test_the_total_is_that_of_the_reference(exam: Exam) -> None:
    """The total is the mean cross-entropy."""
    budget = exam.budget
    want = exam.of(Reference).total
    exam.expect_close("total", want, exam.calls[-1].total, budget.totals[0], budget.because)


@law("gradients.value", source="README", cases=ANY)
def test_the_gradient_is_that_of_the_reference(exam: Exam) -> None:
    """The gradient is softmax less the one-hot label, over the number of examples."""
    budget = exam.budget
    want = exam.of(Reference).gradient
    exam.expect_close("gradient", want, exam.gradients[0], budget.gradients[0], budget.because)


@law("gradients.zero-sum", source="README", cases=ANY)
def test_the_gradients_of_an_example_sum_to_zero(exam: Exam) -> None:
    """The gradients of one example sum to 0 over its classes."""
    budget = exam.budget
    sums = exam.gradients[0].sum(axis=1)
    allowed = budget.gradients[0].sum(axis=1)
    exam.expect_close("sum of the gradients of example", np.zeros(len(sums)), sums, allowed, budget.because)


@law("symmetry.other-labels", source="README", cases=SEVERAL, again=True)
def test_other_labels_give_their_total(exam: Exam) -> None:
    """With every label one class further, the total is that of those labels."""
    case = exam.case
    turned = case.changed(labels=tuple((label + 1) % case.classes for label in case.labels))
    other = exam.on(turned)
    budget = exam.budget
    want = other.of(Reference).total
    exam.expect_close("total", want, other.calls[-1].total, budget.totals[0], budget.because)
