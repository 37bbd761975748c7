"""The assignment of the task-aligned loss, compared with plain loops, and what it says of itself."""

from dataclasses import FrozenInstanceError, replace
from itertools import permutations

import numpy as np
import pytest
import torch

from tests.tal_models import ANCHORS, CLASSES, batch, columns, levels, mapping, parts
from tests.tal_slowly import Case, Slow
from yololoss import Assigner, TaskAlignedLoss
from yololoss.tal import assign
from yololoss.tal.assign import best, enlarged

GRIDS = (((6, 4), (3, 2)), ((4, 4),), ((5, 5), (3, 3), (2, 2)), ((1, 1),), ((8, 6),))
CASES = 80
SEEDS = range(CASES)
NEAR = 1e-4  # relative distance of two metrics or overlaps at which float32 and float64 may decide differently
# Targets and overlaps are in float32, some 50 operations of 2**-24 each, 6 times that in the metric: 1.8e-5 of a term.
CLOSE = 2e-5


def rows(rng: np.random.Generator, images: int, classes: int) -> list[tuple[float, ...]]:
    """Up to eight targets, some twice; some small, some with edges on anchor points."""
    made = []
    fine = rng.random() < 0.6
    for _ in range(rng.integers(9)):
        box = np.concatenate((rng.uniform(0, 1, 2), rng.uniform(0.05, 1, 2) * rng.choice([1, 1, 1, 0.1])))
        box = box if fine else np.maximum(np.round(box * 64), 1) / 64
        made.append((float(rng.integers(images)), float(rng.integers(classes)), *np.float32(box).tolist()))
        made += made[-1:] * int(rng.random() < 0.15)
    return made


def same_boxes(logits: list[np.ndarray], rng: np.random.Generator) -> None:
    """Let all anchors of an image predict the same box, with class logits of few values: so many are equally good."""
    low, size = rng.integers(0, 16, 2) * 2, rng.integers(2, 24, 2) * 2  # even numbers of pixels: so exact in cells
    for i, level in enumerate(logits):
        y, x = (np.arange(n).reshape(shape) + 0.5 for n, shape in zip(level.shape[2:], ((-1, 1), (1, -1)), strict=True))
        (left, top), (right, bottom) = low / (8 << i), (low + size) / (8 << i)
        for side, distance in enumerate((x - left, y - top, right - x, bottom - y)):
            level[:, side] = distance
        level[:, 4:] = np.round(level[:, 4:] / 2)


def a_case(seed: int) -> Case:
    """A small case; some have many anchors that are equally good."""
    rng = np.random.default_rng(seed)
    bins, classes, images = int(rng.choice([1, 1, 2, 4, 16])), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    logits = []
    grids = GRIDS[rng.integers(len(GRIDS))]
    for rows_, columns_ in grids:
        level = rng.normal(size=(images, 4 * bins + classes, rows_, columns_))
        level[:, :4] += rng.uniform(0, 2) * (bins == 1)
        logits.append(level)
    if bins == 1 and rng.random() < 0.5:
        same_boxes(logits, rng)
    topk2 = (None, None, 1, 2, 5)[rng.integers(5)]
    weights = [0.5, 2.0, 3.0][:classes] if rng.random() < 0.3 else None
    topk, strides = int(rng.choice([1, 3, 10, 13, 100])), [8.0, 16.0, 32.0][: len(grids)]
    return Case(logits, strides, rows(rng, images, classes), classes, bins, topk, topk2, weights)


def loss_of(case: Case) -> TaskAlignedLoss:
    assigner = Assigner(case.topk, case.topk2)
    return TaskAlignedLoss.from_parts(
        case.strides, case.classes, case.bins, assigner=assigner, class_weights=case.weights
    )


def targets_of(case: Case) -> dict[str, torch.Tensor]:
    return columns(torch.tensor(case.rows).reshape(-1, 6))


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_what_plain_loops_find(seed):
    """Owners, also those with score 0, scores and terms, in float64; ties are decided as they are documented."""
    case = a_case(seed)
    slow = Slow(case).run()
    assert slow.gap > NEAR, "choose another seed: rounding decides here"
    layers = [torch.from_numpy(level) for level in case.levels]
    assigned = loss_of(case).assign(layers, targets_of(case))
    owned = (assigned.owners.row < len(case.rows)).nonzero().tolist()
    assert {(i, a): int(assigned.owners.row[i, a]) for i, a in owned} == slow.owner
    score = [float(assigned.score[at]) for at in slow.score]
    np.testing.assert_allclose(score, [*slow.score.values()], rtol=CLOSE, atol=1e-9)  # 1e-9: eps, where M is as small
    terms = [float(term) for term in loss_of(case).terms(layers, targets_of(case))]
    np.testing.assert_allclose(terms, slow.terms, rtol=CLOSE)


def test_the_cases_have_ties_conflicts_and_lost_targets():
    """The comparison above is one of hard cases, too."""
    ties = conflicts = lost = inherited = 0
    for seed in SEEDS:
        case = a_case(seed)
        assigned = loss_of(case).assign([torch.from_numpy(level) for level in case.levels], targets_of(case))
        metric = assigned.pairs.metric
        for row in metric:
            positive = row[row > 0]
            ties += len(positive) - len(positive.unique())
        conflicts += int(assigned.owners.contested.sum())
        owned = assigned.owners.before_topk2.flatten().bincount(minlength=len(metric) + 1)[:-1]
        lost += int((assigned.pairs.chosen.any(1) & (owned == 0)).sum())
        inherited += int((owned > case.topk).sum())
    assert min(ties, conflicts, lost, inherited) > 0, (ties, conflicts, lost, inherited)


def test_the_order_of_rows_changes_nothing():
    """Any order of targets: the same owners, to the bit the same total."""
    given = (
        (0, 2, 0.31, 0.64, 0.5, 0.6),
        (1, 0, 0.7, 0.3, 0.4, 0.5),
        (0, 1, 0.4, 0.5, 0.6, 0.6),
        (1, 1, 0.5, 0.5, 0.6, 0.6),
    )
    totals = {tuple(parts()(levels(), batch(*order))[0].tolist()) for order in permutations(given)}
    assert len(totals) == 1


@pytest.mark.parametrize(("pairs", "rows"), [(3 * ANCHORS, {3, 2}), (1, {1})])
@pytest.mark.parametrize("topk2", [None, 1])
def test_targets_are_looked_at_some_at_a_time(topk2, pairs, rows, monkeypatch):
    """So memory is bounded, whatever the number of targets; the result is the same to the last bit."""
    loss, twice = (
        parts(assigner=Assigner(topk2=topk2)),
        batch(*[(0, 1, 0.4, 0.5, 0.6, 0.6), (0, 2, 0.5, 0.5, 0.5, 0.7)] * 4),
    )
    whole = loss.assign(levels(), twice)
    sizes = []
    monkeypatch.setattr(assign, "PAIRS", pairs)
    monkeypatch.setattr(assign, "best", lambda *given: sizes.append(given[0].shape) or best(*given))
    some = loss.assign(levels(), twice)
    assert {*sizes} == {(n, ANCHORS) for n in rows}
    assert torch.equal(some.score, whole.score)
    assert torch.equal(some.owners.row, whole.owners.row)
    assert all(
        torch.equal(one, other)
        for one, other in zip(vars(some.pairs).values(), vars(whole.pairs).values(), strict=True)
    )


def test_images_by_themselves_are_assigned_as_in_a_batch():
    """To the last bit, which other images there are, and where in a tensor a number lies, does not matter."""
    layers = levels(images=5)
    given = torch.tensor([(i, i % 3, 0.3 + 0.1 * i, 0.5, 0.4, 0.6) for i in range(5)])
    together = parts().assign(layers, columns(given))
    for i in range(5):
        alone = parts().assign(
            [x[i : i + 1] for x in layers], columns(given[i : i + 1] * torch.tensor([0, 1, 1, 1, 1, 1]))
        )
        assert torch.equal(alone.score[0], together.score[i])


def test_of_equal_anchors_the_first_are_taken():
    """R = 1, every anchor predicts the target itself with the same logit: so all four are equally good."""
    loss = TaskAlignedLoss.from_parts([8], 1, 1, assigner=Assigner(topk=2))
    near, far = torch.tensor([0.5, 1.5]), torch.tensor([1.5, 0.5])
    sides = [near.expand(2, 2), near[:, None].expand(2, 2), far.expand(2, 2), far[:, None].expand(2, 2)]
    logits = torch.cat((torch.stack(sides), torch.zeros(1, 2, 2)))[None]
    assigned = loss.assign([logits], batch((0, 0, 0.5, 0.5, 1, 1)))
    assert assigned.pairs.metric.unique().numel() == 1
    assert assigned.owners.row.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("copies", [2, 33, 137])
def test_of_equal_targets_the_first_row_wins(copies):
    """All anchors go to the first row. Of 33 copies, the last lies where a vectorised loop ends: with this box, its
    angle in float32 was another one, and it won."""
    given = batch(*[(0, 1, 0.546875, 0.46875, 0.5625, 0.390625)] * copies)
    assert {*parts().assign(levels(), given).owners.row[0].tolist()} == {0, copies}


def test_of_anchors_with_metric_0_those_outside_are_taken_first():
    """They are dropped again. So a candidate with metric 0 is only taken if there is no other anchor left."""
    metric, candidate = torch.tensor([[0.0, 0.5, 0, 0, 0]]), torch.tensor([[False, True, True, True, False]])
    for k, taken in ((1, [1]), (3, [1]), (4, [1, 2]), (5, [1, 2, 3]), (9, [1, 2, 3])):
        assert best(metric, candidate, k)[0].nonzero()[:, 0].tolist() == taken


def test_only_small_sides_are_enlarged():
    """To the threshold, around the same centre; a side that is just as long is not."""
    box = torch.tensor([[8.0, 8, 24, 23], [0, 0, 40, 4]])
    assert enlarged(box, 16.0).tolist() == [[8, 7.5, 24, 23.5], [0, -6, 40, 10]]


@pytest.mark.parametrize(
    ("alpha", "beta"), [(1.0, 6.0), (0.5, 2.5), (0.0, 1.0), (0.5, 7.0), (0.5, 5.0), (1.5, 6.0), (1.0, 0.0)]
)
def test_the_exponents_are_settings(alpha, beta):
    """metric = score^alpha overlap^beta, read at every call."""
    loss = parts()
    usual = loss.assign(levels(), batch())
    loss.assigner.alpha, loss.assigner.beta = alpha, beta
    pairs = loss.assign(levels(), batch()).pairs
    score = (usual.pairs.metric / usual.pairs.overlap**6) ** 2
    expected = torch.where(usual.pairs.metric > 0, score**alpha * usual.pairs.overlap**beta, 0)
    # score is had back from a product of the sixth power; 20 roundings
    torch.testing.assert_close(pairs.metric, expected, rtol=1e-5, atol=0)


# SPEC section 12
WORKED = """
target 0: image 0, class 1, corners (6, 7, 24, 27): 4 candidates, 3 chosen, 3 in the end
  anchor 5 (level 0, row 1, column 1): overlap 0.4453, metric 0.002694, chosen: score 0.01355
  anchor 6 (level 0, row 1, column 2): overlap 0.2112, metric 4.607e-05, not among the best
  anchor 9 (level 0, row 2, column 1): overlap 0.7331, metric 0.1457, chosen: score 0.7331
  anchor 10 (level 0, row 2, column 2): overlap 0.3479, metric 0.0006118, chosen: score 0.003079
"""


def test_the_worked_example_explains_itself():
    """SPEC section 12: candidates, metrics, what was chosen, scores, and the three terms."""
    loss = TaskAlignedLoss.from_parts([8], 2, 1, assigner=Assigner(topk=3))
    logits = torch.empty(1, 6, 4, 4)
    logits[0] = torch.tensor([1, 1.25, 1.5, 1, -1, 0])[:, None, None]
    logits[0, 5] = (torch.arange(16) % 5 - 2.0).view(4, 4)
    given = batch((0, 1, 0.46875, 0.53125, 0.5625, 0.625))
    assert loss.assign([logits], given).explain() == WORKED.strip().splitlines()
    total, _ = loss([logits], given)
    assert total.tolist() == pytest.approx([1.538887, 8.713370, 0.0544197], rel=1e-6)  # printed to 7 digits


# Equal boxes of three classes: the first row has every contested anchor, also those that only the others chose.
CROWD = (*[(0, c, 0.5, 0.5, 0.6, 0.6) for c in range(3)], (7, 0, 0.5, 0.5, 0.5, 0.5))


def left_unseen() -> list[torch.Tensor]:
    """The usual logits, but class 0 is not seen in the left half of the first level."""
    layers = levels()
    with torch.no_grad():
        layers[0][0, 64, :, :4] = -9
    return layers


def test_an_equal_second_top_k_is_none():
    """A target keeps what it has inherited."""
    ways = (parts(assigner=Assigner(4, topk2), checks=False) for topk2 in (None, 4))
    once, twice = (loss.assign(left_unseen(), batch(*CROWD)) for loss in ways)
    assert int((once.owners.row == 0).sum()) > 4
    assert torch.equal(once.owners.row, twice.owners.row)


def test_the_first_anchor_of_a_level_is_in_it():
    """As every other one."""
    layers = [torch.zeros(1, 67, side, side) for side in (8, 4, 2)]
    loss = TaskAlignedLoss.from_parts([8, 16, 32], CLASSES)
    text = "\n".join(loss.assign(layers, batch((0, 1, 0.5, 0.5, 1.0, 1.0))).explain())
    for level, anchor in enumerate((0, 64, 80)):
        assert f"anchor {anchor} (level {level}, row 0, column 0)" in text


def test_every_fate_is_explained():
    """Won and lost conflicts, inherited anchors, those that the second top-k drops, boxes that are not finite."""
    layers = left_unseen()
    with torch.no_grad():
        layers[0][0, 0, 4, 4] = torch.inf
    assigned = parts(assigner=Assigner(4), checks=False).assign(layers, batch(*CROWD))
    fewer = parts(assigner=Assigner(4, 3), checks=False).assign(layers, batch(*CROWD))
    text = "\n".join([*assigned.explain(), *fewer.explain()])
    for fate in (
        "chosen, won: score ",
        "chosen, lost to target 0",
        "not among the best, inherited: score ",
        "not among the best, inherited, not among the best of its own",
        "its predicted box is not finite",
        "(level 1, row 1, column 2)",
        "target 3 is left out: no such image or class, or no box of finite size",
    ):
        assert fate in text, text
    assert text.count("\n  anchor ") == 2 * int(assigned.pairs.candidate.sum())
    ends = [int(line.split()[-4]) for line in assigned.explain() if line.endswith(" in the end")]
    assert ends == [int((assigned.owners.row == row).sum()) for row in assigned.targets.present.nonzero()]
    assert replace(assigned, pairs=None).explain() == []


def test_an_assignment_is_read_only_and_equal_to_itself_alone():
    """Its tensors have no single truth value, so it is not compared by value."""
    one = parts().assign(mapping(levels()), batch())
    for each, name in ((one, "score"), (one.pairs, "metric"), (one.owners, "row")):
        with pytest.raises(FrozenInstanceError):
            setattr(each, name, None)
        assert each != replace(each)


@pytest.mark.parametrize("settings", [{"topk": 0}, {"topk2": -1}])
def test_a_top_k_below_1_is_refused(settings):
    """The message has its name."""
    (name, value), *_ = settings.items()
    with pytest.raises(ValueError, match=f"^{name}: expected 1 or more, got {value}$"):
        Assigner(**settings)
