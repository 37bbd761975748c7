"""What is recorded of a loss, and which differences are reported."""

from dataclasses import replace
from typing import Annotated, get_args, get_origin, get_type_hints

import torch

from properties.shared.test_baseline import test_values_are_the_recorded_ones as judge_values
from properties.v5.case import Options
from properties.v5.recorded import CallResult, Expected, comparisons, write_down
from tests.test_case import GOOD
from yololoss.harness.cases.case import Data
from yololoss.harness.engine.gate import survey
from yololoss.harness.engine.session_summary import Summary
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.prove.certificate import Certificate
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.load import load_loss

BUNDLED = load_loss("yololoss:ComputeLoss", torch.device("cpu"))
TWICE = GOOD.changed(strides=(16.0,), options=Options(autobalance=True, calls=2))


def differences(before, now):
    """The recorded values that differ now."""
    return [each.what for each in comparisons(TWICE, write_down(before), now) if each.differs.any()]


def test_what_is_as_it_was_differs_in_nothing():
    """In a second run, rows, values and gradients equal the recorded ones."""
    outcome = execute(BUNDLED, TWICE)
    assert outcome.calls
    assert differences(outcome, execute(BUNDLED, TWICE)) == []


def test_another_shape_ends_its_part():
    """If the total has another shape, or the balance another length, their numbers are not compared too."""
    outcome = execute(BUNDLED, TWICE)
    first, second = outcome.calls
    bare = replace(outcome, calls=(replace(first, total_shape=(), total=2.0), second))
    assert differences(outcome, bare) == ["shapes and dtypes of call 0"]
    short = replace(outcome, calls=(replace(first, state=(1.0,)), second))
    assert differences(outcome, short) == ["length of the balance after call 0"]


def test_a_law_of_baselines_can_be_run_as_a_plain_function():
    """It judges the recorded cases of the subject that it is given."""
    recorded = {GOOD: write_down(execute(BUNDLED, GOOD))}
    judge_values(replace(BUNDLED, recorded=recorded))


def test_a_loss_whose_process_ends_is_told_by_its_last_words(tmp_path):
    """The laws are surveyed in another process; if it ends without an answer, its last line is reported."""
    (tmp_path / "ends.py").write_text("import os, sys; sys.stderr.write('enough'); sys.stderr.flush(); os._exit(3)")
    verdict = survey(f"{tmp_path}/ends.py:Loss")
    assert verdict.status == 2
    assert verdict.problem == f"{tmp_path}/ends.py:Loss: its process printed 'enough'"


def test_what_is_no_number_is_read_again():
    """NaN and infinity go into a file and come back, also in a balance that autobalance ruined."""
    call = CallResult(total=float("nan"), box=float("inf"), balance_after=(float("-inf"), float("nan"), 1.0))
    text = Expected(calls=(call,)).model_dump_json()
    assert '"balance_after":["-inf","nan",1.0]' in text
    assert Expected.model_validate_json(text).model_dump_json() == text


def kinds(base=Data):
    """All types of data that files and output are made of."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def plain(hint):
    """Whether a field takes a float of which nobody says whether it may be NaN or infinite."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0] is not float and plain(get_args(hint)[0])
    return hint is float or any(map(plain, get_args(hint)))


def test_every_float_of_every_file_comes_back():
    """It is finite, or written as a word if it is not. Times and the estimates of a risk are finite anyway."""
    hints = {kind: get_type_hints(kind, include_extras=True) for kind in kinds()}
    assert {CallResult, Verdict, Summary, Certificate} <= set(hints)
    found = {f"{kind.__name__}.{name}" for kind, of in hints.items() for name in kind.model_fields if plain(of[name])}
    times = {"Certificate.seconds", "State.used", "Summary.seconds", "Summary.processor", "Verdict.seconds"}
    assert found == {*times, "Risk.estimate", "Risk.at_most"}
