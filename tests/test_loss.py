"""The drop-in class, `from_parts`, its attributes, and its gradient."""

import copy
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.groups import holds_in_a_group
from tests.models import ANCHORS, CLASSES, STRIDES, Model, parts, predictions, targets
from yololoss import ComputeLoss, Hyperparameters
from yololoss.harness.subjects.load import find_device
from yololoss.v5 import boxes
from yololoss.v5 import loss as loss_module


def total(loss: ComputeLoss) -> float:
    return loss(predictions(), targets())[0].item()


def test_both_ways_in_give_the_same_loss():
    """A model and its parts make the same loss."""
    assert total(ComputeLoss(Model())) == total(parts())


def test_a_wrapped_model_is_unwrapped():
    """DataParallel's module is the model."""
    assert total(ComputeLoss(nn.DataParallel(Model()))) == total(parts())


def test_hyperparameters_of_a_wrapped_model_are_its_own_where_it_has_some():
    """A trainer may set them after it wrapped the model, so the inner model has none."""
    model = Model()
    wrapped = nn.DataParallel(model)
    wrapped.hyp = {**model.hyp, "box": 0.5}
    del model.hyp
    assert ComputeLoss(wrapped).hyp is wrapped.hyp


def is_unwrapped(folder: Path) -> None:
    """DistributedDataParallel's module is the model."""
    wrapped = nn.parallel.DistributedDataParallel(Model())
    assert total(ComputeLoss(wrapped)) == total(parts())


def test_a_distributed_model_is_unwrapped(tmp_path):
    """The loss is that of the model."""
    assert holds_in_a_group(is_unwrapped, tmp_path)


def test_upstreams_attributes_are_there():
    """What users of upstream's class read or set exists, with upstream's meaning."""
    model = Model()
    loss = ComputeLoss(model, autobalance=True)
    assert ComputeLoss.sort_obj_iou is False
    assert (loss.na, loss.nc, loss.nl, loss.ssi, loss.gr) == (2, CLASSES, 2, 1, 1.0)
    assert (loss.cp, loss.cn, loss.autobalance) == (1.0, 0.0, True)
    assert loss.balance == [4.0, 1.0, 0.25, 0.06, 0.02]
    assert loss.hyp is model.hyp
    assert torch.equal(loss.anchors, model.model[-1].anchors)
    assert loss.device == torch.device("cpu")
    assert isinstance(loss.BCEcls, nn.BCEWithLogitsLoss)
    assert isinstance(loss.BCEobj, nn.BCEWithLogitsLoss)
    assert ComputeLoss(model).ssi == 0
    three = ComputeLoss.from_parts([ANCHORS[0]] * 3, (8, 16, 32), CLASSES)
    assert three.balance == [4.0, 1.0, 0.4]


def test_gains_and_ratio_are_read_at_every_call():
    """Changing model.hyp or gr between calls changes the next loss, as upstream's training loop relies on."""
    model = Model()
    loss = ComputeLoss(model)
    box = loss(predictions(), targets())[1][0]
    model.hyp["box"] *= 2
    items = loss(predictions(), targets())[1]
    assert items[0] == 2 * box
    loss.gr = 0.0
    assert loss(predictions(), targets())[1][1] != items[1]


def test_results_have_upstreams_form():
    """total is (1,) float32 with gradient; items are (3,) float32, detached; total is their sum times batch."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        value, items = parts()(predictions(dtype), targets())
        assert (value.shape, value.dtype, value.requires_grad) == ((1,), torch.float32, True)
        assert (items.shape, items.dtype, items.requires_grad) == ((3,), torch.float32, False)
        assert value.item() == pytest.approx(2 * items.sum().item(), rel=3 * 2**-24)  # two float32 sums


def test_the_loss_survives_copy_and_pickle():
    """A deep copy and a pickled copy give the same loss."""
    loss = ComputeLoss(Model())
    assert total(copy.deepcopy(loss)) == total(pickle.loads(pickle.dumps(loss))) == total(loss)


def test_a_missing_hyperparameter_is_named():
    """Of model.hyp only label_smoothing may be missing; other keys are ignored."""
    model = Model()
    del model.hyp["label_smoothing"]
    assert ComputeLoss(model).cp == 1.0
    del model.hyp["anchor_t"], model.hyp["obj"]
    with pytest.raises(ValueError, match=re.escape("model.hyp: missing obj, anchor_t (got: box, cls, cls_pw")):
        ComputeLoss(model)
    model.hyp = None
    text = "model.hyp: expected a dict of hyperparameters, got NoneType"
    with pytest.raises(TypeError, match=re.escape(text)):
        ComputeLoss(model)


def test_parts_that_do_not_fit_are_refused():
    """Anchors, strides and classes are checked; the message has what was passed and what was expected."""
    anchors = torch.tensor(ANCHORS)
    for sides, strides, shapes in (
        (anchors, STRIDES[:1], "(2, 2, 2) and (1,)"),
        (anchors, (*STRIDES, 32.0), "(2, 2, 2) and (3,)"),
        (anchors[0], STRIDES, "(2, 2) and (2,)"),
        (anchors[None], (8.0,), "(1, 2, 2, 2) and (1,)"),
        (anchors[..., :1], STRIDES, "(2, 2, 1) and (2,)"),
        (anchors.repeat(1, 1, 2), STRIDES, "(2, 2, 4) and (2,)"),
    ):
        text = f"anchors, strides: expected shapes (layers, anchors, 2) and (layers,), got {shapes}"
        with pytest.raises(ValueError, match=re.escape(text)):
            ComputeLoss.from_parts(sides, strides, CLASSES)
    with pytest.raises(ValueError, match="classes: expected 1 or more, got 0"):
        ComputeLoss.from_parts(ANCHORS, STRIDES, 0)


@pytest.mark.parametrize(
    ("hyp", "text"),
    [
        (
            {"fl_gama": 1.0},
            "unknown hyperparameter 'fl_gama'; did you mean 'fl_gamma'? (known: box, obj, cls, ",
        ),
        ({"zzz": 1.0}, "unknown hyperparameter 'zzz' (known: box, "),
        ({"box": "0.05"}, "Input should be a valid number"),
        ({"box": float("nan")}, "Input should be a finite number"),
        ({"cls_pw": 0}, "Input should be greater than 0"),
        ({"label_smoothing": 1.5}, "Input should be less than or equal to 1"),
    ],
)
def test_bad_hyperparameters_are_refused(hyp, text):
    """An unknown name, a string, NaN or a value out of range is a ValueError that names it."""
    with pytest.raises(ValueError, match=re.escape(text)):
        Hyperparameters(**hyp)


@pytest.mark.parametrize("hyp", [
    Hyperparameters(),
    Hyperparameters(fl_gamma=1.5, cls_pw=1.7, obj_pw=0.6, label_smoothing=0.1),
])  # fmt: skip
def test_the_gradient_is_that_of_the_value(hyp, monkeypatch):
    """float64 gradients pass gradcheck, with alpha and the objectness target held fixed, as they are defined."""
    # One image and two small layers: gradcheck calls the loss twice for every logit.
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 2, 2, 3, 8), (1, 2, 1, 2, 8))
    p = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    rows = targets((0, 2, 0.31, 0.64, 0.6, 0.71), (0, 0, 0.83, 0.21, 0.9, 0.5))
    loss = parts(hyp)
    assert all(len(layer.cls) for layer in loss.assign(p, rows))
    for module, name in ((boxes, "ciou_alpha"), (loss_module, "_objectness_values")):
        _replay(monkeypatch, module, name, calls=2)
    assert torch.autograd.gradcheck(lambda *layers: loss.terms(layers, rows), p)


def _replay(monkeypatch, module, name, calls):
    """Give what the first ``calls`` calls gave (one a layer) again and again: detached values stay fixed."""
    original, kept, asked = getattr(module, name), [], [0]

    def replayed(*args):
        if len(kept) < calls:
            kept.append(original(*args))
        asked[0] += 1
        return kept[(asked[0] - 1) % calls]

    monkeypatch.setattr(module, name, replayed)


def test_the_objectness_target_carries_no_gradient():
    """With the other gains 0, the box logits get no gradient at all."""
    p = predictions()
    value, _ = parts(Hyperparameters(box=0.0, cls=0.0))(p, targets())
    for gradient in torch.autograd.grad(value.sum(), p):
        gradient[..., 4] = 0
        assert not gradient.any()


def test_deterministic_algorithms_are_enough():
    """The loss runs under torch.use_deterministic_algorithms, with the same result."""
    plain = total(parts())
    torch.use_deterministic_algorithms(True)
    try:
        assert total(parts()) == plain
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_device_without_autocast_is_served():
    """Where torch has no autocast for a device there is none to switch off."""
    with loss_module._full_precision(torch.device("meta")):
        assert torch.zeros(1).sum() == 0


def test_the_assignment_explains_itself():
    """One line for each target and anchor, matched or not, and for each row: its cell, and whether it was clamped."""
    loss = ComputeLoss.from_parts([[[1.0, 1.0], [4.0, 1.0]]], [8], CLASSES)
    rows = torch.tensor([[0, 1, 1.0, 0.6, 0.4, 0.5], [0, 0, 0.5, 0.1, 0.9, 0.1]])
    assert loss.assign([torch.zeros(1, 2, 2, 3, 5 + CLASSES)], rows)[0].explain() == [
        "target 0 matches anchor 0: side ratio 1.2",
        "target 1 does not match anchor 0: side ratio 5",
        "target 0 matches anchor 1: side ratio 3.333",
        "target 1 does not match anchor 1: side ratio 5",
        "row 0: target 0, anchor 0, centre (3, 1.2), own cell (2, 1), clamped from (3, 1)",
        "row 1: target 0, anchor 1, centre (3, 1.2), own cell (2, 1), clamped from (3, 1)",
        "row 2: target 0, anchor 0, centre (3, 1.2), left cell (2, 1)",
        "row 3: target 0, anchor 1, centre (3, 1.2), left cell (2, 1)",
        "row 4: target 0, anchor 0, centre (3, 1.2), above cell (2, 0), clamped from (3, 0)",
        "row 5: target 0, anchor 1, centre (3, 1.2), above cell (2, 0), clamped from (3, 0)",
    ]


def test_an_assignment_is_read_only_and_equal_to_itself_alone():
    """Its tensors have no single truth value, so it is not compared by value."""
    one = parts().assign(predictions(), targets())[0]
    with pytest.raises(FrozenInstanceError):
        one.grid = (1, 1)
    assert one != replace(one)


def test_anchors_of_a_model_in_half_precision_are_used_in_float32():
    """Rows and their anchor sides are float32 whatever the model is."""
    assigned = ComputeLoss(Model().half()).assign(predictions(), targets())
    assert {layer.anchor_wh.dtype for layer in assigned} == {torch.float32}


def test_anchors_lie_where_they_are_wanted_as_float32():
    """With `from_parts` on the device that is named, with a model on the device of its parameters."""
    mirror = find_device("mirror")
    loss = ComputeLoss.from_parts([[[1, 2]]], [8], CLASSES, device=mirror)
    assert (loss.anchors.dtype, loss.device.type) == (torch.float32, "mirror")
    model = Model()
    model.model[0].to(mirror)  # the head's own anchors stay behind
    assert ComputeLoss(model).device.type == "mirror"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """The loss of predictions in half precision equals that of the same numbers in float32, bit for bit."""
    p = predictions(dtype)
    assert torch.equal(parts()(p, targets())[0], parts()([x.float() for x in p], targets())[0])
