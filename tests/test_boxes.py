"""The IoU functions on boxes whose values can be computed by hand, and their properties on any boxes."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from properties.v5 import formulas
from yololoss.v5 import boxes

# Two unit squares, the second moved by half a side to the right: overlap 1/2, union 3/2, enclosing 3/2 x 1.
UNIT = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
MOVED = torch.tensor([[0.5, 0.0, 1.0, 1.0]])
# A square of side 2 around the first: overlap 1, union 4, centres together, same ratio.
AROUND = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
# Far away, and wide: no overlap, enclosing 12 x 1, distance 10, v = 4/pi^2 (atan 3 - atan 1)^2.
AWAY = torch.tensor([[10.0, 0.0, 3.0, 1.0]])
V_AWAY = 4 / math.pi**2 * (math.atan(3) - math.atan(1)) ** 2
WORKED = [
    ("iou", MOVED, 1 / 3),
    ("iou", AROUND, 1 / 4),
    ("iou", AWAY, 0.0),
    ("giou", MOVED, 1 / 3),  # nothing of the enclosing box is empty
    ("giou", AWAY, -(12 - 4) / 12),
    ("diou", MOVED, 1 / 3 - 0.25 / (1.5**2 + 1)),
    ("diou", AROUND, 1 / 4),
    ("ciou", MOVED, 1 / 3 - 0.25 / (1.5**2 + 1)),
    ("ciou", AWAY, -100 / 145 - V_AWAY**2 / (1 + V_AWAY)),
]


def corners(box: torch.Tensor) -> torch.Tensor:
    centre, size = box.split(2, dim=-1)
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


@pytest.mark.parametrize(("name", "other", "value"), WORKED)
def test_values_are_those_worked_out_by_hand(name, other, value):
    """Each member of the family, from centre-size boxes and from corners."""
    function = getattr(boxes, name)
    # eps = 1e-7 is added to areas of 1 or more, and float32 rounds some ten operations
    near = pytest.approx(value, rel=1e-6, abs=1e-6)
    assert function(UNIT, other).item() == near
    assert function(corners(UNIT), corners(other), corners=True).item() == near


@pytest.mark.parametrize("side", [1e-3, 1.0, 37.3, 1e3])
def test_a_perfect_fit_is_finite_and_almost_1(side):
    """Rounding above 1 at a perfect fit must not make alpha infinite."""
    size = torch.linspace(0.3, 3, 500)[:, None] * torch.tensor([[side, side * 0.7]])
    box = torch.cat((torch.linspace(-0.5, 1.5, 500)[:, None].expand(-1, 2), size), dim=1).requires_grad_()
    angle = torch.atan(box[:, 2] / box[:, 3])
    value = boxes.ciou(box, box.detach(), angle1=angle)
    (gradient,) = torch.autograd.grad(value.sum(), box)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    # eps = 1e-7 in the union weighs most for the smallest area
    assert (value - 1).abs().max() < 1e-5 + 1e-7 / size.prod(1).min()


def test_a_box_without_area_has_a_value():
    """Without ``angle1``, a box of zero width and height has angle 0: the value is finite."""
    nothing = torch.tensor([[0.3, 0.2, 0.0, 0.0]])
    assert boxes.ciou(nothing, UNIT).isfinite().all()


def test_decoding_is_its_formula():
    """xy = 2 s - 1/2 and wh = (2 s)^2 anchor, and the angle from logits is that of the decoded box."""
    logits = torch.tensor([[0.0, math.log(3), math.log(1 / 3), 0.0]])
    box = boxes.decode(logits, torch.tensor([[4.0, 5.0]]))
    assert box.tolist()[0] == pytest.approx([0.5, 1.0, 1.0, 5.0])
    angle = boxes.aspect_angle(logits, torch.tensor([[4.0, 5.0]]))
    assert angle.item() == pytest.approx(math.atan(1 / 5))


COORDINATE = st.integers(-64, 64).map(lambda n: n / 16)
SIDE = st.integers(1, 128).map(lambda n: n / 16)
BOX = st.tuples(COORDINATE, COORDINATE, SIDE, SIDE).map(lambda b: torch.tensor([b], dtype=torch.float64))
FAMILY = ("iou", "giou", "diou", "ciou")
# float64 rounding of some 30 operations on numbers up to 300, and eps = 1e-7 in areas and squares of 1/256 or more
NEAR = 1e-10


def family(one: torch.Tensor, two: torch.Tensor, eps: float = boxes.EPS) -> dict[str, float]:
    return {name: getattr(boxes, name)(one, two, eps=eps).item() for name in FAMILY}


@hypothesis.given(BOX, BOX)
def test_the_family_is_ordered_and_bounded(one, two):
    """0 <= IoU <= 1; GIoU and DIoU are at most IoU and above -1; CIoU is at most DIoU and above -2."""
    v = family(one, two)
    assert 0 <= v["iou"] <= 1 + NEAR
    assert -1 - NEAR <= v["giou"] <= v["iou"] + 1e-4  # GIoU's eps stands in both areas: 1e-7 / (1/256) of it
    assert -1 - NEAR <= v["diou"] <= v["iou"] + NEAR
    assert -2 <= v["ciou"] <= v["diou"] + NEAR


@hypothesis.given(BOX, BOX)
def test_the_family_is_symmetric(one, two):
    """Exchanging the boxes changes nothing."""
    assert family(one, two) == pytest.approx(family(two, one), abs=NEAR)


@hypothesis.given(BOX, BOX, COORDINATE, st.sampled_from((0.25, 2.0, 8.0)))
def test_moving_and_scaling_both_boxes_changes_nothing(one, two, shift, scale):
    """Translation changes nothing; nor does scaling, if eps is scaled as areas are."""
    moved = [box + torch.tensor([shift, -shift, 0, 0]) for box in (one, two)]
    assert family(*moved) == pytest.approx(family(one, two), abs=NEAR)
    scaled = family(one * scale, two * scale, eps=boxes.EPS * scale**2)
    exact = {name: scaled[name] for name in ("iou", "giou", "diou")}  # alpha's eps is a ratio and does not scale
    assert exact == pytest.approx({name: family(one, two)[name] for name in exact}, abs=NEAR)


@hypothesis.given(BOX)
def test_a_box_fits_itself(box):
    """Every IoU is 1 for equal boxes, except for eps."""
    assert family(box, box) == pytest.approx(dict.fromkeys(FAMILY, 1.0), abs=1e-7 * 256 * 2)


@hypothesis.given(BOX, BOX)
def test_the_family_equals_the_reference(one, two):
    """The same values as the independent formulas."""
    a, b = one.numpy(), two.numpy()
    angle = np.arctan2(a[:, 2], a[:, 3])
    want = [formulas.iou(a, b), formulas.giou(a, b), formulas.diou(a, b), formulas.ciou(a, angle, b)]
    assert list(family(one, two).values()) == pytest.approx([float(w[0]) for w in want], abs=NEAR)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_boxes_may_have_any_leading_axes(name):
    """Boxes of shape (..., 4) are compared pair by pair."""
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.rand(3, 2, 5, 4, generator=generator) + 0.1 for _ in range(2))
    got = getattr(boxes, name)(one, two)
    assert got.shape == (3, 2, 5)
    assert torch.equal(got.reshape(-1), getattr(boxes, name)(one.reshape(-1, 4), two.reshape(-1, 4)))
