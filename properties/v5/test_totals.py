"""Totals: three terms become one number.

Each term is summed over layers and multiplied by its gain: these are the items (box, objectness, class). Their sum
times the batch size is the total, of shape (1,), which carries the gradient. Each layer's objectness has a weight, its
balance: 4, 1 and 0.4 with three layers, otherwise the first entries of 4, 1, 0.25, 0.06 and 0.02. With autobalance the
balances change after every call: the weighted losses of all layers approach one value, and the balance of stride 16
is 1.
"""

from typing import Any

import numpy as np

from yololoss.harness.cases.domain import any_of
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law

from ..shared.comparing import no_trouble
from .budget import BECAUSE
from .case import Options
from .items import OF_RIGHT_TOTAL, of_another_total, sum_of_items
from .pools import AUTOBALANCED, HYPS, LARGE, VERY_LARGE
from .strategies import ANY, cases
from .test_symmetry import reversed_layers

GAINS = ("box", "obj", "cls")
ROUNDINGS = "8 roundings to float32"


@law("totals.sum", title="The total is not (box + obj + cls) x batch", source="SPEC 6", cases=ANY, everywhere=True)
def test_the_total_is_the_sum_of_the_items_times_the_batch(exam: Exam) -> None:
    """total = (box + obj + cls) x batch."""
    for n, call in enumerate(exam.calls):
        exam.only_if(len(call.items) >= 3, "the subject returns no items")
        want, allowed = sum_of_items(exam, call)
        if of_another_total(exam, n):
            exam.expect_close(OF_RIGHT_TOTAL, call.total, want, allowed, ROUNDINGS)
        exam.expect_close("total", want, call.total, allowed, ROUNDINGS)


@law(
    "totals.value",
    title="The total is wrong",
    source="SPEC 6",
    cases=ANY,
    everywhere=True,
)
def test_the_total_of_every_call_is_that_of_the_reference(exam: Exam) -> None:
    """The total of every call equals the reference's."""
    budget = exam.budget
    for n, (call, want) in enumerate(zip(exam.calls, budget.reference.calls, strict=True)):
        exam.expect_close(f"total of call {n}", want.total, call.total, budget.totals[n], BECAUSE)


@law(
    "totals.large-sizes",
    title="With a large batch, grid or number of targets, the results are wrong",
    source="SPEC 6",
    # nothing is extreme except the sizes
    cases=cases(min_targets=1, large=LARGE, layouts=("contiguous",), logits=((4.0, 0.0), (1.0, 0.0)), spots=False),
    again=True,
    infinite=True,
)
def test_large_sizes_are_treated_like_small_ones(exam: Exam) -> None:
    """With many targets, images, classes, anchors, columns or rows, total and gradients equal the reference's."""
    as_the_reference(exam)


@law(
    "totals.very-large-sizes",
    title="With very many cells, columns, rows, targets, images or classes, the results are wrong",
    source="SPEC 6",
    cases=cases(
        min_targets=2,
        max_targets=6,
        large=VERY_LARGE,
        layouts=("contiguous",),
        # mostly those in which a wrong row is larger than rounding
        dtypes=("float32", "float32", "float16"),
        target_dtypes=("float32", "float64"),
        logits=((4.0, 0.0), (8.0, 0.0)),
        # of 4,100 images, the gradient of a mean in float16 must not pass 65,504: batch x gain x balance
        hyps=[hyp for hyp in HYPS if hyp.obj <= 2],
        spots=False,
    ),
    again=True,
    infinite=True,
)
def test_sizes_beyond_16_bits_are_treated_like_small_ones(exam: Exam) -> None:
    """With 154,449 cells, thousands of rows, or 4,100 images, classes, columns or grid rows: as the reference says."""
    if not exam.outcome.gradients:  # if a small case raises too, run.no-exception reports it
        few = exam.on(exam.case.changed(grids=((2, 2),), targets=exam.case.targets[:1]))
        exam.only_if(bool(few.outcome.gradients), "the subject raises on a small case too")
        no_trouble(exam, "raised", "rows, loss and gradients")
    as_the_reference(exam)


def as_the_reference(exam: Exam) -> None:
    """Total and gradient of a case with one layer equal the reference's."""
    budget = exam.budget
    exam.expect_close("total", budget.reference.calls[-1].total, exam.calls[-1].total, budget.totals[-1], BECAUSE)
    place = "gradient at image, anchor, row, column, channel"
    exam.expect_close(place, budget.reference.gradients[0], exam.gradients[0], budget.gradients[0], BECAUSE)


def gain_is_linear(exam: Exam, name: str) -> None:
    """A gain of 0 makes its item 0, a doubled gain doubles it up to rounding; the other items do not change."""
    which = GAINS.index(name)
    for factor in (0, 2):
        gain = exam.case.hyp.model_copy(update={name: factor * getattr(exam.case.hyp, name)})
        other = exam.on(exam.case.changed(hyp=gain))
        want = exam.items * np.where(np.arange(3) == which, factor, 1)
        place = f"items (box, obj, cls) with {factor} times the gain"
        exam.expect_close(place, want, other.items, 2.0**-22 * abs(want), "two roundings to float32")


@law(
    "totals.box-gain",
    title="The gain box does not scale the box item alone",
    source="SPEC 6",
    cases=cases(min_targets=1),
    again=True,
)
def test_the_box_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``box`` doubles the box item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "box")


@law(
    "totals.obj-gain",
    title="The gain obj does not scale the objectness item alone",
    source="SPEC 6",
    cases=cases(),
    again=True,
)
def test_the_objectness_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``obj`` doubles the objectness item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "obj")


@law(
    "totals.cls-gain",
    title="The gain cls does not scale the class item alone",
    source="SPEC 6",
    cases=cases(min_targets=1),
    again=True,
)
def test_the_class_item_grows_with_its_gain(exam: Exam) -> None:
    """A doubled gain ``cls`` doubles the class item, a gain of 0 makes it 0, and the other items do not change."""
    gain_is_linear(exam, "cls")


PLAIN = cases(
    min_targets=1,
    hyps=[h.model_copy(update={"obj": 0.0, "cls": 0.0}) for h in HYPS[:1]],
    dtypes=("float32", "float64"),
)


@law(
    "totals.only-box-gain",
    title="With gains of 0, objectness or classes are still trained",
    source="SPEC 6",
    cases=PLAIN,
)
def test_with_only_the_box_gain_only_box_logits_have_a_gradient(exam: Exam) -> None:
    """If the gains of objectness and class are 0, their items are 0 and their logits get no gradient."""
    if exam.has_items:
        exam.expect_equal("items (obj, cls)", [0.0, 0.0], exam.items[1:])
    for i, gradient in enumerate(exam.gradients):
        exam.expect(gradient[..., 4:] == 0, f"layer {i}, gradient of obj and cls", 0, gradient[..., 4:])


FLAT = cases(
    max_targets=0,
    logits=((0.0, 0.0), (0.0, -1.0), (0.0, 2.0)),
    hyps=HYPS[:1],
    options=(Options(),),
    dtypes=("float32", "float64"),
)


@law("totals.balance", title="The balance of a layer is wrong", source="SPEC 3, balance", cases=FLAT)
def test_layers_are_weighted_by_the_balance_table(exam: Exam) -> None:
    """Without targets and with equal logits, a layer's summed objectness gradient is proportional to its balance."""
    reference, layers = exam.budget.reference, exam.case.layers
    table = exam.subject.dialect.balance_of(layers)[:layers]
    logit = float(exam.case.logits[0][0, 0, 0, 0, 4])
    share = exam.case.hyp.obj * reference.scales[1] * reference.batch * float(1 / (1 + np.exp(-logit)))
    summed = [float(gradient[..., 4].sum()) for gradient in exam.gradients]
    allowed = [float(off[..., 4].sum()) for off in exam.budget.gradients]
    exam.expect_close("sum of a layer's objectness gradients", np.array(table) * share, summed, allowed, BECAUSE)


@law(
    "totals.layers-independent",
    title="The layers influence one another",
    source="SPEC 6",
    cases=cases(dtypes=("float32", "float64"), spots=False),
    again=True,
)
def test_layers_contribute_independently(exam: Exam) -> None:
    """The effect of one layer's logits on the total does not depend on the logits of another layer."""
    exam.only_if(exam.case.layers > 1, "one layer")
    first, *middle, last = exam.case.logits
    changed = [exam.on(exam.case.with_logits((a, *middle, b))) for a in (first, first / 2) for b in (last, last / 2)]
    one, two, three, four = (e.calls[0].total for e in changed)
    off = sum(e.budget.totals[0] for e in changed)
    exam.expect_close("total with both changed", two + three - one, four, off, BECAUSE)


BALANCING = cases(options=AUTOBALANCED)


@law(
    "totals.autobalance",
    title="Autobalance moves the balances to other values",
    source="SPEC 3, autobalance",
    cases=BALANCING,
)
def test_autobalance_changes_the_table_after_every_call(exam: Exam) -> None:
    """After each call, a balance becomes 0.9999 balance + 0.0001 / loss; then all are divided by that of stride 16."""
    budget = exam.budget
    exam.by_gradient = True  # a balance shows a difference that the items hide, as gradients do
    for n, (call, want) in enumerate(zip(exam.calls, budget.reference.calls, strict=True)):
        balance = np.array(call.state or ())
        exam.only_if(len(balance) > 0, "the subject shows no balance")
        shown = min(len(balance), len(want.balance_after))  # entries beyond the layers need not be shown
        exam.expect(shown >= exam.case.layers, "entries of the balance", f"{exam.case.layers} or more", shown)
        after, off = np.array(want.balance_after)[:shown], budget.balances[n + 1][:shown]
        exam.expect_close(f"balance after call {n}", after, balance[:shown], off, BECAUSE)


@law(
    "totals.autobalance-first-call",
    title="Autobalance changes the first call",
    source="SPEC 3, autobalance",
    cases=BALANCING,
    again=True,
)
def test_a_call_uses_the_balance_from_before_it(exam: Exam) -> None:
    """With autobalance, the first call returns the same total as without."""
    without = exam.case.options.model_copy(update={"autobalance": False, "calls": 1})
    plain = exam.on(exam.case.changed(options=without))
    off = exam.budget.totals[0]
    exam.expect_close("total of the first call", plain.calls[0].total, exam.calls[0].total, off, BECAUSE)


@law(
    "totals.layers-reversed",
    title="With the layers in reverse order, the total is wrong",
    source="SPEC 3, balance; autobalance",
    cases=any_of(cases(min_targets=1, spots=False), cases(options=AUTOBALANCED, spots=False)),
    again=True,
)
def test_the_balance_follows_the_order_of_layers(exam: Exam) -> None:
    """With the layers in reverse order, from large to small strides, the total of every call equals the reference's."""
    exam.only_if(exam.case.layers > 1, "one layer")
    other = exam.on(reversed_layers(exam.case))
    budget = other.budget
    for n, (call, want) in enumerate(zip(other.calls, budget.reference.calls, strict=True)):
        exam.expect_close(f"total of call {n}", want.total, call.total, budget.totals[n], BECAUSE)


@law(
    "totals.shape-and-dtype",
    title="The total or the items have another shape or dtype",
    source="SPEC 6",
    cases=ANY,
    everywhere=True,
)
def test_results_have_upstreams_form(exam: Exam) -> None:
    """The total has shape (1,) or (), the items (3,) or (4,); both are float32 for any dtype of the predictions.

    The items may be Python floats instead.
    """
    for call in exam.calls:
        exam.only_if(len(call.items) > 0, "the subject returns no items")
        exam.expect(call.total_shape in {(1,), ()}, "shape of total", "(1,) or ()", str(call.total_shape))
        exam.expect(call.items_shape in {(3,), (4,)}, "shape of items", "(3,) or (4,)", str(call.items_shape))
        exam.expect(call.total_dtype == "float32", "dtype of total", "float32", call.total_dtype)
        exam.expect(call.items_dtype in {"float32", "float"}, "dtype of items", "float32", call.items_dtype)


@law("totals.total-has-gradient", title="The total carries no gradient", source="SPEC 6", cases=ANY, everywhere=True)
def test_the_total_carries_the_gradient(exam: Exam) -> None:
    """The total requires grad, with and without targets."""
    exam.expect(exam.calls[-1].total_requires_grad, "total.requires_grad", True, False)


@law(
    "totals.items-detached",
    title="The items carry a gradient, so logging them keeps the graph in memory",
    source="SPEC 6",
    cases=ANY,
    everywhere=True,
)
def test_the_items_are_detached(exam: Exam) -> None:
    """The items do not require grad, so logging them does not keep the graph in memory."""
    exam.expect(not exam.calls[-1].items_require_grad, "items.requires_grad", False, True)


@law(
    "totals.finite",
    title="The loss is not finite",
    source="SPEC 7",
    cases=ANY,
    infinite=True,
    several=True,
    everywhere=True,
)
def test_every_number_returned_is_finite(exam: Exam) -> None:
    """Total and items are finite for every valid case, even for predicted boxes of size 0 and saturated logits."""
    for n, call in enumerate(exam.calls):
        for item, value in zip(("box", "objectness", "class", "fourth"), call.items, strict=False):
            kind = "fits" if item == "box" and not np.isfinite(value) and fits(exam) else item
            exam.expect(np.isfinite(value), f"{item} item of call {n}", "finite", value, kind=kind)
        exam.expect(np.isfinite(call.total), f"total of call {n}", "finite", call.total, kind="total")


def fits(exam: Exam) -> bool:
    """Whether a row's box fits its target exactly. The law does not apply if another one has no width or height.

    Either may give a NaN, and each is a fault of its own.
    """
    budget: Any = exam.run.budget  # not the exam's: this law does not compare with it
    reference = budget.reference
    there = (reference.all_overlaps > 1 - 1e-6).any()
    flat = (reference.all_predicted.box[:, 2:] < 1e-6 * reference.all_anchors).any()
    exam.only_if(not (there and flat), "one box fits exactly, and another has no size: both may give a NaN")
    return bool(there)


@law("totals.not-negative", title="An item is negative", source="SPEC 2 to 5", cases=ANY)
def test_no_item_is_negative(exam: Exam) -> None:
    """No item is negative, up to rounding: each is a mean of losses that are 0 or more."""
    exam.expect(exam.items >= -exam.budget.items[-1], "items (box, obj, cls)", "0 or more", exam.items)
