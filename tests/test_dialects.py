"""Dialects: their text, their options, and a loss of each, on which the gate breaks no law."""

import random

import pytest
import torch
from pydantic import ValidationError

from properties.v5.dialects import DIALECTS, UPSTREAM, Dialect
from tests.all_laws import V5
from tests.judging import gate
from tests.subjects.chosen import name_of
from yololoss.harness.config import read_config
from yololoss.harness.engine.plan import Plan
from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.dialect import read_dialect, write_dialect
from yololoss.harness.subjects.load import load_loss

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
)
FEW = 6  # cases


def read(text):
    return read_dialect(text, DIALECTS, "upstream")


def broken(text, cases):
    """The laws that break on a loss of that dialect."""
    plan = Plan((), load_loss(f"tests.subjects.chosen:{name_of(text)}", CPU, text))
    return [str(raw.told.broken(plan.laws[raw.told.law], raw.case)) for raw in gate(plan, cases)]


def test_every_choice_has_an_option_that_is_tried():
    """But what only the bundled loss promises."""
    tried = {text.partition(" =")[0] for text in OTHERS}
    assert tried == set(Dialect.model_fields) - {"interface", "bad_input"}
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


@pytest.mark.parametrize("text", [*(name for name in DIALECTS if name != "yololoss"), *OTHERS])
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
