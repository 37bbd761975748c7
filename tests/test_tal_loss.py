"""The drop-in class of the task-aligned loss, its parts, its results and its gradient; and losses of two heads."""

import copy
import math
import pickle
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.tal_models import ANCHORS, BATCH, CLASSES, STRIDES, Model, batch, columns, levels, mapping, parts, step
from yololoss import Assigner, E2EDetectLoss, E2ELoss, Gains, TaskAlignedLoss
from yololoss.harness.subjects.load import find_device
from yololoss.tal import boxes
from yololoss.tal import loss as loss_module
from yololoss.tal.inputs import read_predictions, unwrapped

NOTHING = columns(torch.zeros(0, 6))
PREDS = {"one2many": 1, "one2one": 2}


def total(loss: TaskAlignedLoss) -> list[float]:
    return loss(levels(reg_max=loss.reg_max), batch())[0].tolist()


def heads() -> dict[str, list[torch.Tensor]]:
    """Predictions of two heads, which differ."""
    return {"one2many": levels(), "one2one": [x.detach().flip(3).requires_grad_() for x in levels()]}


@pytest.mark.parametrize("reg_max", [1, 16])
def test_both_ways_in_give_the_same_loss(reg_max):
    """A model and its parts make the same loss."""
    assert total(TaskAlignedLoss(Model(reg_max))) == total(parts(reg_max))
    seven = parts(reg_max, assigner=Assigner(7, 1))
    assert total(TaskAlignedLoss(Model(reg_max), 7, 1)) == total(seven)
    assert total(TaskAlignedLoss(Model(reg_max), tal_topk=7, tal_topk2=1)) == total(seven)
    assert total(seven) != total(parts(reg_max))


def test_a_wrapped_model_is_unwrapped():
    """DataParallel's module is the model; a trainer may set args on the wrapper."""
    wrapped = nn.DataParallel(Model())
    assert total(TaskAlignedLoss(wrapped)) == total(parts())
    wrapped.args, wrapped.module.args = wrapped.module.args, None
    assert TaskAlignedLoss(wrapped).hyp is wrapped.args


def test_upstreams_attributes_are_there():
    """What users of upstream's class read or set exists, with upstream's meaning."""
    model = Model()
    loss = TaskAlignedLoss(model)
    assert (loss.nc, loss.reg_max, loss.no, loss.use_dfl) == (CLASSES, 16, CLASSES + 64, True)
    assert [TaskAlignedLoss(Model(bins)).use_dfl for bins in (1, 2)] == [False, True]
    assert loss.hyp is model.args
    assert loss.device == torch.device("cpu")
    assert torch.equal(loss.stride, model.model[-1].stride)
    assert loss.assigner == Assigner(10, None, 0.5, 6.0, 1e-9)


def test_gains_are_read_at_every_call_and_scale_their_own_term():
    """Changing model.args between calls changes the next loss."""
    model = Model()
    loss = TaskAlignedLoss(model)
    before = loss(levels(), batch())[0]
    for i, name in enumerate(("box", "cls", "dfl")):
        setattr(model.args, name, 2 * getattr(model.args, name))
        after = loss(levels(), batch())[0]
        assert [int(v) for v in after / before] == [2 if j == i else 1 for j in range(3)]
        before = after


@pytest.mark.parametrize(("returns", "shape"), [("dict", (3,)), ("tensor", (3,)), ("scalar", ())])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_results_have_the_form_of_each_version_of_upstream(returns, shape, dtype):
    """One switch. Totals are float32, with gradient, times B; items are float32, detached, without B."""
    loss = parts(returns=returns)
    value, items = loss(levels(dtype), batch())
    assert (value.shape, value.dtype, value.requires_grad) == (shape, torch.float32, True)
    if returns == "dict":
        assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]
        assert {v.shape for v in items.values()} == {()}
        items = torch.stack([*items.values()])
    assert (items.shape, items.dtype, items.requires_grad) == ((3,), torch.float32, False)
    assert torch.equal(value, BATCH * items if returns != "scalar" else (BATCH * items).sum())


def test_without_bins_the_third_item_is_called_l1():
    """R = 1."""
    assert list(parts(1)(levels(reg_max=1), batch())[1]) == ["box_loss", "cls_loss", "l1_loss"]


def test_terms_are_before_gains():
    """In float64 for float64 predictions, so that they can be compared closely."""
    terms = parts(gains=Gains(1, 2, 3)).terms(levels(torch.float64), batch())
    value, _ = parts(gains=Gains(1, 2, 3))(levels(torch.float64), batch())
    assert {t.dtype for t in terms} == {torch.float64}
    assert torch.equal((torch.stack(terms) * torch.tensor([1, 2, 3])).float() * BATCH, value)


@pytest.mark.parametrize("logit", [-30.0, 0.0, 25.0, 50.0])
def test_the_class_term_is_exact_for_confident_logits(logit):
    """log(1 + e^x) for every anchor and class, to the last digits of float64, where BCE as a difference loses them."""
    _, cls, _ = parts().terms(levels(torch.float64, value=logit), NOTHING)
    expected = max(logit, 0) + math.log1p(math.exp(-abs(logit)))
    assert cls.item() == pytest.approx(BATCH * CLASSES * ANCHORS * expected, rel=1e-14)  # a sum of 360


def test_images_are_decoded_some_at_a_time(monkeypatch):
    """So memory is bounded, whatever the number of images; the result is the same to the last bit."""
    whole = step(parts(), levels(), batch())
    monkeypatch.setattr(loss_module, "LOGITS", 1)
    assert all(map(torch.equal, step(parts(), levels(), batch()), whole))


@pytest.mark.parametrize(("kind", "topks"), [(E2ELoss, [(10, None), (7, 1)]), (E2EDetectLoss, [(10, None), (1, None)])])
def test_two_heads_have_their_top_k(kind, topks):
    """And 16 bins, and 100 epochs, if nothing else is said."""
    for loss in (kind(Model()), kind.from_parts(STRIDES, CLASSES)):
        heads = loss.one2many, loss.one2one
        assert [(head.assigner.topk, head.assigner.topk2) for head in heads] == topks
        assert {head.reg_max for head in heads} == {16}
    assert E2ELoss.from_parts(STRIDES, CLASSES).epochs == 100


@pytest.mark.parametrize("kind", [E2ELoss, E2EDetectLoss])
def test_two_heads_have_the_settings_of_the_loss(kind):
    """Both of them, however it is made; its items are detached."""
    given = {"gains": Gains(box=2.0), "class_weights": [1.0, 2.0, 3.0], "returns": "tensor", "checks": False}
    for loss in (kind(Model(), returns="tensor", checks=False), kind.from_parts(STRIDES, CLASSES, **given)):
        heads = loss.one2many, loss.one2one
        assert {(head.returns, head.checks) for head in heads} == {("tensor", False)}
        _, items = loss({"one2many": levels(), "one2one": levels()}, batch())
        assert not items.requires_grad
        with pytest.raises(KeyError, match="one2one"):
            loss({"one2many": levels()}, batch())
    assert all((head.hyp, head.class_weights.tolist()) == (given["gains"], given["class_weights"]) for head in heads)
    assert kind.from_parts(STRIDES, CLASSES, device="meta").one2one.device.type == "meta"


def test_the_weight_of_a_head_is_not_below_0():
    """Also if users set the sum of both weights."""
    loss = E2ELoss(Model())
    loss.total = 0.0
    loss.update()
    assert loss.o2o == 0


def test_a_gradient_has_a_gradient():
    """It is the same if its own is asked for, which is that of the sigmoid for a class logit."""
    layers = levels(torch.float64)
    sides = 4 * 16
    graph = torch.autograd.grad(parts()(layers, batch())[0].sum(), layers, create_graph=True)
    assert all(map(torch.equal, graph, step(parts(), layers, batch())[1:]))
    classes, sigmoid = graph[0][:, sides:], layers[0][:, sides:].sigmoid()
    (second,) = torch.autograd.grad(classes.sum(), layers[0])
    factor = (classes / sigmoid).amax()  # of the background, where the score is 0
    torch.testing.assert_close(second[:, sides:], factor * sigmoid * (1 - sigmoid), rtol=1e-6, atol=0)


def test_the_loss_survives_copy_and_pickle():
    """A deep copy and a pickled copy give the same loss."""
    loss = TaskAlignedLoss(Model(), 7, 1)
    assert total(copy.deepcopy(loss)) == total(pickle.loads(pickle.dumps(loss))) == total(loss)


PARTS = [
    ({"strides": []}, "strides: expected one or more finite numbers above 0, got []"),
    ({"strides": [8, 0]}, "strides: expected one or more finite numbers above 0, got [8.0, 0.0]"),
    ({"strides": [8, torch.inf]}, "strides: expected one or more finite numbers above 0, got [8.0, inf]"),
    ({"strides": 8}, "strides: expected one or more finite numbers above 0, got 8.0"),
    ({"strides": [[8]]}, "strides: expected one or more finite numbers above 0, got [[8.0]]"),
    ({"classes": 0}, "classes: expected 1 or more, got 0"),
    ({"reg_max": 0}, "reg_max: expected 1 or more, got 0"),
    ({"class_weights": [1, 2]}, "class_weights: expected shape (classes,) = (3,), got (2,)"),
    ({"class_weights": [1, 2, 3, 4]}, "class_weights: expected shape (classes,) = (3,), got (4,)"),
    ({"returns": "list"}, "returns: expected 'dict', 'tensor' or 'scalar', got 'list'"),
]


@pytest.mark.parametrize(("changed", "text"), PARTS)
def test_parts_that_do_not_fit_are_refused(changed, text):
    """The message has what was passed and what was expected."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        TaskAlignedLoss.from_parts(**{"strides": STRIDES, "classes": CLASSES} | changed)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_gains_are_refused(value):
    """The gain is named."""
    with pytest.raises(ValueError, match=f"^gains: cls: expected a finite number of 0 or more, got {value}$"):
        Gains(cls=value)


def test_without_targets_there_is_only_background():
    """The class term is BCE with 0 over 1; boxes are in the graph with gradient 0."""
    layers = levels()
    value, *gradients = step(parts(), layers, NOTHING)
    logits = torch.cat([x[:, 64:].flatten() for x in layers]).double()
    # 360 float32 numbers, each with three roundings
    assert value.tolist() == [
        0,
        pytest.approx(BATCH * 0.5 * torch.nn.functional.softplus(logits).sum().item(), 1e-6),
        0,
    ]
    assert not any(bool(g[:, :64].any()) for g in gradients)
    assert all(bool(g[:, 64:].all()) for g in gradients)


@pytest.mark.parametrize("case", ["one cell", "no anchor inside", "many", "alone", "huge"])
def test_edge_cases_have_a_finite_loss_and_gradient(case):
    """A single cell; a box between anchor points; more targets than anchors; images without targets; a box so large
    that its area is infinite."""
    cells = (1, 1) if case == "one cell" else (4, 4)
    loss = TaskAlignedLoss.from_parts([8], 2, 4)
    layer = torch.randn(3, 18, *cells, generator=torch.Generator().manual_seed(0)).requires_grad_()
    given = {
        "one cell": [(0, 1, 0.5, 0.5, 1, 1), (2, 0, 0.5, 0.5, 0.2, 0.2)],
        "no anchor inside": [(0, 1, 0.27, 0.26, 0.01, 0.01)],
        "many": [(i % 3, i % 2, 0.1 + 0.8 * i / 50, 0.5, 0.3, 0.9) for i in range(50)],
        "alone": [(2, 1, 0.5, 0.5, 0.9, 0.4)],
        "huge": [(0, 1, 0.5, 0.5, 1e38, 1e38), (1, 1, 0.5, 0.5, 0.9, 0.4)],
    }[case]
    value, gradient = step(loss, [layer], batch(*given))
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert bool(loss.assign([layer], batch(*given)).pairs.candidate.any(1).all())


@pytest.mark.parametrize(("reg_max", "weights"), [(1, None), (4, None), (3, [0.5, 2.0])])
def test_the_gradient_is_that_of_the_value(reg_max, weights, monkeypatch):
    """float64 gradients, and theirs, pass gradcheck, with alpha and the assignment held fixed, as they are defined.

    The fast mode compares one random direction of each, which any wrong element changes.
    """
    loss = TaskAlignedLoss.from_parts([8], 2, reg_max, class_weights=weights)
    generator = torch.Generator().manual_seed(5)
    layer = torch.randn(1, 4 * reg_max + 2, 2, 2, generator=generator, dtype=torch.float64) / 5 + 0.9
    given = batch((0, 1, 0.51, 0.53, 0.8, 0.6))
    fixed = loss.assign([layer], given)
    assert int((fixed.score > 0).sum()) >= 2
    monkeypatch.setattr(loss, "_assign", lambda *_, **__: fixed)
    kept = []
    alpha = boxes.ciou_alpha
    monkeypatch.setattr(boxes, "ciou_alpha", lambda *values: kept.append(alpha(*values)) or kept[0])

    def terms(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return loss.terms([x], given)

    assert torch.autograd.gradcheck(terms, layer.requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(terms, layer, fast_mode=True)


def test_the_assignment_has_no_gradient():
    """The class term alone gives boxes none, and the box terms give class logits none."""
    for gains, channels in ((Gains(0, 1, 0), slice(0, 64)), (Gains(1, 0, 1), slice(64, None))):
        _, *gradients = step(parts(gains=gains), levels(), batch())
        assert not any(bool(g[:, channels].any()) for g in gradients)


@pytest.mark.parametrize("form", [list, mapping])
def test_inputs_are_not_changed(form):
    """Neither predictions nor targets, by a call and its gradient."""
    preds, given = form(levels()), batch()
    parts()(preds, given)[0].sum().backward()
    tensors = preds if form is list else [preds["boxes"], preds["scores"]]
    assert all(
        map(torch.equal, tensors, levels() if form is list else [mapping(levels())[n] for n in ("boxes", "scores")])
    )
    assert all(torch.equal(value, batch()[name]) for name, value in given.items())


def test_a_tuple_of_levels_is_not_a_pair():
    """(inference output, preds) is unwrapped; two levels in a tuple are two levels."""
    layers = levels()
    usual = total(parts())
    assert parts()(tuple(layers), batch())[0].tolist() == usual
    assert parts()((torch.zeros(3), layers), batch())[0].tolist() == usual
    assert read_predictions(tuple(layers), 16).grids == ((6, 8), (3, 4))
    assert read_predictions((layers[0],), 16).grids == ((6, 8),)
    assert unwrapped((1, [2], [3])) == (1, [2], [3])


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_the_layout_of_memory_changes_nothing(memory):
    """Also where a level is a view of every second column."""
    layers = [x.detach().repeat_interleave(2, dim=3).contiguous(memory_format=memory)[..., ::2] for x in levels()]
    assert parts()(layers, batch())[0].tolist() == total(parts())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reg_max", [1, 16])
def test_autocast_changes_nothing(dtype, reg_max):
    """Total and gradients, to the last bit, with a backward inside and outside of it."""
    expected = step(parts(reg_max), levels(reg_max=reg_max), batch())
    layers = levels(reg_max=reg_max)
    with torch.autocast("cpu", dtype=dtype):
        assert all(map(torch.equal, step(parts(reg_max), layers, batch()), expected))
        value, _ = parts(reg_max)(layers, batch())
    assert all(map(torch.equal, torch.autograd.grad(value.sum(), layers), expected[1:]))


def test_deterministic_algorithms_are_enough():
    """The loss runs under torch.use_deterministic_algorithms, with the same result."""
    torch.use_deterministic_algorithms(True)
    try:
        under = total(parts(assigner=Assigner(7, 1)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert under == total(parts(assigner=Assigner(7, 1)))


def test_class_weights_lie_where_they_are_wanted():
    """With `from_parts` on the device that is named, with a model on the device of its parameters; as float32."""
    mirror = find_device("mirror")
    loss = parts(class_weights=[1, 2, 3], device=mirror)
    assert (loss.class_weights.device.type, loss.class_weights.dtype, loss.device.type) == (
        "mirror",
        torch.float32,
        "mirror",
    )
    model = Model()
    model.class_weights = torch.tensor([1, 2, 3])
    model.model[0].to(mirror)
    assert TaskAlignedLoss(model).class_weights.device.type == "mirror"


def test_the_one_to_one_head_has_one_anchor_a_target():
    """Top-k 7 and then 1: as the loss of one head with that."""
    loss = E2ELoss(Model())
    given = heads()["one2one"]
    assigned = loss.one2one.assign(given, batch())
    assert torch.equal(assigned.score, parts(assigner=Assigner(7, 1)).assign(given, batch()).score)
    assert assigned.owners.row.flatten().bincount()[:-1].tolist() == [1, 1, 1]


def test_two_heads_are_weighed_and_items_are_of_one():
    """total = o2m many + o2o one; the items are those of the one-to-one head. Weights are for each its own."""
    loss, given = E2ELoss(Model()), heads()
    value, items = loss((torch.zeros(1), given), batch())
    many, _ = parts()(given["one2many"], batch())
    one, one_items = parts(assigner=Assigner(7, 1))(given["one2one"], batch())
    assert torch.equal(value, many * 0.8 + one * (1 - 0.8))
    assert items == one_items


def test_updates_move_weight_to_the_one_to_one_head():
    """From 0.8 to 0.1 in the epochs of the training, and then no more; SPEC section 8."""
    loss = E2ELoss.from_parts(STRIDES, CLASSES, epochs=100)
    assert (loss.o2m, loss.o2o, loss.updates, loss.total, loss.o2m_copy, loss.final_o2m) == (
        0.8,
        1 - 0.8,
        0,
        1,
        0.8,
        0.1,
    )
    seen = []
    for _ in range(102):
        loss.update()
        seen.append(loss.o2m)
        assert loss.o2m + loss.o2o == pytest.approx(1, rel=1e-15)  # float64
    assert seen[:2] == [pytest.approx(0.7929, abs=1e-4), pytest.approx(0.7858, abs=1e-4)]  # printed so, and cut off
    assert seen[98:] == [0.1] * 4
    assert seen[97] > 0.1


def test_a_resumed_training_sets_the_number_of_updates():
    """Then one call of update brings the weights of that epoch. One epoch, too, is a training."""
    loss, resumed = E2ELoss(Model()), E2ELoss(Model())
    for _ in range(5):
        loss.update()
    resumed.updates = 4
    resumed.update()
    assert (resumed.o2m, resumed.o2o) == (loss.o2m, loss.o2o)
    one = E2ELoss.from_parts(STRIDES, CLASSES, epochs=1)
    one.update()
    assert one.o2m == 0.1


def test_an_end_to_end_loss_needs_the_number_of_epochs():
    """Which is named, as gains are."""
    model = Model()
    del model.args.epochs
    with pytest.raises(ValueError, match=re.escape("model.args: missing epochs (got: SimpleNamespace)")):
        E2ELoss(model)


@pytest.mark.parametrize("returns", ["dict", "tensor", "scalar"])
def test_the_form_of_yolov10_is_the_plain_sum(returns):
    """Totals and items of both heads; top-k 10 and 1."""
    given = heads()
    ways = E2EDetectLoss(Model(), returns=returns), E2EDetectLoss.from_parts(STRIDES, CLASSES, returns=returns)
    many, many_items = parts(returns=returns)(given["one2many"], batch())
    one, one_items = parts(returns=returns, assigner=Assigner(1))(given["one2one"], batch())
    for loss in ways:
        value, items = loss(given, batch())
        torch.testing.assert_close(value, many + one, rtol=2e-7, atol=0)  # the sum in another order
        if returns == "dict":
            assert items == {name: many_items[name] + one_items[name] for name in items}
        else:
            assert torch.equal(items, many_items + one_items)


def test_an_assignment_can_be_replaced():
    """It is a plain object of tensors."""
    assigned = parts().assign(levels(), batch())
    assert replace(assigned, score=assigned.metric).score is assigned.metric
