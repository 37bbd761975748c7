"""The boxes of the task-aligned loss: CIoU by hand and beside the v5 loss's, decoding, and what is rounded once."""

import math

import pytest
import torch

from tests.tal_slowly import ciou as ciou_slowly
from yololoss import ciou as ciou_v5
from yololoss.tal import boxes
from yololoss.tal.boxes import (
    anchor_points,
    aspect_angle,
    bounded,
    ciou,
    corners_around,
    distances_to,
    expected_distance,
)

# Two unit squares, the second moved by half a side: overlap 1/2, union 3/2, enclosing 3/2 x 1. A square of side 2
# around the first: overlap 1, union 4. Far away, and wide: enclosing 12 x 2, distance (10, 0).
UNIT = torch.tensor([0.0, 0, 1, 1])
V_AWAY = 4 / math.pi**2 * (math.atan(3) - math.atan(1)) ** 2
WORKED = [
    ((0.5, 0, 1.5, 1), 1 / 3 - 0.25 / (1.5**2 + 1)),
    ((-0.5, -0.5, 1.5, 1.5), 1 / 4),
    ((9.0, 0, 12, 1), -100 / 145 - V_AWAY**2 / (1 + V_AWAY)),
]


def some_boxes(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Two hundred boxes, some tiny."""
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(200, 2, generator=generator, dtype=dtype) * 4
    size = torch.rand(200, 2, generator=generator, dtype=dtype) * 3
    size[::5] *= 1e-6
    return torch.cat((low, low + size), dim=1)


@pytest.mark.parametrize(("other", "value"), WORKED)
def test_values_are_those_worked_out_by_hand(other, value):
    """Either box first; eps = 1e-7 is added to heights and areas of 1 or more."""
    for pair in ((UNIT, torch.tensor(other)), (torch.tensor(other), UNIT)):
        assert ciou(*pair).item() == pytest.approx(value, abs=1e-6)


def test_it_is_the_formula_of_the_specification():
    """Also for boxes as small as eps, which tell where it stands; float64, 50 operations."""
    one, two = some_boxes(), some_boxes().roll(1, 0)
    two[::4] = one[::4] + 1e-7
    expected = [ciou_slowly(tuple(a), tuple(b)) for a, b in zip(one.tolist(), two.tolist(), strict=True)]
    assert ciou(one, two).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_of_large_boxes_it_is_the_v5_losses():
    """They differ by eps in the heights: 1e-7 of sides of 1 or more, in some ten places."""
    one, two = some_boxes() + torch.tensor([0, 0, 1.0, 1]), some_boxes().roll(1, 0) + torch.tensor([0, 0, 1.0, 1])
    torch.testing.assert_close(ciou(one, two), ciou_v5(one, two, corners=True), rtol=0, atol=1e-6)


def test_boxes_with_negative_sides_have_a_value():
    """R = 1 may predict them: they have nothing in common with any box."""
    crossed = torch.tensor([[2.0, 0, 1, 1], [1, 1, 0, 0], [0, 2, 1, -1]])
    assert bool((ciou(crossed, UNIT) <= 0).all())


def test_where_areas_cancel_nothing_is_divided_by_0():
    """Width -1 and height 0 are an area of -eps, and the other box has none: so the union, with its eps, is 0."""
    assert ciou(torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.0, 0, 0, 1])).isfinite()


def test_gradients_are_finite_for_boxes_of_no_size():
    """Sides of 0, edges that coincide, and coordinates at the limit."""
    limit = boxes.LARGEST
    sizes = [
        [0.0, 0, 0, 0],
        [0, 0, 2, 0],
        [0, 0, 0, 2],
        [0, 0, 1, 1],
        [-limit, -limit, limit, limit],
        [limit, 0, -limit, 1],
    ]
    box = torch.tensor(sizes, requires_grad=True)
    value = ciou(box, UNIT)
    (gradient,) = torch.autograd.grad(value.sum(), box)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_known_angles_change_nothing():
    """An angle that is handed over is used as it is."""
    one, two = some_boxes(), some_boxes().roll(1, 0)
    assert torch.equal(ciou(one, two, aspect_angle(one), aspect_angle(two)), ciou(one, two))
    assert not torch.equal(ciou(one, two, aspect_angle(one) + 1), ciou(one, two))


def test_an_angle_is_that_of_width_and_height():
    """atan(w / (h + eps)), in radians."""
    assert aspect_angle(torch.tensor([0.0, 0, math.sqrt(3), 1])).item() == pytest.approx(math.pi / 3)
    assert aspect_angle(torch.tensor([1.0, 1, 1, 1])).item() == 0


def test_the_distance_is_the_mean_of_the_bins():
    """Softmax of (log 1, log 2, log 5) over 0, 1, 2 is 12 / 8; with one bin the logit is the distance."""
    assert expected_distance(torch.tensor([[1.0], [2], [5]]).log()).item() == pytest.approx(1.5)
    assert expected_distance(torch.tensor([[-3.5]])).item() == -3.5


def test_distances_and_corners_are_the_same_box():
    """Left, top, right and bottom of a point."""
    point = torch.tensor([2.5, 1.5])
    corners = corners_around(point, torch.tensor([1.0, 0.25, 2, -0.5]))
    assert corners.tolist() == [1.5, 1.25, 4.5, 1]
    assert distances_to(point, corners).tolist() == [1, 0.25, 2, -0.5]


def test_anchor_points_are_the_middles_of_cells():
    """Level after level, row after row, columns fastest; in cells and in pixels."""
    anchors = anchor_points(((2, 3), (1, 1)), (7.0, 16.0), torch.device("cpu"))
    assert anchors.point.tolist() == [[x + 0.5, y + 0.5] for y in range(2) for x in range(3)] + [[0.5, 0.5]]
    assert anchors.stride.tolist() == [7.0] * 6 + [16.0]
    assert anchors.pixel[4].tolist() == [10.5, 10.5]
    assert anchors.pixel[6].tolist() == [8, 8]


def test_far_coordinates_are_cut_off():
    """NaN stays NaN."""
    assert bounded(torch.tensor([1e30, -1e30, 5])).tolist() == [2.0**62, -(2.0**62), 5]
    assert bounded(torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize("function", [torch.sigmoid, torch.atan])
def test_what_is_rounded_once_is_the_same_in_every_place(function):
    """A vectorised loop and its end round float32 differently; here every place has the nearest number."""
    values = torch.linspace(-9, 9, 999)
    at_once = boxes.rounded_once(function, values)
    assert at_once.tolist() == [boxes.rounded_once(function, value).item() for value in values]
    assert torch.equal(at_once, function(values.double()).float())


def test_a_device_without_float64_is_served():
    """Apple's: there it is rounded as the device does. A meta tensor that says it is one shows the dtype."""
    seen = []

    class OnMps(torch.Tensor):
        device = torch.device("mps")

    def note(value: torch.Tensor) -> torch.Tensor:
        seen.append(value.dtype)
        return value

    for value in (torch.zeros(1).as_subclass(OnMps), torch.zeros(1)):
        boxes.rounded_once(note, value)
    assert seen == [torch.float32, torch.float64]
