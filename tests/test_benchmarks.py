"""The comparison of benchmarks, and the recorded ratios that the docs state."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import PAGE, RATIOS, RECORDED, complaints
from benchmarks.against import in_turn, quartiles, table
from benchmarks.memory import beyond_the_gradient
from benchmarks.settings import LOSSES, USUAL, Setting
from benchmarks.tal import report

RATIO = "step, loss / floor"


@pytest.fixture(scope="module")
def recorded():
    """The ratios of the settings that continuous integration measures."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def test_a_ratio_that_is_half_as_large_again_is_told(recorded):
    """One line with setting, ratio, figure and record; a ratio that is only a little worse is not reported."""
    name = str(USUAL)
    worse = {name: {**recorded[name], RATIO: 1.6 * recorded[name][RATIO]}}
    (line,) = complaints(worse, recorded)
    assert line.startswith(f"{name}: {RATIO} is ")
    assert line.endswith(f"; it was {recorded[name][RATIO]:.2f}")
    assert list(complaints({name: {**recorded[name], RATIO: 1.4 * recorded[name][RATIO]}}, recorded)) == []


def test_every_ratio_of_the_usual_setting_is_recorded(recorded):
    """No setting can be left out unnoticed."""
    assert {setting: set(ratios) for setting, ratios in recorded.items()} == {
        str(USUAL): {f"{what}, {a} / {b}" for what, a, b in RATIOS}
    }


def test_the_docs_promise_what_was_measured(recorded):
    """At the usual setting a step takes at most 1.4 times the floor, and less than half of the plain loss's time."""
    usual = recorded[str(USUAL)]
    assert usual[RATIO] <= 1.4
    assert usual["step, loss / plain"] <= 1 / 2.3
    assert f"**{usual[RATIO]:.2f} times the floor**" in PAGE.read_text(encoding="utf-8")


def test_a_step_holds_little_beyond_its_gradient():
    """Less than a tenth of the predictions' size, checks on or off; autograd's own gradients take half of it."""
    shares = {name: beyond_the_gradient(name, Setting(batch=4, side=320, targets=28)) for name in LOSSES}
    assert 0 < shares["loss"] < 0.1
    assert 0 < shares["loss, checks off"] < 0.1
    assert shares["plain"] > 0.5


def test_another_loss_is_timed_beside_ours():
    """In one process and in turn, with the quartiles of the ratios in all rounds."""
    turns = []
    took = in_turn({"one": lambda: turns.append(1), "two": lambda: turns.append(2)}, rounds=3)
    assert (turns, [len(seconds) for seconds in took.values()]) == ([1, 2] * 4, [3, 3])
    assert quartiles(np.array([1.0, 2.0, 4.0])) == "2.00 (1.50 to 3.00)"
    (*_, row) = table("tests.subjects.in_place:InPlace", settings=[Setting(batch=1, side=32, classes=1, targets=1)])
    assert row.startswith("| batch 1, 32 px, 1 classes, 1 targets | ")
    assert row.count(" to ") == 2


def test_the_task_aligned_loss_is_timed_beside_others():
    """One row of each setting with a ratio for each of the others, and one of memory for each loss; ours is 1."""
    settings = [Setting(batch=1, side=64, classes=1, targets=2)]
    lines = list(report("tests.subjects.plain_tal:PlainTal", settings, Setting(batch=4, side=320, targets=400)))
    (row,) = (line for line in lines if line.startswith("| batch 1, 64 px"))
    assert row.count(" to ") == 2
    held = {name: float(times) for name, times in (line[2:-2].split(" | ")[::2] for line in lines[-3:])}
    assert held["loss"] == 1.0
    assert held["plain"] == held["other"] > 0.5  # alike in so small a setting
