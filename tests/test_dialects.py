"""Dialects: their text, their options, a loss of each on which the gate breaks no law, and how they are recognised."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from properties.v5 import own
from properties.v5.dialects import DIALECTS, UPSTREAM, Dialect
from properties.v5.strategies import Domain
from properties.v5.trials import SHARED, case_of
from tests.all_laws import LAWS, V5
from tests.judging import gate
from tests.subjects.chosen import name_of, single
from tests.subjects.pasted import FORMULAS, NAMES
from tests.subjects.told import alike
from yololoss.harness.config import Settings, read_config
from yololoss.harness.engine.held import _told, held_to
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.dialect import Recognised, read_dialect, write_dialect
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import load_loss
from yololoss.harness.subjects.subject import Unsupported

CPU = torch.device("cpu")
# An option of each choice that is not upstream's.
OTHERS = (
    "neighbours = own-half",
    "cell = clamp-after",
    "cell = none",
    "row_order = anchor-choice-target",
    "row_order = any",
    "overlap = diou",
    "overlap = giou",
    "overlap = iou",
    "overlap_form = yolov5-master",
    "overlap_form = yolov5-6.2",
    "overlap_form = yolov5-5.0",
    "overlap_form = yolov7",
    "overlap_form = yolov5-3.1",
    "overlap_form = yolov5-3.0",
    "overlap_eps = 0.001",
    "overlap_range = clamped",
    "layer_scale = box and class",
    "layer_scale = all",
    "objectness_gain = 1.4 at 4",
    "objectness_gain = 1.4 from 4",
    "balance = 1",
    "balance = [4, 1, 0.3, 0.1, 0.03]",
    "balance = {'3': [4, 1, 0.5], 'else': 2}",
    "smoothing = ignored",
    "smoothing = over classes",
    "batch = plain",
    "shared_cells = largest",
    "positive_weights = ignored",
    "focal = ignored",
    "target_dtype = float32",
    "drop_in = no",
    "class_weights = [0.5, 2]",
    "item_order = classes first",
    "box_gain = giou",
    "classes = 2",
    "layers = 3",
)
FEW = 6  # cases
CASE = case_of(SHARED)


def read(text):
    return read_dialect(text, DIALECTS, "upstream")


def broken(text, cases):
    """The laws that break on a loss of that dialect."""
    plan = Plan((), load_loss(f"tests.subjects.chosen:{name_of(text)}", CPU, text))
    return [str(raw.told.broken(plan.laws[raw.told.law], raw.case)) for raw in gate(plan, cases)]


def test_every_choice_has_an_option_that_is_tried():
    """But what only the bundled loss promises, and an added term, of which `tests.subjects.pasted` has losses."""
    tried = {text.partition(" =")[0] for text in OTHERS}
    assert tried == set(Dialect.model_fields) - {"interface", "bad_input", "float64", "added_term", "overlap_numbers"}
    assert all(field.description for field in Dialect.model_fields.values())


@pytest.mark.parametrize("text", [*DIALECTS, *OTHERS])
def test_a_dialect_is_written_as_it_is_read(text):
    """The shortest text: a known name, with what differs."""
    dialect = read(text)
    written = write_dialect(dialect, DIALECTS)
    assert read(written) == dialect
    assert written.count("=") <= 1
    assert DIALECTS[text] == dialect if text in DIALECTS else written in (f"upstream, {text}", *DIALECTS), written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("yolov5-6", "--dialect yolov5-6: no such dialect; did you mean 'yolov5-6.2'? (known: upstream, "),
        ("balanse = 1", "--dialect: no such choice as 'balanse'; did you mean 'balance'? (known: neighbours, cell, "),
        ("upstream, yolor", "--dialect: no such choice as 'yolor'"),
        ("smoothing = none", "--dialect: smoothing = none: Input should be 'half', 'ignored' or 'over classes'"),
        ("upstream, balance = [4, -1]", "--dialect: balance = [4, -1]: Input should be greater than 0"),
        ("overlap_eps = tiny", "--dialect: overlap_eps = tiny: Input should be a valid number"),
    ],
)
def test_what_is_written_wrong_is_told_in_one_line(text, told):
    """With the closest match, or the options."""
    with pytest.raises(UsageError) as error:
        read(text)
    assert str(error.value).startswith(told)
    assert len(str(error.value).splitlines()) == 1


def test_the_settings_take_a_table(tmp_path):
    """Choices as TOML values; ``like`` is the dialect that they differ from."""
    (tmp_path / "yololoss.toml").write_text(
        "[dialect]\nlike = 'yolov5-6.1'\nbalance = {3 = [4, 1.0, 0.3], else = 1}\nsmoothing = 'ignored'\n",
        encoding="utf-8",
    )
    text = read_config(tmp_path).dialect
    assert text is not None
    found = read(text)
    assert (found.overlap_form, found.smoothing) == ("yolov5-5.0", "ignored")
    assert (found.balance_of(3), found.balance_of(2)) == ((4.0, 1.0, 0.3), (1.0, 1.0))


def test_a_dialect_is_checked_when_it_is_made():
    """It is data like a case."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Dialect(balanse=1)


def mostly_slow(names):
    """Every fourth is quick."""
    return [name if n % 4 == 0 else pytest.param(name, marks=pytest.mark.slow) for n, name in enumerate(names)]


@pytest.mark.parametrize("text", mostly_slow([*(name for name in DIALECTS if name != "yololoss"), *OTHERS]))
def test_no_law_breaks_on_a_loss_of_its_dialect(text):
    """A few cases for each; `.ci/run` judges more."""
    assert broken(text, range(FEW)) == []


@pytest.mark.slow
def test_no_law_breaks_on_losses_of_random_dialects():
    """Several choices at once."""
    chance = random.Random(0)
    for number in range(6):
        picked = {text.partition(" =")[0]: text for text in chance.sample(OTHERS, 8)}
        assert broken(", ".join(picked.values()), range(100 * number, 100 * number + 60)) == []


def test_a_choice_of_another_dialect_is_noticed():
    """A loss is held to its own options: with another one, some law breaks."""
    for text in ("balance = 1", "smoothing = ignored", "neighbours = own-half", "batch = plain"):
        plan = Plan((), load_loss(f"tests.subjects.chosen:{name_of(text)}", CPU, "upstream"))
        assert next(gate(plan, range(400)), None) is not None
    assert V5.dialects["upstream"] == UPSTREAM


FIRST = (
    "yolov5-3.1",
    "okery",
    "yolov7",
    "item_order = classes first",
    "overlap_eps = 0.001",
    "balance = {'3': [4, 1, 0.5], 'else': 2}",
)
REST = [name for name in DIALECTS if name not in (*FIRST, "yololoss")]  # all options: `tests.recognition`


def recognised(name, named=None):
    """What is found of a loss of tests.subjects."""
    return V5.recognise(load_loss(f"tests.subjects.{name}", CPU), None if named is None else read(named))


@pytest.mark.parametrize("text", [*FIRST, *(pytest.param(text, marks=pytest.mark.slow) for text in REST)])
def test_a_loss_is_recognised(text):
    """Its dialect, or one that no case tells from it; and that dialect explains other cases."""
    found = recognised(f"chosen:{name_of(text)}")
    assert alike(found.dialect, read(text)), write_dialect(found.dialect, DIALECTS)
    assert not found.unexplained
    assert found.explained == found.tried > 0
    assert found.sure


@pytest.mark.slow
@pytest.mark.parametrize("text", ["yolov5-6.1", "yolov7", "yolov5-4.0"])
def test_a_loss_is_recognised_though_it_rounds_its_edges(text):
    """In float32, where a side is the difference of two edges, an epsilon of 1e-7 is as large as rounding."""
    found = recognised(f"chosen:{single(text)}")
    assert alike(found.dialect, read(text)), write_dialect(found.dialect, DIALECTS)


def test_weights_of_classes_are_recognised():
    """Those of a pasted loss, which answers to as many classes alone."""
    found = recognised("pasted:WeightedClasses")
    assert write_dialect(found.dialect, DIALECTS) == "upstream, class_weights = [0.5, 2, 1.25]"
    assert found.sure


def test_a_loss_may_be_tied_to_its_sizes():
    """It is recognised, and no law has cases of other sizes; those with one class alone have none."""
    text = "upstream, classes = 5, layers = 3"
    assert write_dialect(recognised(f"chosen:{name_of(text)}").dialect, DIALECTS) == text
    laws = ("assign", "totals", "classes.one-class", "run.no-exception")
    plan = Plan(laws, load_loss(f"tests.subjects.chosen:{name_of(text)}", CPU, text))
    cases = [plan.case(plan.usual(number)) for number in range(60)]
    assert {(case.classes, case.layers) for case in cases} == {(5, 3)}
    assert {domain.large for domain in plan.domains} == {()}
    assert not [*gate(plan, range(60))]
    usual = LAWS["run.cost-of-targets"].own(plan.subject)
    assert [case.classes for case in usual] == [5] * len(usual) != []
    large = Domain(large=("classes", "rows"))
    assert large.narrowed(read("upstream, classes = 1")) == replace(large, classes=(1,), large=("rows",))
    assert large.narrowed(read("upstream, classes = 1")).case(bytes(large.size)).classes == 1


@pytest.mark.slow
def test_random_dialects_are_recognised():
    """Several choices at once. `tests.recognition` tries 200."""
    chance = random.Random(1)
    for _ in range(4):
        picked = {text.partition(" =")[0]: text for text in chance.sample(OTHERS[:-1], 6)}
        text = ", ".join(picked.values())
        assert alike(recognised(f"chosen:{name_of(text)}").dialect, read(text)), text


def test_a_named_dialect_is_held_to():
    """Only what the loss contradicts is another: not what no case tells apart, nor what it promises."""
    assert recognised(f"chosen:{name_of('yolov5-3.1')}", "yolov5-3.1, drop_in = yes").dialect == read(
        "yolov5-3.1, drop_in = yes"
    )
    named = "yolov5-master, row_order = any"
    found = recognised(f"chosen:{name_of('upstream, smoothing = ignored')}", named)
    assert found.dialect == read(f"{named}, smoothing = ignored")
    for weights in ("", ", class_weights = [2, 1, 3]"):
        found = recognised("pasted:WeightedClasses", f"upstream{weights}")
        assert found.dialect.class_weights == (0.5, 2.0, 1.25)


@pytest.mark.parametrize(
    ("name", "choice", "told"),
    [
        ("NoNeighbours", "neighbours", "other cells are assigned than any option says"),
        (
            "Raises",
            "all",
            "the loss gave no gradient: IndexError: index 8 is out of bounds for dimension 3 with size 8",
        ),
        ("Hangs", "all", "the loss did not return within 3 s"),
    ],
)
def test_a_fault_is_no_choice(name, choice, told):
    """What no option explains is told, and changes nothing."""
    found = recognised(f"faulty:{name}")
    assert found.dialect == UPSTREAM
    assert not found.sure
    assert found.unexplained[choice] == told


def held(loss, dialect=None):
    """What a loss is held to."""
    chosen = Settings(loss=f"tests.subjects.{loss}", device="cpu", dialect=dialect, baseline=None)
    return held_to(chosen, load_loss(chosen.loss, CPU, dialect))


def test_what_a_loss_is_held_to_is_told():
    """How sure it is, and what to write; of a named dialect only what is contradicted."""
    told = held(f"chosen:{name_of('class_weights = [0.5, 2]')}")
    assert (told.dialect, told.looked) == ("upstream, class_weights = [0.5, 2]", True)
    assert told.about == (
        "dialect: upstream, class_weights = [0.5, 2] (not sure: it explains 3 of 3 other cases)",
        "  smoothing: over classes would fit as well",
        "  if it is not meant so, --dialect upstream tells what is wrong; to hold the loss to it, write in the "
        'settings: dialect = "upstream, class_weights = [0.5, 2]"',
    )
    found = Recognised(UPSTREAM, {}, {"gain": "all cases have other results"}, explained=0, tried=21)
    assert _told(found, "upstream", "upstream") == (
        "dialect: none that is known fits, as in all of 21 other cases the loss has other results; it is judged by "
        "upstream",
    )
    told = held("plain:PlainLoss", "batch = plain")
    assert (told.dialect, told.looked) == ("upstream", True)
    assert told.contradicted == {"the dialect has batch = plain; the loss has batch = times": "upstream"}
    rule = "as it stands this is the rule of upstream, yololoss, yolov5-master and 15 more dialects"
    assert told.meant == {"upstream": f"{rule}; if that is meant, use --dialect upstream"}
    other = "the dialect has overlap = nwd; the loss has overlap = own"
    assert held("pasted:NWD", "overlap = nwd, overlap_numbers = [3, 0.5]").contradicted[other] == ""
    assert held("faulty:NoNeighbours").about[1].startswith("  neighbours: not explained, other")


def test_a_loss_that_cannot_be_looked_at_is_held_to_the_usual(monkeypatch):
    """It ends the process, or takes too long; or its family cannot tell."""
    why = "the loss ended its process when it was looked at"
    assert held("faulty:ExitsForGood").about == (f"dialect: upstream, since {why}",)
    monkeypatch.setattr("yololoss.harness.engine.held.LIMIT", 0.0)
    assert (
        held("plain:PlainLoss").about[0].startswith("dialect: upstream, since the loss, when it was looked at, did not")
    )


@pytest.mark.parametrize(
    ("name", "overlap"),
    [
        ("MPDIoU", "own"),
        ("SIoU", "siou"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("WiseIoU", "wise-iou"), ("NWD", "own"))),
    ],
)
def test_an_overlap_of_another_formula_is_taken_from_the_loss(name, overlap):
    """It is told, by its name if it has one; the rest is recognised and judged; a fault beside it is noticed."""
    found = recognised(f"pasted:{name}")
    assert write_dialect(found.dialect, DIALECTS) == f"upstream, overlap = {overlap}"
    assert list(found.unexplained) == (["overlap"] if overlap == "own" else [])
    if overlap == "own":  # NWD is mixed with CIoU, whose alpha is held constant
        assert ("its gradient is not that of its value" in found.unexplained["overlap"]) is (name == "NWD")
    assert found.explained == found.tried > 0
    plan = Plan((), load_loss(f"tests.subjects.pasted:{name}", CPU, "overlap = own"))
    assert [str(raw.told.broken(plan.laws[raw.told.law], raw.case)) for raw in gate(plan, range(15))] == []
    for changed, law in (("smoothing = ignored", "classes.item"), ("balance = 1", "objectness.item")):
        plan = Plan((law,), load_loss(f"tests.subjects.pasted:{name}", CPU, f"overlap = own, {changed}"))
        assert next(gate(plan, range(40)), None) is not None, changed


def test_a_part_without_a_gradient_of_an_own_overlap_is_told():
    """The box item moves with logits, and its gradient does not say so. The overlap's own gradient is right."""
    told = recognised("pasted:MovedInVain").unexplained["overlap"]
    assert told.endswith("its gradient is not that of its value: a part is held constant, or rows are weighted")


@pytest.mark.parametrize("name", mostly_slow(NAMES))
def test_a_named_overlap_has_its_formula(name):
    """The loss that was written from the paper has it; with another name, or another number, the law breaks."""
    for text in FORMULAS.values():
        plan = Plan(("boxes.item",), load_loss(f"tests.subjects.pasted:{name}", CPU, f"overlap = {text}"))
        right = text == FORMULAS[name]
        raw = next(gate(plan, range(20 if right else 60)), None)
        assert (raw is None) is right, text


def test_the_numbers_of_a_formula_are_its_own():
    """As many as it has; another overlap does not keep them."""
    with pytest.raises(UsageError, match=r"overlap_numbers = \[1\]: Value error, nwd has 2 numbers"):
        read("overlap = nwd, overlap_numbers = [1]")
    with pytest.raises(UsageError, match="siou has no numbers"):
        read("overlap = siou, overlap_numbers = [1]")
    assert read("overlap = inner-iou").numbers == (0.75,)
    assert read("overlap = inner-iou, overlap_numbers = [0.6]").but(overlap="siou").overlap_numbers == ()


@pytest.mark.parametrize(
    ("name", "option"), [("RepelsBeside", "an item"), pytest.param("Repels", "in the box item", marks=pytest.mark.slow)]
)
def test_an_added_term_is_taken_from_the_loss(name, option):
    """If it is an item, it is found; in the box item it must be named, since it may be a fault as well."""
    text = f"upstream, added_term = {option}"
    found = recognised(f"pasted:{name}")
    if option == "an item":
        assert write_dialect(found.dialect, DIALECTS) == text
    else:
        assert found.dialect == UPSTREAM
        assert found.unexplained["overlap"].endswith(f"a fault, or added_term = {option}")
        found = recognised(f"pasted:{name}", text)
        assert write_dialect(found.dialect, DIALECTS) == text
    assert found.explained == found.tried > 0
    assert not found.unexplained
    plan = Plan((), load_loss(f"tests.subjects.pasted:{name}", CPU, text))
    assert [str(raw.told.broken(plan.laws[raw.told.law], raw.case)) for raw in gate(plan, range(15))] == []
    for changed, law in (("smoothing = ignored", "totals.value"), ("balance = 1", "objectness.item")):
        plan = Plan((law,), load_loss(f"tests.subjects.pasted:{name}", CPU, f"{text}, {changed}"))
        assert next(gate(plan, range(40)), None) is not None, changed


def test_a_loss_without_items_shows_an_added_term_in_its_total(monkeypatch):
    """All that is beside the known terms. A loss that raises shows none."""
    subject = load_loss("tests.subjects.pasted:Repels", CPU, "added_term = in the box item")
    outcome = execute(subject, CASE)
    (value,) = own.measure(subject, CASE, subject.dialect).added
    bare = replace(outcome, calls=tuple(replace(call, items=np.zeros(0)) for call in outcome.calls))
    monkeypatch.setattr(own, "execute", lambda *_: bare)
    assert value > 0.001
    assert own.measure(subject, CASE, subject.dialect).added == (pytest.approx(value, rel=1e-4),)
    monkeypatch.setattr(own, "execute", lambda *_: replace(outcome, calls=()))
    with pytest.raises(Unsupported):
        own.measure(subject, CASE, subject.dialect)
