"""Totals: three terms become the total.

Each term is divided by the sum of scores and multiplied by its gain: these are the items. The total is the three of
them times the batch size, or their sum, and carries the gradient; the items carry none.
"""

import numpy as np

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from .budget import BECAUSE, U
from .items import with_gains
from .reading import decided
from .strategies import ANY, EVERY_KIND, STANDARD, WITH_HUGE, WITH_TARGETS

GAINS = ("box", "cls", "dfl")
ROUNDINGS = "8 roundings to float32"
SHAPES = {"three": (3,), "one": ()}


@law("totals.shape", title="The total has another shape", source="SPEC 1", cases=ANY, everywhere=True)
def test_the_total_has_its_shape(exam: Exam) -> None:
    """The total is of shape (3,), or a scalar for a loss of an older version; three items; all float32."""
    call = exam.calls[0]
    exam.expect_equal("shape of the total", SHAPES[exam.subject.dialect.total], call.total_shape)
    exam.expect_equal("dtype of the total", "float32", call.total_dtype)
    exam.expect_equal("number of items", 3 if call.items else 0, len(call.items))


@law("totals.sum", title="The total is not the sum of the items x batch", source="SPEC 5", cases=ANY, everywhere=True)
def test_the_total_is_the_sum_of_the_items_times_the_batch(exam: Exam) -> None:
    """total = (box + cls + third) x batch."""
    call, times = exam.calls[0], exam.budget.reference.batch
    want, size = times * exam.items.sum(), times * abs(exam.items).sum()
    exam.expect_close("total", want, call.total, 8 * U * size, ROUNDINGS)


@law("totals.items-detached", title="The items carry a gradient", source="SPEC 1", cases=ANY)
def test_the_items_are_detached(exam: Exam) -> None:
    """The items are detached from the graph, and the total is not."""
    call = exam.calls[0]
    exam.expect(not call.items_require_grad, "items require a gradient", "no", "yes")
    exam.expect(call.total_requires_grad, "the total requires a gradient", "yes", "no")


@law("totals.finite", title="The loss is not finite", source="SPEC 9", cases=WITH_HUGE, infinite=True, everywhere=True)
def test_the_loss_is_finite(exam: Exam) -> None:
    """Total and items are finite for finite logits."""
    call = exam.calls[0]
    exam.expect(np.isfinite(call.total), "total", "finite", call.total)
    exam.expect(np.isfinite(call.items), "items (box, cls, third)", "finite", np.array(call.items))


@law("totals.value", title="The total is wrong", source="SPEC 5", cases=EVERY_KIND)
def test_the_total_is_that_of_the_reference(exam: Exam) -> None:
    """The total is the reference's."""
    budget = decided(exam)
    want = budget.reference.calls[0].total
    exam.expect_close("total", want, exam.calls[0].total, budget.totals[0], BECAUSE)


@law("totals.no-targets", title="Without targets the loss is wrong", source="SPEC 5", cases=ANY, again=True)
def test_without_targets_only_the_background_is_left(exam: Exam) -> None:
    """Without targets, box and third item are 0, and the class item is the background's BCE, divided by 1."""
    other = exam.on(exam.case.changed(targets=()))
    budget = other.budget
    want = budget.reference.calls[0].items
    exam.expect_equal("box and third item", [0.0, 0.0], other.items[[0, 2]])
    exam.expect_close("class item", want[1], other.items[1], budget.items[0][1], BECAUSE)


def gain_is_linear(exam: Exam, name: str) -> None:
    """A gain of 0 makes its item 0, a doubled gain doubles it up to rounding; the other items do not change."""
    which = GAINS.index(name)
    for factor in (0, 2):
        other = with_gains(exam, **{name: factor * getattr(exam.case.gains, name)})
        want = exam.items * np.where(np.arange(3) == which, factor, 1)
        place = f"items (box, cls, third) with {factor} times the gain"
        exam.expect_close(place, want, other.items, 2.0**-21 * abs(want), "four roundings to float32")


@law("totals.box-gain", title="The gain box does not scale the box item alone", source="SPEC 10.10",
     cases=STANDARD, again=True)  # fmt: skip
def test_the_box_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``box`` doubles the box item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "box")


@law("totals.cls-gain", title="The gain cls does not scale the class item alone", source="SPEC 10.10",
     cases=STANDARD, again=True)  # fmt: skip
def test_the_class_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``cls`` doubles the class item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "cls")


@law("totals.dfl-gain", title="The gain dfl does not scale the third item alone", source="SPEC 10.10",
     cases=STANDARD, again=True)  # fmt: skip
def test_the_third_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``dfl`` doubles the third item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "dfl")


@law(
    "totals.empty-image",
    title="An image without targets adds more than its background",
    source="SPEC 10.8",
    cases=WITH_TARGETS,
    again=True,
)
def test_an_image_without_targets_adds_its_background_alone(exam: Exam) -> None:
    """If the last image loses its targets, box, class and third item are those of the rest and its background."""
    last = exam.case.batch - 1
    left = tuple(target for target in exam.case.targets if target[0] != last)
    other = exam.on(exam.case.changed(targets=left))
    budget = decided(other)
    want = budget.reference.calls[0].items
    exam.expect_close("items (box, cls, third)", want, other.items, budget.items[0], BECAUSE)
