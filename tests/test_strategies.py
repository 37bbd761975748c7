"""The strategies: what they generate, that the gate's cases reach it, and what cases shrink to."""

import math
from collections import Counter

import hypothesis
import pytest
import torch

from properties.v5.pools import SPOTS
from properties.v5.reference import Reference
from properties.v5.regions import REGIONS, regions
from properties.v5.strategies import cases
from properties.v5.targets import nudged
from tests.all_laws import LAWS, V5
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.judging import gate, minimised
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws.law import drawn
from yololoss.harness.subjects.load import load_loss


def test_every_region_is_reached_in_the_gates_budget():
    """Each place where losses go wrong is in at least three of the cases that every law over `cases` sees."""
    reached = Counter(region for case in drawn(cases(), 100) for region in regions(case))
    assert set(reached) <= set(REGIONS)
    assert not [region for region in REGIONS if reached[region] < 3], reached


def test_cases_are_what_they_were_asked_to_be():
    """The arguments of `cases` narrow what is drawn."""
    for case in drawn(
        cases(min_targets=2, max_targets=3, dtypes=("float64",), classes=(1,), exact=True, spots=False), 100
    ):
        assert 2 <= len(case.targets) <= 3
        assert (case.dtype, case.classes, case.predictions.overrides) == ("float64", 1, ())
        assert not {"on a grid line", "at half a cell", "beside a grid line"} & set(regions(case))


def test_a_crowded_case_has_shared_cells():
    """Most targets lie where an earlier one does."""
    crowded = drawn(cases(min_targets=2, crowded=True), 100)
    assert sum("same centre, other size" in regions(case) for case in crowded) > len(crowded) / 3


def test_the_simplest_case_is_simple():
    """One small layer, one anchor, no targets, and defaults for everything else."""
    simplest = hypothesis.find(cases(), lambda case: True)
    assert str(simplest) == (
        "1 image(s), 2 class(es), float32 predictions, contiguous\n"
        "layer 0: 2 rows x 2 columns, stride 8, anchors 1 x 1 cells\n"
        "no targets\n"
        "logits: from -4 to 4, seed 0"
    )


def test_neighbours_of_a_float32_are_one_ulp_away():
    """nudged steps through float32, either way."""
    half = torch.tensor(0.5)
    assert nudged(0.5, 1) == torch.nextafter(half, torch.tensor(1.0)).item()
    assert nudged(0.5, -1) == torch.nextafter(half, torch.tensor(0.0)).item()
    assert nudged(0.5, 0) == 0.5


def test_logits_set_by_hand_are_of_every_kind():
    """Perfect fits, boxes without size or height, certainty and its opposite all occur."""
    values = {(o.channel, o.value) for case in drawn(cases(min_targets=1), 100) for o in case.predictions.overrides}
    assert {(0, 60.0), (1, -60.0), (2, -30.0), (2, -60.0), (3, -60.0), (4, 60.0), (4, -60.0)} <= values
    assert {(channel, 0.0) for channel in range(4)} <= values, "an exact fit"
    assert len(values) > 20, "fits have logits of their own"
    assert {(4, 1e6), (4, -1e6)} <= values
    assert len(set(SPOTS)) == 11


# A fault, the law that names it, and how many targets its smallest case needs at most. For four more faults
# tests/test_plugin.py shows the whole finding.
SMALLEST = [
    ("ratio_one_way", "assign.matched-pairs", 1),
    ("one_pi", "boxes.item", 1),
    ("target_is_one", "objectness.target", 1),
    ("first_row_wins", "objectness.last-row-wins", 2),
    ("smoothing_ignored", "classes.label-smoothing", 1),
    ("autobalance_faster", "totals.autobalance", 0),
]


def test_very_large_cases_go_as_far_as_the_docs_say():
    """Indices beyond the whole numbers of float16, cells beyond 16 bits."""
    cases = drawn(LAWS["totals.very-large-sizes"].strategy(V5), 200)
    rows = [rows for case in cases for rows in Reference(case).rows]
    for name in ("image", "cls", "row", "column"):
        assert max(int(getattr(each, name).max(initial=0)) for each in rows) > 3500
    assert max(len(each.image) for each in rows) > 6000
    assert max(math.prod(case.shape(0)[:4]) for case in cases) == 154_449


@pytest.mark.slow
@pytest.mark.parametrize(("name", "law", "targets"), SMALLEST)
def test_the_smallest_case_of_a_fault_can_be_checked_by_hand(name, law, targets, tmp_path):
    """As few targets as the fault needs, one image, few cells in all layers together, few anchors."""
    subject = load_loss(plant(BY_NAME[name], tmp_path), torch.device("cpu"))
    plan = Plan((law,), subject)
    case = minimised(next(gate(plan, range(100))), plan).case
    assert len(case.targets) <= targets
    assert case.batch == 1
    assert len(case.anchors[0]) <= 3
    assert sum(rows * columns for rows, columns in case.grids) <= 6
    assert len(str(case).splitlines()) <= 10
