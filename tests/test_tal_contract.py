"""Where the task-aligned loss is better than upstream, by contract: a test for each row of its SPEC section 9."""

import re
from contextlib import nullcontext

import pytest
import torch

from tests.tal_models import ANCHORS, CLASSES, STRIDES, Model, batch, columns, levels, mapping, parts, step
from yololoss import Assigner, E2EDetectLoss, E2ELoss, TaskAlignedLoss

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALVES)


def refuses(error: type[Exception], text: str):
    """Expect exactly this error text."""
    return pytest.raises(error, match=f"^{re.escape(text)}$")


def finite(loss: TaskAlignedLoss, layers: list[torch.Tensor], given: dict[str, torch.Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in step(loss, layers, given))


# Rows of any order: tests/test_tal_assign.py, test_the_order_of_rows_changes_nothing.


def test_no_target_is_lost_where_rows_are_not_sorted_by_image():
    """Images 1, 0, 1, where upstream overwrites the first row: all three targets have anchors."""
    given = batch((1, 0, 0.7, 0.3, 0.4, 0.5), (0, 2, 0.31, 0.64, 0.5, 0.6), (1, 1, 0.3, 0.6, 0.5, 0.6))
    assert {*parts().assign(levels(), given).owners.row.flatten().tolist()} == {0, 1, 2, 3}


BAD_TARGETS = [
    ((-1, 0), "batch['batch_idx'][1] (image): expected a whole number from 0 to 1, got -1"),
    ((2, 0), "batch['batch_idx'][1] (image): expected a whole number from 0 to 1, got 2"),
    ((0.9, 0), "batch['batch_idx'][1] (image): expected a whole number from 0 to 1, got 0.899999976"),
    ((0, -1), "batch['cls'][1] (class): expected a whole number from 0 to 2, got -1"),
    ((0, 3), "batch['cls'][1] (class): expected a whole number from 0 to 2, got 3"),
    ((0, float("nan")), "batch['cls'][1] (class): expected a whole number from 0 to 2, got nan"),
    ((0, 1.7), "batch['cls'][1] (class): expected a whole number from 0 to 2, got 1.70000005"),
    ((0, 0, float("nan")), "batch['bboxes'][1, 0] (x): expected a number from 0 to 1, got nan"),
    ((0, 0, 0.5, float("inf")), "batch['bboxes'][1, 1] (y): expected a number from 0 to 1, got inf"),
    ((0, 0, -0.01), "batch['bboxes'][1, 0] (x): expected a number from 0 to 1, got -0.00999999978"),
    ((0, 0, 0.5, 1.3), "batch['bboxes'][1, 1] (y): expected a number from 0 to 1, got 1.29999995"),
    ((0, 0, 32, 24, 20, 10), "batch['bboxes'][1, 0] (x): expected a number from 0 to 1, got 32"),  # in pixels
    ((0, 0, 0.5, 0.5, 0), "batch['bboxes'][1, 2] (w): expected a finite number above 0, got 0"),
    ((0, 0, 0.5, 0.5, -0.1), "batch['bboxes'][1, 2] (w): expected a finite number above 0, got -0.100000001"),
    ((0, 0, 0.5, 0.5, 0.1, 0), "batch['bboxes'][1, 3] (h): expected a finite number above 0, got 0"),
    ((0, 0, 0.5, 0.5, 0.1, float("inf")), "batch['bboxes'][1, 3] (h): expected a finite number above 0, got inf"),
]


@pytest.mark.parametrize(("start", "text"), BAD_TARGETS)
def test_a_bad_target_value_is_named(start, text):
    """The error names row, column, value and allowed range; columns are image, class, x, y, w, h."""
    good = (0, 0, 0.5, 0.5, 0.2, 0.3)
    given = batch(good, (*start, *good[len(start) :]))
    for call in (parts(), parts().assign, parts().terms):
        with refuses(ValueError, text):
            call(levels(), given)


def test_the_number_of_other_bad_rows_is_told():
    """One row is shown, the others are counted."""
    bad = (0, 7, 0.5, 0.5, 0.2, 0.3)
    with refuses(ValueError, "batch['cls'][0] (class): expected a whole number from 0 to 2, got 7 (1 more bad rows)"):
        parts()(levels(), batch(bad, bad))


def test_a_target_at_the_corner_is_kept():
    """Its centre is the corner itself, so its own corners sum to 0, for which upstream drops it."""
    assigned = parts().assign(levels(), batch((0, 1, 0, 0, 0.7, 0.7)))
    assert bool((assigned.owners.row[0] == 0).any())


@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_targets_of_every_float_type_are_taken(dtype):
    """As the same numbers in float32."""
    table = torch.tensor(((0, 2, 0.31, 0.64, 0.5, 0.6), (1, 0, 0.7, 0.3, 0.4, 0.5))).to(dtype)
    assert torch.equal(step(parts(), levels(), columns(table))[0], step(parts(), levels(), columns(table.float()))[0])


def test_only_boxes_must_be_floats():
    """Whole numbers are fine for images and classes; boxes would be truncated to 0."""
    given = batch()
    whole = {"batch_idx": given["batch_idx"].int(), "cls": given["cls"].long()[:, 0], "bboxes": given["bboxes"]}
    assert torch.equal(parts()(levels(), whole)[0], parts()(levels(), given)[0])
    text = (
        "batch['bboxes']: expected a floating-point tensor, got a tensor of shape (3, 4), torch.int64; "
        "as integers, all coordinates below 1 are truncated to 0"
    )
    with refuses(TypeError, text):
        parts()(levels(), {name: value.long() for name, value in given.items()})


@pytest.mark.parametrize(("topk", "topk2"), [(61, None), (1000, 500)])
def test_a_top_k_above_the_number_of_anchors_takes_all_candidates(topk, topk2):
    """As the largest that there can be."""
    given = levels(), batch()
    most = parts(assigner=Assigner(ANCHORS)).assign(*given)
    more = parts(assigner=Assigner(topk, topk2)).assign(*given)
    assert torch.equal(more.pairs.chosen, most.pairs.candidate)
    assert torch.equal(more.score, most.score)


META = torch.device("meta")
HINT = "; a model in eval mode returns (inference output, preds): pass that or preds"
FORM = "expected a mapping of boxes, scores and feats, or a list of tensors, one per level"
LIST = "expected shape (batch, 4 reg_max + classes, rows, columns) ="


def mapped(**changes):
    """The usual predictions as a mapping, some changed."""
    made = mapping(levels())
    return {name: changes[name](value) if name in changes else value for name, value in made.items()}


BAD_PREDICTIONS = [
    (lambda: None, TypeError, f"predictions: {FORM}, got NoneType{HINT}"),
    (lambda: "boxes", TypeError, f"predictions: {FORM}, got str{HINT}"),
    (lambda: levels()[0], TypeError,
     f"predictions: {FORM}, got a tensor of shape (2, 67, 6, 8), torch.float32{HINT}"),
    (lambda: {"boxes": 1}, ValueError, "predictions: missing scores, feats (got: boxes)"),
    (lambda: {"one2many": 1, "one2one": 2}, ValueError,
     "predictions: missing boxes, scores, feats (got: one2many, one2one); predictions of two heads are for E2ELoss"),
    (lambda: mapped(feats=lambda f: f[:1]), ValueError,
     "predictions['feats']: expected 2 tensors, one per level, got 1"),
    (lambda: mapped(feats=lambda f: None), ValueError,
     "predictions['feats']: expected 2 tensors, one per level, got NoneType"),
    (lambda: mapped(feats=lambda f: [*f, f[1]]), ValueError,
     "predictions['feats']: expected 2 tensors, one per level, got 3"),
    (lambda: mapped(feats=lambda f: [f[0], f[1][None]]), ValueError,
     "predictions['feats'][1]: expected a tensor (batch, channels, rows, columns), "
     "got a tensor of shape (1, 2, 67, 3, 4), torch.float32"),
    (lambda: mapped(feats=lambda f: f[0]), ValueError,
     "predictions['feats']: expected 2 tensors, one per level, got a tensor of shape (2, 67, 6, 8), torch.float32"),
    (lambda: mapped(feats=lambda f: [f[0], f[1][0]]), ValueError,
     "predictions['feats'][1]: expected a tensor (batch, channels, rows, columns), "
     "got a tensor of shape (67, 3, 4), torch.float32"),
    (lambda: mapped(scores=lambda s: s[:, :2]), ValueError,
     "predictions['scores']: expected shape (batch, classes, anchors) = (2, 3, 60), got (2, 2, 60)"),
    (lambda: mapped(boxes=lambda b: b[:, :60]), ValueError,
     "predictions['boxes']: expected shape (batch, 4 reg_max, anchors) = (2, 64, 60), got (2, 60, 60)"),
    (lambda: mapped(boxes=lambda b: b[..., :59]), ValueError,
     "predictions['boxes']: expected shape (batch, 4 reg_max, anchors) = (2, 64, 60), got (2, 64, 59)"),
    (lambda: mapped(scores=lambda s: s[:1]), ValueError,
     "predictions['scores']: expected shape (batch, classes, anchors) = (2, 3, 60), got (1, 3, 60)"),
    (lambda: mapped(scores=lambda s: s.sum()), ValueError,
     "predictions['scores']: expected shape (batch, classes, anchors) = (2, 3, 60), got ()"),
    (lambda: mapped(boxes=lambda b: b.long()), TypeError,
     "predictions['boxes']: expected a floating-point tensor, got a tensor of shape (2, 64, 60), torch.int64"),
    (lambda: mapped(boxes=lambda b: b.to(META)), ValueError,
     "predictions['boxes']: expected device cpu, as the scores, got meta"),
    # 4 x 16 for 8 x 8: as many anchors, but of another image
    (lambda: mapped(feats=lambda f: [f[0].reshape(2, 67, 3, 16), f[1]]), ValueError,
     "predictions: level 1 of 3 x 4 cells of stride 16 does not fit level 0 of 3 x 16 cells of stride 8"),
    (lambda: [levels()[0], torch.zeros(2, 67, 4, 4)], ValueError,
     "predictions: level 1 of 4 x 4 cells of stride 16 does not fit level 0 of 6 x 8 cells of stride 8"),
    (lambda: levels()[:1], ValueError, f"predictions: expected 2 levels, got 1{HINT}"),
    (lambda: [*levels(), levels()[1]], ValueError, f"predictions: expected 2 levels, got 3{HINT}"),
    # as of a loss with anchor boxes
    (lambda: [levels()[0], levels()[1][..., None]], ValueError,
     f"predictions[1]: {LIST} (2, 67, H, W), got (2, 67, 3, 4, 1)"),
    (lambda: [levels()[0], levels()[1][:, 1:]], ValueError,
     f"predictions[1]: {LIST} (2, 67, 3, 4), got (2, 66, 3, 4)"),
    (lambda: [levels()[0], levels()[1][:1]], ValueError,
     f"predictions[1]: {LIST} (2, 67, 3, 4), got (1, 67, 3, 4)"),
    (lambda: [levels()[0].flatten(2), levels()[1]], ValueError,
     f"predictions[0]: {LIST} (2, 67, H, W), got (2, 67, 48)"),
    (lambda: [levels()[0], levels()[1][:, :, :0]], ValueError,
     "predictions[1]: expected at least one element along every axis, got (2, 67, 0, 4)"),
    (lambda: [levels()[0], levels()[1].long()], TypeError,
     "predictions[1]: expected a floating-point tensor, got a tensor of shape (2, 67, 3, 4), torch.int64"),
    (lambda: [levels()[0], levels()[1].to(META)], ValueError,
     "predictions[1]: expected device cpu, as level 0, got meta"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "error", "text"), BAD_PREDICTIONS, ids=[text[:70] for *_, text in BAD_PREDICTIONS])
def test_predictions_of_another_form_are_told_apart(made, error, text):
    """Wrong keys, shapes, dtypes, devices or grids: the message has what came and what was expected."""
    with refuses(error, text):
        parts()(made(), batch())


def test_a_level_may_be_rounded_by_less_than_a_cell():
    """52 rows of pixels, say, are 7 cells of 8 and 4 of 16, or 6 and 3."""
    given = batch((0, 1, 0.5, 0.5, 0.5, 0.5))
    for rows in ((7, 4), (6, 3), (7, 3)):
        assert finite(
            parts(), [torch.zeros(2, 67, n, w, requires_grad=True) for n, w in zip(rows, (8, 4), strict=True)], given
        )


def test_a_level_fits_the_first_and_not_the_last():
    """A level is off by less than its own stride, or the first one's if that is larger. Strides may be below 1."""
    loss = TaskAlignedLoss.from_parts([0.5, 1, 2], 3)
    text = "predictions: level 1 of 5 x 4 cells of stride 1 does not fit level 0 of 8 x 8 cells of stride 0.5"
    for rows, told in ((4, nullcontext()), (5, refuses(ValueError, text))):
        with told:
            loss([torch.zeros(2, 67, *grid) for grid in ((8, 8), (rows, 4), (2, 2))], batch())


def test_values_are_checked_as_they_are_read():
    """A side that float32 rounds to 0 has no size, and a class that it rounds to a whole number is one."""
    table = torch.tensor(((0, 1, 0.5, 0.5, 0.5, 1e-60),), dtype=torch.float64)
    with refuses(ValueError, "batch['bboxes'][0, 3] (h): expected a finite number above 0, got 0"):
        parts()(levels(), columns(table))
    table[0, [1, 5]] = torch.tensor((1 + 2**-40, 0.5), dtype=torch.float64)
    assert parts()(levels(), columns(table))[0].isfinite().all()


BAD_BATCHES = [
    (lambda b: b["bboxes"], TypeError,
     "batch: expected a mapping of batch_idx, cls and bboxes, got a tensor of shape (3, 4), torch.float32"),
    (lambda b: {"cls": b["cls"], "bboxes": b["bboxes"]}, ValueError, "batch: missing batch_idx (got: cls, bboxes)"),
    (lambda b: b | {"bboxes": b["bboxes"][:, :3]}, ValueError,
     "batch['bboxes']: expected shape (targets, 4), got (3, 3)"),
    (lambda b: b | {"bboxes": b["bboxes"][:, [0, 1, 2, 3, 3]]}, ValueError,
     "batch['bboxes']: expected shape (targets, 4), got (3, 5)"),
    (lambda b: b | {"bboxes": b["bboxes"][..., None]}, ValueError,
     "batch['bboxes']: expected shape (targets, 4), got (3, 4, 1)"),
    (lambda b: b | {"bboxes": b["bboxes"].flatten()}, ValueError,
     "batch['bboxes']: expected shape (targets, 4), got (12,)"),
    (lambda b: b | {"cls": [0, 1, 2]}, TypeError, "batch['cls']: expected a tensor, got list"),
    (lambda b: b | {"cls": b["cls"][:2]}, ValueError,
     "batch['cls']: expected shape (3,) or (3, 1), as there are 3 boxes, got (2, 1)"),
    (lambda b: b | {"batch_idx": b["batch_idx"][None]}, ValueError,
     "batch['batch_idx']: expected shape (3,) or (3, 1), as there are 3 boxes, got (1, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "text"), BAD_BATCHES, ids=[text[:70] for *_, text in BAD_BATCHES])
def test_batches_of_another_form_are_told_apart(spoil, error, text):
    """Wrong keys, shapes, dtypes or devices: the message has what came and what was expected."""
    with refuses(error, text):
        parts()(levels(), spoil(batch()))


def test_two_heads_are_asked_for():
    """An end-to-end loss says what it misses."""
    loss = E2ELoss(Model())
    text = f"predictions: expected a mapping of one2many and one2one, got list{HINT}"
    with refuses(TypeError, text):
        loss(levels(), batch())
    with refuses(ValueError, "predictions: missing one2one (got: one2many)"):
        loss({"one2many": levels()}, batch())


@pytest.mark.parametrize("kind", [E2ELoss, E2EDetectLoss])
def test_two_heads_check_their_input(kind):
    """However the loss is made."""
    given = {"one2many": levels(), "one2one": levels()}
    for loss in (kind(Model()), kind.from_parts(STRIDES, CLASSES)):
        with pytest.raises(ValueError, match=r"^batch\['cls'\]\[0\] \(class\): expected"):
            loss(given, batch((0, -1, 0.5, 0.5, 0.2, 0.3)))


def test_the_class_term_of_float16_does_not_overflow():
    """80 classes and 16384 anchors at logit 0: the sum of 1.3 million BCE is far above 65504."""
    loss = TaskAlignedLoss.from_parts([8], 80, 1)
    layer = torch.zeros(1, 84, 128, 128, dtype=torch.float16, requires_grad=True)
    cls, gradient = (value.double() for value in step(loss, [layer], columns(torch.zeros(0, 6))))
    expected = 0.5 * 80 * 128**2 * torch.tensor(2.0).double().log()
    assert cls[1].item() == pytest.approx(expected.item(), rel=2**-20)  # a float32 sum, taken in pairs
    assert gradient[:, 4:].unique().tolist() == [0.25]


@pytest.mark.parametrize("reg_max", [1, 4, 16])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(dtype, reg_max):
    """Total and assignment of predictions in half precision equal those of the same numbers in float32, bit for bit."""
    layers = levels(dtype, reg_max)
    wide = [x.detach().float() for x in layers]
    assert torch.equal(parts(reg_max)(layers, batch())[0], parts(reg_max)(wide, batch())[0])
    assert torch.equal(parts(reg_max).assign(layers, batch()).score, parts(reg_max).assign(wide, batch()).score)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("height", [0.0, 6e-8, 1e-3])
def test_a_prediction_of_hardly_any_height_has_a_finite_gradient(dtype, height):
    """Top and bottom in one line, width 4, the target over the whole grid: it may have anchors of metric 0."""
    layers = levels(dtype, 1, value=0.0)
    with torch.no_grad():
        for x in layers:
            x[:, 0:3:2], x[:, 1], x[:, 3] = 2, -0.25, 0.25 + height
    assert finite(parts(1), layers, batch((0, 1, 0.5, 0.5, 1, 1), (1, 0, 0.5, 0.5, 1, 0.01)))


@pytest.mark.parametrize("value", [6e4, -6e4])
@pytest.mark.parametrize("channels", [slice(0, 1), slice(0, 4), slice(0, 4, 2), slice(4, None)])
def test_raw_distances_of_float16_may_be_as_large_as_it_goes(value, channels):
    """R = 1: in pixels they overflow float16."""
    layers = levels(torch.float16, 1)
    with torch.no_grad():
        for x in layers:
            x[:, channels] = value
    assert finite(parts(1), layers, batch())


def perfect(dtype: torch.dtype, logit: float) -> list[torch.Tensor]:
    """R = 4, one level of 4 x 4: each anchor predicts, by logits of that size, the box from cell 0.5 to 2.5."""
    layer = torch.full((1, 4 * 4 + 1, 4, 4), -logit, dtype=dtype)
    layer[:, 16] = 0
    for row in range(4):
        for column in range(4):
            for side, distance in enumerate((column, row, 2 - column, 2 - row)):
                layer[0, 4 * side + max(distance, 0), row, column] = logit
    return [layer.requires_grad_()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_perfect_prediction_at_whole_distances_has_a_finite_loss(dtype):
    """Logits of +-6e4: the weight 0 meets a logarithm of -1.2e5, which is -infinity in float16."""
    loss = TaskAlignedLoss.from_parts([8], 1, 4)
    layers = perfect(dtype, 6e4)
    given = batch((0, 0, 0.375, 0.375, 0.5, 0.5))
    assert finite(loss, layers, given)
    _, items = loss(layers, given)
    assert items["box_loss"].item() == pytest.approx(0, abs=1e-5)  # eps in an area of 4 and a squared diagonal of 8
    assert items["dfl_loss"].item() == 0


@pytest.mark.parametrize(("reg_max", "at"), [(16, 3), (2, 0)])
@pytest.mark.parametrize("values", [(1e31, 0.0), (1e38, 1e31), (-1e38, 0.0), (3e38, -3e38)])
def test_a_bin_whose_logit_is_cut_off_keeps_its_gradient(values, reg_max, at):
    """Softmax minus the weights of the bins, so they sum to 0: of two bins beyond 1e30 the larger has all."""
    loss, layers, smaller = parts(reg_max), levels(reg_max=reg_max), levels(reg_max=reg_max)
    with torch.no_grad():
        layers[0][:, at : at + 2] = torch.tensor(values)[:, None, None]
        smaller[0][:, at : at + 2] = 1e-27 * torch.tensor(values)[:, None, None]  # so far apart that one has all, too
    total, left = step(loss, layers, batch())[:2]
    assert total[0] == step(loss, smaller, batch())[0][0]
    left = left[:, :reg_max]
    assert (left.sum(1).abs() <= 1e-6).all()
    assert (left[:, at] != 0).any()
    assert values[1] == 0 or not (left[:, at + 1] > 0).any()


@pytest.mark.parametrize("wrong", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_finite_logit_has_a_finite_loss_and_gradient(dtype, wrong):
    """Up to the dtype's largest number, in boxes, classes, or single channels, of either sign."""
    largest = torch.finfo(dtype).max
    for reg_max in (1, 2, 16):
        fields = (slice(0, 4 * reg_max), slice(4 * reg_max, None), slice(0, 1), slice(0, None, 2), slice(0, None))
        for value in (largest, 1e30, 1e4):
            for channels in fields if value <= largest else ():
                layers = levels(dtype, reg_max)
                with torch.no_grad():
                    for x in layers:
                        x[:, channels] = -value if wrong else value
                assert finite(parts(reg_max), layers, batch()), (reg_max, value, channels)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("reg_max", [1, 16])
def test_a_box_that_is_not_finite_spoils_only_its_anchor(value, reg_max):
    """The box term is NaN, which is true of it; other anchors keep targets and gradients. The assignment names it."""
    usual, layers = levels(reg_max=reg_max), levels(reg_max=reg_max)
    with torch.no_grad():
        layers[0][0, 2, 3, 2] = value
        for x in usual, layers:
            x[0][0, 4 * reg_max :, 3, 2] = -90  # no target takes it before, either
    loss = parts(reg_max)
    total, *gradients = step(loss, layers, batch())
    assert total.isnan().tolist() == [True, False, False]
    assert all(map(torch.equal, gradients, step(loss, usual, batch())[1:]))
    assigned = loss.assign(layers, batch())
    assert assigned.unusable.nonzero().tolist() == [[0, 3 * 8 + 2]]
    assert any("anchor 26 (level 0, row 3, column 2)" in x and "not finite" in x for x in assigned.explain())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_box_that_is_not_finite_spoils_nothing_in_the_background(value):
    """No target's box is around those anchors, so nothing depends on them."""
    layers, given = levels(), batch((0, 1, 0.5, 0.5, 0.25, 0.3))
    expected = parts()(layers, given)[0]
    assigned = parts().assign(layers, given)
    candidate = torch.stack((assigned.pairs.candidate[0], torch.zeros(ANCHORS, dtype=torch.bool)))
    assert torch.equal(assigned.owners.candidate, candidate)
    with torch.no_grad():
        for level, inside in zip(layers, candidate.split([48, 12], dim=1), strict=True):
            level[:, 2].masked_fill_(~inside.view(2, *level.shape[2:]), value)
    assert torch.equal(parts()(layers, given)[0], expected)
    assert finite(parts(), layers, given)


def test_a_class_logit_that_is_nan_spoils_only_the_class_term():
    """And there only its own gradient: targets, boxes and other logits are as if it were of no anchor."""
    layers = levels()
    with torch.no_grad():
        layers[0][0, 66, 3, 2] = torch.nan
    total, first, second = step(parts(), layers, batch())
    assert total.isnan().tolist() == [False, True, False]
    assert first.isnan().nonzero().tolist() == [[0, 66, 3, 2]]
    assert second.isfinite().all()


def test_a_class_logit_of_minus_infinity_has_a_finite_loss():
    """Everywhere but at a class that should be seen there."""
    layers = levels()
    with torch.no_grad():
        layers[0][:, 64:] = -torch.inf
    assert finite(parts(), layers, batch())


def test_the_class_gradient_is_that_of_the_formula_for_every_logit():
    """Gain x B x sigmoid in the background, also where the value is cut off, and where it is infinite."""
    layers = levels(images=1)
    values = torch.tensor([-torch.inf, -3e38, -2e30, -50, 0, 50, 2e30, 3e38, torch.inf])
    with torch.no_grad():
        layers[0][0, 64, 0, :8], layers[0][0, 65, 0, 0] = values[:8], values[8]
    _, gradient, _ = step(parts(), layers, columns(torch.zeros(0, 6)))
    got = torch.cat((gradient[0, 64, 0, :8], gradient[0, 65, 0, :1]))
    assert torch.equal(got, 0.5 * values.sigmoid())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_wide_level_has_different_anchor_points(dtype):
    """2100 columns: half precision has no number for most of the points."""
    loss = TaskAlignedLoss.from_parts([8], 1, 1)
    points = loss.assign([torch.zeros(1, 5, 1, 2100, dtype=dtype)], columns(torch.zeros(0, 6))).anchors.point
    assert points[:, 0].tolist() == [i + 0.5 for i in range(2100)]


@pytest.mark.parametrize(("dtype", "columns_"), [(torch.bfloat16, 257), (torch.float16, 8191)])
def test_the_image_is_as_large_as_it_is(dtype, columns_):
    """In half precision it would be 2048 pixels wide, or infinite."""
    loss = TaskAlignedLoss.from_parts([8], 1, 1)
    box = loss.assign([torch.zeros(1, 5, 1, columns_, dtype=dtype)], batch((0, 0, 0.5, 0.5, 1, 1))).targets.box[0]
    assert box.tolist() == [0, 0, columns_ * 8, 8]


# Out of memory: targets are looked at some at a time, tests/test_tal_assign.py.


def test_missing_gains_are_named_when_the_loss_is_made():
    """Not at the first call."""
    model = Model()
    del model.args.cls, model.args.dfl
    with refuses(ValueError, "model.args: missing cls, dfl (got: SimpleNamespace)"):
        TaskAlignedLoss(model)
    del model.args
    with refuses(ValueError, "model.args: missing box, cls, dfl (got: NoneType)"):
        TaskAlignedLoss(model)


def test_a_replaced_head_is_read_again_on_refresh():
    """Strides, classes, bins and class weights at once; before, the old ones are used throughout."""
    model = Model()
    loss, both = TaskAlignedLoss(model), E2ELoss(model)
    model.model[-1].stride, model.model[-1].nc, model.model[-1].reg_max = torch.tensor([4.0, 8.0]), CLASSES - 1, 8
    model.class_weights = torch.tensor([1.0, 2.0])
    assert torch.equal(loss(levels(), batch())[0], TaskAlignedLoss(Model())(levels(), batch())[0])
    for one in (loss, both):
        one.refresh(model)
    for one in (loss, both.one2many, both.one2one):
        assert (one.nc, one.reg_max, one.no, one.stride.tolist()) == (2, 8, 34, [4, 8])
        assert one.class_weights.tolist() == [1, 2]
    smaller = [x[:, :34] for x in levels()]
    fresh = TaskAlignedLoss.from_parts([4, 8], 2, 8, class_weights=[1, 2])
    given = batch((0, 1, 0.31, 0.64, 0.5, 0.6))
    assert torch.equal(loss(smaller, given)[0], fresh(smaller, given)[0])
