"""No law accuses a loss that differs from the bundled one only in what SPEC leaves open."""

import inspect
import logging

import pytest
import torch

from properties.v5.case import Case, Override, SeededLogits
from properties.v5.rows import read_built
from tests.all_laws import LAWS, V5
from tests.judging import search
from tests.subjects import conforming, conforming_forms
from yololoss.harness.cases.domain import domains
from yololoss.harness.laws.exam import LawBroken, Run
from yololoss.harness.laws.law import drawn
from yololoss.harness.subjects.load import load_loss

CPU = torch.device("cpu")
NO_LOSSES = ("BCE", "Pieces", "Whole")  # what the variants are made of
VARIANTS = [
    f"{module.__name__}:{name}"
    for module in (conforming, conforming_forms)
    for name, found in vars(module).items()
    if inspect.isclass(found) and found.__module__ == module.__name__ and name not in NO_LOSSES
]
ANY_ORDER = ("RowsByTarget", "RowsReversed")
POOL = 5  # cases a law; each variant is given one of them, of every third law


def load(spec, device=CPU):
    """The variant, with the dialect that has its choices."""
    return load_loss(spec, device, "upstream, row_order = any" if spec.endswith(ANY_ORDER) else "upstream")


@pytest.fixture(scope="module")
def pool():
    """Cases of every law, drawn once for all variants; gates: docs/understand/false-alarms.md."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are small, and several workers may run
    # without the first, which is always the smallest
    yield {law.id: drawn(law.strategy(V5), POOL + 1)[1:] for law in LAWS.values() if law.strategy(V5) is not None}
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("spec", VARIANTS)
def test_no_law_accuses_a_conforming_loss(spec, pool, shapes_are_checked):
    """The laws that the variant's family is held to hold on it; here every third, a third from each variant."""
    subject, number = load(spec), VARIANTS.index(spec)
    for law in list(LAWS.values())[number % 3 :: 3]:
        if shapes_are_checked and law.id == "state.rng-unchanged":
            continue  # the check of shapes itself draws a number: it looks at one element of a tuple
        if law.assumes(subject) is None:
            made = law.own(subject) or pool[law.id]
            law.examine(Run(subject, made[number % len(made)]))


def test_rows_in_another_order_are_a_familys_choice():
    """Held to upstream's order the variant breaks assign.row-order; if any order will do, it does not."""
    law = LAWS["assign.row-order"]
    assert search(law, load_loss("tests.subjects.conforming_forms:RowsReversed", CPU)) is not None
    own = load("tests.subjects.conforming_forms:RowsReversed")
    assert search(law, own) is None
    assert [each.id for each in LAWS.values() if each.assumes(own) and not each.on and each.cases is not None] == [
        "gradients.double-precision",
        "state.target-dtype",
        "form.interface",
    ]


@pytest.mark.parametrize(
    ("name", "law", "missing"),
    [
        ("WeakModel", "state.pickle", "the subject has no object to copy"),
        ("ReadOnlyRatio", "objectness.gr", "the subject has no gr"),
        ("OwnRatio", "objectness.gr", "the subject has no gr"),
        ("OwnRows", "assign.rows", "the subject shows no rows"),
        ("NoTable", "form.set-balance", "the subject has no balance"),
    ],
)
def test_what_a_loss_does_not_have_is_not_asked_of_it(name, law, missing):
    """An object that cannot be copied, an option that cannot be set, rows of another form: the law does not apply."""
    assert search(LAWS[law], load_loss(f"tests.subjects.conforming_forms:{name}", CPU)) is None
    assert LAWS[law].tally.not_applicable[missing] > 0


def test_a_thin_box_at_a_tie_may_have_the_gradient_of_either_side():
    """If edges almost tie, a correct gradient jumps; the tolerance covers both sides of the jump."""
    fit = (1.0986116528853331, 1.0986121297223965, -0.7711621888261939, -0.7711621820160124)
    place = {"layer": 0, "image": 0, "anchor": 0, "row": 0, "column": 0}
    overrides = tuple(Override(**place, channel=channel, value=value) for channel, value in enumerate(fit))
    case = Case(
        batch=1,
        classes=3,
        grids=((1, 2),),
        strides=(16.0,),
        anchors=(((0.06, 2.0),),),
        targets=((0.0, 1.0, 0.49999988079071045, 0.9999999403953552, 0.011999999172985554, 0.7999999523162842),),
        dtype="float64",
        predictions=SeededLogits(seed=0, scale=0.0, overrides=overrides),
    )
    LAWS["boxes.gradient"].examine(Run(load_loss("tests.subjects.conforming:MeanBySum", CPU), case))


def test_two_classes_in_one_fitting_cell_leave_it_a_gradient():
    """Laws that read the assignment off the gradient draw no logits at which a cell that is used may have none."""
    law, subject = LAWS["gradients.assignment"], load_loss("yololoss:ComputeLoss", CPU)
    fit = Case(
        batch=1,
        classes=2,
        grids=((2, 2),),
        strides=(8.0,),
        anchors=(((1.0, 1.0),),),
        targets=((0.0, 0.0, 0.25, 0.25, 0.5, 0.5), (0.0, 1.0, 0.25, 0.25, 0.5, 0.5)),
        predictions=SeededLogits(seed=0, scale=0.0),
    )
    with pytest.raises(LawBroken):  # the class gradients are 1/2 and -1/2
        law.examine(Run(subject, fit))
    offsets = [offset for domain in domains(law.strategy(V5)) for scale, offset in domain.logits if scale == 0]
    assert offsets
    for offset in offsets:
        law.examine(Run(subject, fit.changed(predictions=SeededLogits(seed=0, scale=0.0, offset=offset))))


def test_a_loss_may_log_while_it_is_built(monkeypatch):
    """A message to a logger that nobody set up reaches the standard error. Only one at each call is output."""
    monkeypatch.setattr(logging.root, "handlers", [])  # without pytest's own
    case = drawn(LAWS["run.no-output"].strategy(V5), 1)[0]
    LAWS["run.no-output"].examine(Run(load("tests.subjects.conforming_forms:Logs"), case))


def test_lists_of_another_number_show_no_rows():
    """Four lists with indices, or yolov7's six; anything else is a form of the loss's own."""
    assert read_built([[torch.zeros(3)]] * 5, drawn(LAWS["assign.rows"].strategy(V5), 2)[1]) is None


FIT = (0.0110284016, 1.09861229, -0.771161905, 1.52711592)  # logits of the second target below, in bfloat16


@pytest.mark.parametrize(
    ("spec", "dtype", "anchor", "target", "logits"),
    [
        # both edges of x tie, and are decided otherwise for the overlap than for the enclosing box
        ("OneSidedTies", "float32", (4.125, 0.5), (0, 0, 0.5, 0.8, 4.125, 0.3), ()),
        # the gradient jumps by 2 between the two sides of a tie, and half precision rounds what it jumps by
        ("HalfParts", "bfloat16", (0.06, 1.3), (0, 0, 0.252757072, 1.0, 0.0120000038, 1.75500047), FIT),
    ],
)
def test_a_tie_may_be_decided_in_any_way(spec, dtype, anchor, target, logits):
    """Each minimum and maximum on its own. Each accused a conforming loss once in 100,000 judgements."""
    end = 2 if logits else 1
    spots = [
        Override(layer=0, image=0, anchor=0, row=end - 1, column=0, channel=channel, value=value)
        for channel, value in enumerate(logits)
    ]
    case = Case(
        batch=1,
        classes=1,
        grids=((end, end),),
        strides=(16.0,),
        anchors=((anchor,),),
        targets=(target,),
        dtype=dtype,
        predictions=SeededLogits(seed=0, scale=0.0, overrides=tuple(spots)),
    )
    LAWS["gradients.value"].examine(Run(load(f"tests.subjects.conforming:{spec}"), case))


@pytest.mark.parametrize(
    ("dtype", "anchor", "logits", "boxes"),
    [
        # two equal targets: each gradient jumps, and so does what it adds to the other's rounding
        (
            "bfloat16",
            (0.86297, 0.25),
            (1.1015625, 0.03063965, -0.76953125, -1.1015625),
            2 * [(1.0, 0.51534057, 0.34518811, 0.06250003)],
        ),
        # y ties, and then both edges of h lie within the target's, or both outside
        (
            "float16",
            (1.0, 0.06),
            (0.22314453, -0.64648438, 17.328125, -0.77099609),
            [(0.61108595, 0.1875, 3.99999976, 0.024)],
        ),
        # the box is narrower than the error of x: the target's edge may cut it
        (
            "float16",
            (0.86297, 2.875),
            (-3.89257812, 5.01171875, -6.0078125, 1.24414062),
            [(0.1875, 0.25585938, 1.29492188, 1.15039062)],
        ),
        # the box is the target; a little beside it the gradient is larger than at the ends of the error
        (
            "bfloat16",
            (0.86297, 0.06),
            (-0.6484375, -2.38418579e-07, 15.75, -2.70083547e-07),
            [(0.1875, 0.49999988, 3.45187902, 0.05999998)],
        ),
        # the box has no width, and its place is rounded to the target's edge: a tie of both its edges
        ("bfloat16", (2.0, 2.875), (-8.9375, 20.375, -34.25, 40.0), [(0.5, 0.5, 2.0, 2.875)]),
    ],
)
def test_half_precision_may_decide_a_tie_in_any_way(dtype, anchor, logits, boxes):
    """Each accused a loss that computes sigmoids in the predictions' dtype, in 100,000 judgements."""
    at = [
        Override(layer=0, image=0, anchor=0, row=1, column=1, channel=channel, value=value)
        for channel, value in enumerate(logits)
    ]
    case = Case(
        batch=1,
        classes=1,
        grids=((8, 8),),
        strides=(16.0,),
        anchors=((anchor,),),
        targets=tuple((0, 0, (x + 1) / 8, (y + 1) / 8, w / 8, h / 8) for x, y, w, h in boxes),
        dtype=dtype,
        predictions=SeededLogits(seed=0, scale=0.0, overrides=tuple(at)),
    )
    LAWS["gradients.value"].examine(Run(load("tests.subjects.conforming:HalfParts"), case))
