"""Where this loss is better than upstream, by contract: a test for each row of SPEC section 7."""

import re
from pathlib import Path

import pytest
import torch

from tests.logit_sweep import fields, run, table
from tests.models import ANCHORS, CLASSES, Model, parts, predictions, targets
from yololoss import BCEBlurWithLogitsLoss, ComputeLoss, FocalLoss, Hyperparameters, QFocalLoss
from yololoss.v5.loss import AUTOBALANCE_FLOOR


def refuses(error: type[Exception], text: str):
    """Expect exactly this error text."""
    return pytest.raises(error, match=f"^{re.escape(text)}$")


def finite_gradients(loss: ComputeLoss, p: list[torch.Tensor], rows: torch.Tensor) -> bool:
    total, _ = loss(p, rows)
    return all(bool(g.isfinite().all()) for g in torch.autograd.grad(total.sum(), p))


@pytest.mark.parametrize(
    ("dtype", "logit"),
    [
        (torch.float32, -53.0),
        (torch.float32, -45.5),
        (torch.float32, -51.75),
        (torch.bfloat16, -48.0),
        (torch.float16, -10.0),
        (torch.float32, -3e38),
        (torch.float64, -1e300),
    ],
)
def test_a_prediction_of_zero_size_has_a_finite_gradient(dtype, logit):
    """Width and height that underflow to 0 in a matched cell: finite gradient for every finite logit."""
    p = predictions(dtype, value=0.0)
    for layer in p:
        layer.data[..., 2:4] = logit
    assert finite_gradients(parts(), p, targets())


@pytest.mark.parametrize(("dtype", "w", "h"), [
    (torch.float32, 0, -23.25), (torch.bfloat16, 0, -23.25), (torch.float16, 0, -9.5), (torch.float32, -12, -28.75),
])  # fmt: skip
def test_a_prediction_of_zero_height_has_a_finite_gradient(dtype, w, h):
    """Only the height vanishes: upstream's loss is finite there, its gradient is not."""
    p = predictions(dtype, value=0.0)
    for layer in p:
        layer.data[..., 2], layer.data[..., 3] = w, h
    assert finite_gradients(parts(), p, targets())


@pytest.mark.parametrize("magnitude", [1e10, 1e30])
@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_the_loss_is_finite_up_to_logits_of_1e30(magnitude, gamma):
    """A finite loss for every logit up to 1e30, of either sign."""
    for value in (magnitude, -magnitude):
        total, items = parts(Hyperparameters(fl_gamma=gamma))(predictions(value=value), targets())
        assert total.isfinite().all()
        assert items.isfinite().all()


@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_finite_logit_has_a_finite_loss_and_gradient(dtype, autocast):
    """From -1e4 to 1e4, each channel by itself, and width with height."""
    for name, logits in fields():
        assert run(logits, dtype, autocast, gamma=0.0) == (True, True), name


def test_the_docs_show_the_sweep_as_it_is():
    """docs/measured/logit-sweep.md holds the table that the sweep makes, and nothing in it is not finite."""
    text = Path(__file__).parents[1].joinpath("docs", "measured", "logit-sweep.md").read_text(encoding="utf-8")
    made = "\n".join(table())
    assert made in text
    assert "NOT" not in made


@pytest.mark.parametrize("gamma", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", [FocalLoss, QFocalLoss])
def test_focal_losses_have_finite_gradients_at_saturated_logits_and_at_a_hit(kind, gamma):
    """0 < gamma < 1: finite gradient where upstream multiplies 0 by infinity, and the value is the formula's."""
    criterion = kind(torch.nn.BCEWithLogitsLoss(), gamma)
    logits = torch.tensor([-200.0, -20, 0, 0.0, 20, 200, -3e38, 3e38], requires_grad=True)
    truth = torch.tensor([0.0, 0, 0.5, 1, 1, 1, 0, 1])
    (gradient,) = torch.autograd.grad(criterion(logits, truth), logits)
    assert gradient.isfinite().all()
    hit = criterion(torch.zeros(1), torch.full((1,), 0.5)).item()  # sigmoid is 0.5: BCE log 2, alpha 0.5
    expected = 0.6931472 * 0.5 * (0.5**gamma if kind is FocalLoss else 0.0)
    assert hit == pytest.approx(expected, rel=1e-6)  # float32


def test_the_last_row_wins_a_shared_cell():
    """Rows of one cell and anchor: the objectness target is that of the last, whatever the order of writing."""
    loss = parts(Hyperparameters(obj=1.0, box=0.0, cls=0.0))
    near, far = (0, 1, 0.3, 0.3, 0.2, 0.3), (0, 1, 0.3, 0.3, 0.32, 0.62)
    gradients = {}
    for order in ((near,), (far,), (near, far), (far, near)):
        p = predictions(value=0.0)
        gradients[order] = torch.autograd.grad(loss(p, targets(*order))[0].sum(), p)[0][..., 4]
    assert torch.equal(gradients[near, far], gradients[(far,)])
    assert torch.equal(gradients[far, near], gradients[(near,)])
    assert not torch.equal(gradients[(near,)], gradients[(far,)])


def test_sorting_works_with_exactly_one_row_on_a_layer():
    """sort_obj_iou with a single row: upstream raises IndexError."""
    loss = ComputeLoss.from_parts([[[1.0, 1.0]]], [8], 2)
    p = [torch.zeros(1, 1, 1, 1, 7)]
    plain = loss(p, torch.tensor([[0, 1, 0.5, 0.5, 0.9, 0.9]]))
    loss.sort_obj_iou = True
    assert len(loss.build_targets(p, torch.tensor([[0, 1, 0.5, 0.5, 0.9, 0.9]]))[0][0]) == 1
    assert torch.equal(loss(p, torch.tensor([[0, 1, 0.5, 0.5, 0.9, 0.9]]))[0], plain[0])


BAD_TARGETS = [
    ((0, -1), "targets[1, 1] (class): expected a whole number from 0 to 2, got -1"),
    ((0, 3), "targets[1, 1] (class): expected a whole number from 0 to 2, got 3"),
    ((0, 1.5), "targets[1, 1] (class): expected a whole number from 0 to 2, got 1.5"),
    ((-1, 0), "targets[1, 0] (image): expected a whole number from 0 to 1, got -1"),
    ((2, 0), "targets[1, 0] (image): expected a whole number from 0 to 1, got 2"),
    ((0.9, 0), "targets[1, 0] (image): expected a whole number from 0 to 1, got 0.899999976"),
    ((0, 0, float("nan")), "targets[1, 2] (x): expected a number from 0 to 1, got nan"),
    ((0, 0, 1.01), "targets[1, 2] (x): expected a number from 0 to 1, got 1.00999999"),
    ((0, 0, -1e-9), "targets[1, 2] (x): expected a number from 0 to 1, got -9.99999972e-10"),
    ((0, 0, 0.5, float("inf")), "targets[1, 3] (y): expected a number from 0 to 1, got inf"),
    ((0, 0, 0.5, 0.5, 0), "targets[1, 4] (w): expected a finite number above 0, got 0"),
    ((0, 0, 0.5, 0.5, -0.1), "targets[1, 4] (w): expected a finite number above 0, got -0.100000001"),
    ((0, 0, 0.5, 0.5, 0.1, float("nan")), "targets[1, 5] (h): expected a finite number above 0, got nan"),
    ((0, 0, 0.5, 0.5, 0.1, float("inf")), "targets[1, 5] (h): expected a finite number above 0, got inf"),
]


@pytest.mark.parametrize(("start", "text"), BAD_TARGETS)
def test_a_bad_target_value_is_named(start, text):
    """The error names row, column, value and allowed range."""
    good = (0, 0, 0.5, 0.5, 0.2, 0.3)
    with refuses(ValueError, text):
        parts()(predictions(), targets(good, (*start, *good[len(start) :])))


def test_the_number_of_other_bad_rows_is_told():
    """One row is shown, the others are counted."""
    bad = (0, 7, 0.5, 0.5, 0.2, 0.3)
    with refuses(ValueError, "targets[0, 1] (class): expected a whole number from 0 to 2, got 7 (2 more bad rows)"):
        parts()(predictions(), targets(bad, bad, bad))
    worse = (0, 7, 1.5, 0.5, 0.2, 0.3)  # two bad values are one bad row
    with refuses(ValueError, "targets[0, 1] (class): expected a whole number from 0 to 2, got 7"):
        parts()(predictions(), targets(worse))


def test_one_class_means_class_0():
    """With one class, class 7 is refused, where upstream accepts it."""
    loss = ComputeLoss.from_parts([[[1.0, 1.0]]], [8], 1)
    with refuses(ValueError, "targets[0, 1] (class): expected a whole number from 0 to 0, got 7"):
        loss([torch.zeros(1, 1, 2, 2, 6)], torch.tensor([[0, 7, 0.5, 0.5, 0.5, 0.5]]))


def test_integer_targets_are_refused():
    """As integers every coordinate would be truncated to 0."""
    text = (
        "targets: expected a floating-point tensor, got torch.int64; "
        "as integers, all coordinates below 1 are truncated to 0"
    )
    with refuses(TypeError, text):
        parts()(predictions(), targets().long())


META = torch.device("meta")
EVAL = "; a model in eval mode returns (inference, train) outputs: pass the train outputs"
SHAPE = "expected shape (batch, anchors, rows, columns, 5 + classes) ="
BAD_INPUTS = [
    (lambda p, t: (p, t[:, :5]), ValueError, "targets: expected shape (N, 6), got (3, 5)"),
    (lambda p, t: (p, t.repeat(1, 2)), ValueError, "targets: expected shape (N, 6), got (3, 12)"),
    (lambda p, t: (p, t[..., None].repeat(1, 1, 6)), ValueError, "targets: expected shape (N, 6), got (3, 6, 6)"),
    (lambda p, t: (p, t[0]), ValueError, "targets: expected shape (N, 6), got (6,)"),
    (lambda p, t: (p, t.tolist()), TypeError, "targets: expected a tensor of shape (N, 6), got list"),
    (lambda p, t: (p, t.to(META)), ValueError,
     "targets: expected device cpu, as the predictions, got meta"),
    (lambda p, t: (p[0], t), TypeError,
     "predictions: expected a list of 2 tensors, one per layer, got a tensor of shape (2, 2, 6, 8, 8), torch.float32"),
    (lambda p, t: (None, t), TypeError, "predictions: expected a list of 2 tensors, one per layer, got NoneType"),
    (lambda p, t: (p[:1], t), ValueError, f"predictions: expected 2 layers, got 1{EVAL}"),
    (lambda p, t: ([*p, p[0]], t), ValueError, f"predictions: expected 2 layers, got 3{EVAL}"),
    (lambda p, t: ([p[0], p[1][..., None].expand(2, 2, 3, 4, 8, 8)], t), ValueError,
     f"predictions[1]: {SHAPE} (2, 2, H, W, 8), got (2, 2, 3, 4, 8, 8)"),
    (lambda p, t: ((torch.zeros(2, 96, 8), p), t), ValueError,
     f"predictions[0]: {SHAPE} (2, 2, H, W, 8), got (2, 96, 8){EVAL}"),
    (lambda p, t: ([p[0], p[1][..., :-1]], t), ValueError,
     f"predictions[1]: {SHAPE} (2, 2, H, W, 8), got (2, 2, 3, 4, 7)"),
    (lambda p, t: ([p[0], p[1][:, :1]], t), ValueError,
     f"predictions[1]: {SHAPE} (2, 2, H, W, 8), got (2, 1, 3, 4, 8)"),
    (lambda p, t: ([p[0], p[1][:1]], t), ValueError,
     f"predictions[1]: {SHAPE} (2, 2, H, W, 8), got (1, 2, 3, 4, 8)"),
    (lambda p, t: ([p[0], p[1][:, :, :0]], t), ValueError,
     "predictions[1]: expected at least one element along every axis, got (2, 2, 0, 4, 8)"),
    (lambda p, t: ([p[0], p[1].long()], t), TypeError,
     "predictions[1]: expected a floating-point tensor, got a tensor of shape (2, 2, 3, 4, 8), torch.int64"),
    (lambda p, t: ([p[0], torch.tensor(1.0)], t), ValueError,
     f"predictions[1]: {SHAPE} (2, 2, H, W, 8), got ()"),
    (lambda p, t: ([p[0], p[1].to(META)], t), ValueError,
     "predictions[1]: expected device cpu, as the anchors, got meta; "
     "after moving a model, call refresh(model) on its loss"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "text"), BAD_INPUTS, ids=[text[:60] for *_, text in BAD_INPUTS])
def test_inputs_of_another_form_are_told_apart(spoil, error, text):
    """Wrong rank, channels, layers, dtype or device: the message has what was passed and what was expected."""
    for call in (parts(), parts().build_targets):
        with refuses(error, text):
            call(*spoil(predictions(), targets()))


def test_checks_can_be_switched_off():
    """Without checks a centre outside the image is clamped into the grid, as upstream does."""
    outside = targets((0, 1, 1.2, 0.5, 0.2, 0.3))
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        parts()(predictions(), outside)
    *_, indices, _ = parts(checks=False).build_targets(predictions(), outside)
    assert set(indices[0][3].tolist()) == {7}


def test_autobalance_is_bounded_where_the_objectness_loss_vanishes():
    """At a loss of 0 the balance moves as at AUTOBALANCE_FLOOR; upstream divides by zero."""
    loss = parts(autobalance=True)
    loss(predictions(value=-200.0), targets()[:0])
    step = 0.0001 / AUTOBALANCE_FLOOR
    kept = 1.0 * 0.9999 + step
    expected = [(4.0 * 0.9999 + step) / kept, 1.0, 0.25 / kept, 0.06 / kept, 0.02 / kept]
    assert loss.balance == pytest.approx(expected, rel=1e-15)  # Python floats, the same formula


def test_autobalance_needs_a_layer_of_stride_16():
    """The balance of that layer stays 1; without it there is nothing to divide by."""
    text = "autobalance: needs a layer of stride 16 to keep at balance 1, got strides [8.0, 32.0]"
    with refuses(ValueError, text):
        ComputeLoss.from_parts(ANCHORS, (8, 32), CLASSES, autobalance=True)
    ComputeLoss.from_parts(ANCHORS, (8, 32), CLASSES)


def test_six_layers_are_refused():
    """The balance table has five entries."""
    text = "layers: the balance table has entries for 1 to 5 layers, got 6"
    with refuses(ValueError, text):
        ComputeLoss.from_parts([ANCHORS[0]] * 6, [8] * 6, CLASSES)


def test_replaced_anchors_are_read_again_on_refresh():
    """After replacing a model's anchors the old ones are used until refresh; an edit in place is seen."""
    model = Model()
    loss = ComputeLoss(model)
    before = loss(predictions(), targets())[0].item()
    model.model[-1].anchors = torch.tensor(ANCHORS) * 2
    assert loss(predictions(), targets())[0].item() == before
    loss.refresh(model)
    after = loss(predictions(), targets())[0].item()
    assert after != before
    model.model[-1].anchors /= 2
    assert loss(predictions(), targets())[0].item() == before


def test_blurred_bce_is_its_formula():
    """BCE x (1 - exp((s - t - 1) / (alpha + 1e-4))), mean."""
    logits, truth = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([0.0, 0.3, 1.0])
    s = logits.double().sigmoid()
    bce = -(truth * s.log() + (1 - truth) * (1 - s).log())
    expected = (bce * (1 - ((s - truth - 1) / 0.0501).exp())).mean().item()
    assert BCEBlurWithLogitsLoss()(logits, truth).item() == pytest.approx(expected, rel=1e-6)  # float32
