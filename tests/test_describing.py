"""The words of a finding: its title, and the numbers of the assignment."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from properties.v5.case import Case, Options, Override, SeededLogits
from properties.v5.reference import Reference
from properties.v5.rows import Rows
from tests.all_laws import V5
from tests.judging import gate, minimised
from yololoss.harness.engine.plan import Plan
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import Wrong
from yololoss.harness.subjects.load import load_loss
from yololoss.harness.subjects.outcome import Outcome

UPSTREAM = V5.dialects["upstream"]
CASE = Case(
    batch=1,
    classes=2,
    grids=((2, 2),),
    strides=(8.0,),
    anchors=(((1.0, 1.0), (9.0, 1.0)),),
    targets=((0.0, 0.0, 0.3, 1.0, 0.5, 0.5),),  # its own cell, the one above, the one to the right
    predictions=SeededLogits(seed=0),
)
(ROWS,) = Reference(CASE).rows


def some(keep, **changed) -> Rows:
    """Some of the expected rows, with other values."""
    kept = Rows(**{name: values[list(keep)] for name, values in vars(ROWS).items()})
    return replace(kept, **{name: np.asarray(values, getattr(ROWS, name).dtype) for name, values in changed.items()})


def title(
    law: str, what: str = "", expected: str = "", observed: str = "", kind: str = "", case=CASE, rows=None, gradients=()
) -> str:
    """The title of a finding."""
    wrong = Wrong(law, "usual title", what, expected, observed, kind)
    outcome = Outcome((), rows=None if rows is None else (rows,), gradients=gradients)
    return V5.title(wrong, case, outcome, UPSTREAM)


def box(n: int, **moved: float) -> np.ndarray:
    """The expected boxes, one of them moved."""
    found = ROWS.box.copy()
    for column, value in moved.items():
        found[n, "xywh".index(column)] += value
    return found


ALL = range(len(ROWS))
BELOW = ", for a target on the lower edge"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (some(ALL, cls=[1, 0, 0]), "A row has class 1 and not 0"),
        (
            some(ALL, box=box(0, y=1)),
            "The centre of a row's box is (0.6, 2) and not (0.6, 1): taken from another cell",
        ),
        (
            some(ALL, box=box(0, x=0.25)),
            "The centre of a row's box is (0.85, 1) and not (0.6, 1): taken off by (0.25, 0) cells",
        ),
        (some(ALL, box=box(0, w=1)), "The sides of a row's box are 2 x 1 cells and not 1 x 1"),
        (some(ALL, anchor_wh=[(2, 1), (1, 1), (1, 1)]), "A row has an anchor of 2 x 1 cells and not 1 x 1"),
        (
            some(ALL, row=[2, 1, 1]),
            "A row is in the cell at row 2, column 0, not at row 1, column 0" + BELOW,
        ),
        (some(ALL, image=[1, 0, 0]), "A row is of image 1, not of image 0"),
        (some(()), "A target and an anchor with a ratio of 1 get no row: the limit is 4" + BELOW),
        (some((0, 2)), "The cell above the centre of a target gets no row" + BELOW),
        (some((0, 0, 1, 2)), "The cell at row 1, column 0, gets a row twice" + BELOW),
        (
            some((0, 1, 2, 2), anchor=[0, 0, 0, 1], anchor_wh=[(1, 1)] * 3 + [(9, 1)]),
            "A target and an anchor with a ratio of 9 get a row: the limit is 4",
        ),
        (
            some((0, 1, 2, 2), row=[1, 1, 1, 0], box=[*ROWS.box, (-0.4, 2.0, 1, 1)]),
            "The cell at row 0, column 1, gets a row for a centre at (0.6, 2)" + BELOW,
        ),
        (some(ALL), "usual title"),
        (None, "usual title"),
    ],
)
def test_a_wrong_row_is_named(rows, text):
    """By what differs from the expected row, and where its target is."""
    assert title("assign.rows", rows=rows) == text


def test_a_pair_of_which_one_of_two_equal_rows_is_lacking_has_a_row():
    """Both are clamped into one cell."""
    corner = CASE.changed(targets=((0.0, 0.0, 1.0, 0.3, 0.5, 0.5),), grids=((1, 2),))
    (rows,) = Reference(corner).rows
    one = Rows(**{name: values[:1] for name, values in vars(rows).items()})
    assert len(rows) == 2
    assert title("assign.rows", case=corner, rows=one) == (
        "The cell to the left of the centre of a target gets no row, for a target on the right edge"
    )


def test_the_own_cell_is_named():
    """Where it is another one than the cells beside it."""
    inside = CASE.changed(targets=((0.0, 0.0, 0.6, 0.6, 0.5, 0.5),))
    (rows,) = Reference(inside).rows
    lacking = Rows(**{name: values[1:] for name, values in vars(rows).items()})
    assert title("assign.rows", case=inside, rows=lacking) == ("The cell that holds the centre of a target gets no row")


@pytest.mark.parametrize(
    ("law", "what", "expected", "observed", "text"),
    [
        ("boxes.item", "box item", "2", "1 (-1)", "The box item is half of what it should be"),
        ("classes.item", "class item", "2", "4 (+2)", "The class item is twice what it should be"),
        ("objectness.item", "objectness item", "0", "1", "The objectness item is 1 and not 0"),
        ("objectness.item", "objectness item", "1", "0", "The objectness item is 0"),
        ("totals.value", "total of call 1", "1", "-1", "The total is of the wrong sign"),
        ("totals.value", "total of call 1", "1", "nan", "The total is nan and not 1"),
        ("totals.value", "total of call 1", "1", "1.001", "The total is too large: 1.001 and not 1"),
        ("totals.value", "total of call 1", "2", "1.7", "The total is too small: 1.7 and not 2"),
        ("totals.value", "total of call 1", "1", "1.5", "The total is 3/2 times what it should be"),
        (
            "boxes.gradient",
            "layer 0, gradient at ..., channel[0, 0, 0, 0, 3]",
            "1",
            "2",
            "The gradient of a h logit is",
        ),
        (
            "classes.gradient",
            "layer 0, gradient at ..., class[0, 0, 0, 0, 1]",
            "1",
            "2",
            "The gradient of the logit of class 1",
        ),
        (
            "gradients.value",
            "layer 0, gradient at ..., channel[0, 0, 0, 0, 6]",
            "1",
            "2",
            "The gradient of the logit of class 1",
        ),
        (
            "objectness.gradient",
            "layer 0, gradient at ...[0, 0, 0, 0]",
            "1",
            "2",
            "The gradient of an objectness logit is",
        ),
        ("gather.own-cell", "layer 0", "row 0", "row 1", "The logits of a row at row 0 are read from row 1"),
        ("boxes.item-range", "box item", "from 0 to 3", "4", "usual title"),
        ("state.second-object", "total of call 0", "1", "2", "usual title"),
    ],
)
def test_a_wrong_number_is_compared_with_the_right_one(law, what, expected, observed, text):
    """As a share, where that says more than the number."""
    assert title(law, what, expected, observed).startswith(text)


def spotted(*values: float) -> Case:
    """The case with these box logits in the cell of its first row."""
    spots = tuple(
        Override(layer=0, image=0, anchor=0, row=1, column=0, channel=channel, value=value)
        for channel, value in enumerate(values)
    )
    return CASE.changed(predictions=SeededLogits(seed=0, overrides=spots))


def test_a_number_that_is_not_finite_is_named_with_its_reason():
    """A box without size, or one that fits."""
    finite = ("totals.finite", "box item of call 0", "finite", "nan")
    assert title(*finite, "box", case=spotted(0, 0, -60, -60)) == (
        "The box item is NaN where a predicted box has no width and height"
    )
    assert title(*finite, "fits") == "The box item is NaN where a box fits its target exactly"
    what = "layer 0, gradient of the class logits at image, anchor, row, column, channel[0, 0, 0, 0, 1]"
    assert (
        title("gradients.finite", what, "finite", "inf", "criterion") == "The gradient of the class logits is infinite"
    )


def test_settings_that_the_case_needs_are_named():
    """One or two: of more, the case itself tells."""
    case = CASE.changed(options=Options(sort_obj_iou=True))
    assert title("boxes.item", "box item", "2", "1", case=case) == (
        "The box item is half of what it should be, with sort_obj_iou = True"
    )
    many = case.changed(hyp=case.hyp.model_copy(update={"box": 1.0, "cls": 1.0}))
    assert title("boxes.item", "box item", "2", "1", case=many) == "The box item is half of what it should be"


def test_an_exception_is_named_with_its_place():
    """Type, place and message."""
    observed = "raised in loss: IndexError: index 5 is out of bounds, at loss.py:12 in build_targets"
    assert title("run.no-exception", "what the subject did", "rows", observed) == (
        "IndexError in loss, at loss.py:12 in build_targets: index 5 is out of bounds"
    )


def test_the_assignment_is_worked_out_in_numbers():
    """For each target and anchor: cells, ratio, choices, offsets, and what the loss built otherwise."""
    built = some((0, 2, 2), row=[1, 1, 0])
    assert list(V5.worked_out(CASE, Outcome((), rows=(built,)), UPSTREAM)) == [
        "layer 0, target 0, anchor 0: centre (0.6, 2), sides 1 x 1, largest ratio 1, limit 4: matches",
        "  cell at row 1, column 0, own, clamped from row 2, column 0: centre (0.6, 1) from its corner: not built",
        "  cell at row 1, column 0, above: centre (0.6, 1) from its corner",
        "  cell at row 1, column 1, right, clamped from row 2, column 1: centre (-0.4, 1) from its corner",
        "layer 0, target 0, anchor 1: centre (0.6, 2), sides 1 x 1, largest ratio 9, limit 4: no match",
        "  cell at row 0, column 1: centre (-0.4, 1) from its corner, sides 1 x 1: built, not expected",
    ]
    above = list(V5.worked_out(CASE, Outcome((), rows=(some((0, 2)),)), UPSTREAM))[2]
    assert above == "  cell at row 1, column 0, above: centre (0.6, 1) from its corner: not built"
    flat = CASE.changed(targets=((0.0, 0.0, 0.3, 1.0, 0.0, 0.5),), anchors=(((1.0, 1.0),),))
    assert list(V5.worked_out(flat, None, UPSTREAM)) == [
        "layer 0, target 0, anchor 0: centre (0.6, 2), sides 0 x 1, largest ratio inf, limit 4: no match"
    ]


def test_input_that_is_not_valid_has_no_numbers():
    """The reference has none for it."""
    bad = CASE.changed(targets=((0.0, 9.0, 0.3, 1.0, 0.5, 0.5),))
    assert list(V5.worked_out(bad, None, UPSTREAM)) == []
    assert title("assign.rows", case=bad, rows=ROWS) == "usual title"


def test_layers_without_a_difference_are_left_out():
    """As long as there is one with."""
    two = CASE.changed(grids=((2, 2), (1, 1)), strides=(8.0, 16.0), anchors=CASE.anchors * 2)
    one, other = Reference(two).rows
    lacking = Rows(**{name: values[1:] for name, values in vars(one).items()})
    assert all(
        line.startswith(("layer 0", "  ")) for line in V5.worked_out(two, Outcome((), rows=(lacking, other)), UPSTREAM)
    )
    assert any(line.startswith("layer 1") for line in V5.worked_out(two, Outcome((), rows=(one, other)), UPSTREAM))


def test_an_item_is_told_with_what_its_gradient_says():
    """A term without a gradient, or a box whose overlap was replaced; else nothing."""
    (right,) = Reference(CASE).gradients
    no_box, not_a_number = right.copy(), right.copy()
    no_box[..., :4], not_a_number[..., :4] = 0, np.nan
    still = ", and its gradient is right: a part of it has no gradient"
    replaced = ", and a predicted box has no gradient, or NaN: was its overlap replaced by a number?"
    for law, gradient, more in (
        ("boxes.item", right, still),
        ("objectness.item", no_box, still),
        ("boxes.item", no_box, replaced),
        ("boxes.item", not_a_number, replaced),
        ("boxes.item", 2 * right, ""),
        ("objectness.item", 0 * right, ""),
        ("totals.value", right, ""),
    ):
        what = "total of call 0" if law == "totals.value" else f"{law.split('.')[0].removesuffix('es')} item"
        told = title(law, what, "1", "3", gradients=(gradient,))
        assert told.endswith(f" is 3 times what it should be{more}"), law


@pytest.mark.parametrize(
    ("name", "law", "text"),
    [
        ("RepelsInVain", "boxes.item", " is too large: .*, and its gradient is right: a part of it has no gradient"),
        ("SIoUByDivision", "totals.finite", " is NaN"),
        ("FocalOfNegative", "totals.finite", " is NaN"),
        ("HiddenNaN", "boxes.item", " is too .*, and a predicted box has no gradient, or NaN: was its overlap .*"),
    ],
)
def test_what_was_pasted_wrong_is_told_in_a_sentence(name, law, text):
    """The first law that breaks without an explanation, minimised."""
    dialect = "overlap = siou" if name == "SIoUByDivision" else "upstream"
    subject = load_loss(f"tests.subjects.pasted:{name}", torch.device("cpu"), dialect)
    plan = Plan((law,), subject)
    broken = minimised(next(gate(plan, range(400))), plan)
    told = V5.title(broken.wrong, broken.case, execute(subject, broken.case), subject.dialect)
    assert re.fullmatch(f"The box item{text}", told)
