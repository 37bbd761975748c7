"""Losses of two heads, as the family of task-aligned losses judges them."""

import pytest
import torch

from properties.tal import FAMILY
from properties.tal.case import Case, Head
from properties.tal.dialects import UPSTREAM
from properties.tal.forms import ClassSubject, as_batch, silent
from properties.tal.reference import Reference, weight_of
from properties.tal.strategies import HEADS, STANDARD, USUAL
from tests.judging import breaks, made, on_its_device
from yololoss import E2ELoss
from yololoss.harness.cases.domain import domains
from yololoss.harness.engine.plan import Plan
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import load_loss

LOSSES = {"E2ELoss": "YOLO26", "E2EDetectLoss": "YOLOv10"}
CPU = torch.device("cpu")


def of_head(name: str, **fields) -> Case:
    """The usual case as that of a head."""
    return USUAL.changed(head=Head(name=name, **fields))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_two_heads_is_recognised(name: str):
    """By what it takes, and by its top-k and weights."""
    found = FAMILY.recognise(load_loss(f"yololoss:{name}", CPU, "upstream"), None)
    assert found.dialect == UPSTREAM.but(heads=LOSSES[name], corner="kept")
    assert found.explained == found.tried >= 10
    (subject,) = {type(load_loss(f"yololoss:{name}", CPU).make(USUAL, CPU))}
    assert subject is ClassSubject


@pytest.mark.parametrize("name", LOSSES)
def test_no_law_accuses_a_bundled_loss_of_two_heads(name: str):
    """On the first 40 cases of a gate with another seed than usual: cases of both heads, after some updates."""
    plan = Plan((), on_its_device(f"yololoss:{name}", "cpu", f"yololoss, heads = {LOSSES[name]}"))
    cases = list(made(plan, range(40), seed=5))
    assert {each.case.head.name for each in cases if each.case.head} == {"one2one", "one2many"}
    assert {each.case.head.updates for each in cases if each.case.head} == {0, 1, 3, 9}
    assert not [(raw.told.law, str(raw.case)) for raw in breaks(plan.subject, cases)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("bins", [1, 8])
def test_a_silent_head_adds_exactly_nothing(dtype, bins):
    """The total is what the other head adds, to the last bit, whatever the bins and the dtype."""
    case = USUAL.changed(reg_max=bins, dtype=dtype)
    loss = E2ELoss.from_parts(case.strides, case.classes, case.reg_max)
    p, targets = case.inputs(CPU)
    total, items = loss.one2one(silent(p, case), as_batch(targets))
    assert total.tolist() == [0.0, 0.0, 0.0]
    assert not any(items.values())


def test_each_head_has_its_top_k_and_its_weight():
    """The reference gives a target one anchor in the one-to-one head; the weights are those of SPEC 8."""
    dialect = UPSTREAM.but(heads="YOLO26")
    one, many = (Reference(of_head(name), dialect) for name in ("one2one", "one2many"))
    assert (one.topk, one.topk2, many.topk, many.topk2) == (7, 1, 10, None)
    assert [(one.owner == row).sum() for row in range(3)] == [1, 1, 1]
    weights = {updates: weight_of(Head(name="one2many", updates=updates)) for updates in (0, 1, 99, 1000)}
    assert weights == pytest.approx({0: 0.8, 1: 0.8 - 0.7 / 99, 99: 0.1, 1000: 0.1})
    assert {weight_of(h) + weight_of(h.model_copy(update={"name": "one2many"})) for h in HEADS[::2]} == {1.0}
    assert Reference(of_head("one2one"), UPSTREAM.but(heads="YOLOv10")).batch == USUAL.batch


def test_the_items_of_a_silent_head_are_left_out():
    """Those of YOLO26 are the one-to-one head's alone."""
    loss = load_loss("yololoss:E2ELoss", CPU, "yololoss, heads = YOLO26")
    items = {name: execute(loss, of_head(name)).calls[0].items for name in ("one2one", "one2many")}
    assert [len(each) for each in items.values()] == [3, 0]


def test_a_case_of_a_head_is_for_losses_of_two_heads():
    """Others do not answer it, nor do those of two heads answer a case with a top-k of its own."""
    two = UPSTREAM.but(heads="YOLO26")
    assert FAMILY.excludes(two, of_head("one2one")) is None
    assert FAMILY.excludes(UPSTREAM, of_head("one2one")) == "predictions of one of two heads"
    assert FAMILY.excludes(two, USUAL.changed(topk=3)) == "a top-k, which losses of two heads have by themselves"
    few = of_head("one2one").changed(grids=((2, 4),), strides=(8.0,))
    assert FAMILY.excludes(two, few) == "8 anchors: losses of this dialect need as many as their top-k"


def test_a_case_of_a_head_is_drawn_told_and_simplified():
    """A domain draws it only for a dialect of two heads; all bytes 0 give the simplest."""
    (domain,) = domains(STANDARD)
    narrowed = domain.narrowed(UPSTREAM.but(heads="YOLO26"))
    case = narrowed.case(bytes(narrowed.size))
    assert (case.head, case.topk) == (Head(), None)
    assert narrowed.holds(case)
    assert not domain.holds(case)
    assert domain.case(bytes(domain.size)).head is None
    assert "predictions of one2one, after 0 updates of 100 epochs" in str(case)
    assert case.simpler["head"].head is None
