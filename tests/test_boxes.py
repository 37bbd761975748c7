"""The IoU family on boxes whose values can be worked out by hand."""

import math

import pytest
import torch

from yololoss import boxes

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
    """Seen as a box only, zero width and height count as angle 0: the value is finite."""
    nothing = torch.tensor([[0.3, 0.2, 0.0, 0.0]])
    assert boxes.ciou(nothing, UNIT).isfinite().all()


def test_decoding_is_its_formula():
    """xy = 2 s - 1/2 and wh = (2 s)^2 anchor, and the angle from logits is that of the decoded box."""
    logits = torch.tensor([[0.0, math.log(3), math.log(1 / 3), 0.0]])
    box = boxes.decode(logits, torch.tensor([[4.0, 5.0]]))
    assert box.tolist()[0] == pytest.approx([0.5, 1.0, 1.0, 5.0])
    angle = boxes.aspect_angle(logits, torch.tensor([[4.0, 5.0]]))
    assert angle.item() == pytest.approx(math.atan(1 / 5))
