"""Cases and vector files: what they contain, what they refuse, how they are printed."""

import json
import re

import pytest
import torch
from pydantic import ValidationError

from properties.v5.case import Case, FormulaLogits, GivenLogits, Override, SeededLogits
from yololoss.harness.cases.vectors import make_vector, read_vectors, write_vectors
from yololoss.harness.errors import BadFile

CASE = Case(
    batch=2,
    classes=1,
    grids=((1, 2),),
    strides=(8.0,),
    anchors=(((1.0, 2.0),),),
    targets=((0.0, 0.0, 0.1, 0.5, 0.3, float("nan")),),
    predictions=SeededLogits(
        seed=3, overrides=(Override(layer=0, image=1, anchor=0, row=0, column=1, channel=4, value=7.0),)
    ),
)

GOOD = CASE.changed(targets=((0.0, 0.0, 0.1, 0.5, 0.3, 0.4),))  # with targets that no loss refuses


def test_seeded_logits_are_the_published_formula():
    """splitmix64 computed in Python's integers, by the formula of golden/README.md."""

    def splitmix64(n: int) -> int:
        mask = 2**64 - 1
        z = (n + 1) * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    logits = SeededLogits(seed=5, scale=2.0, offset=1.0).layer(3, (7,))
    want = [((splitmix64(5 * 2**32 + 3 * 2**28 + k) >> 40) / 2**23 - 1) * 2.0 + 1.0 for k in range(7)]
    assert logits.tolist() == want
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output of splitmix64 with seed 0


def test_overrides_are_laid_over_the_bulk():
    """One logit is set by hand, all others come from the seed."""
    bulk = CASE.changed(predictions=SeededLogits(seed=3)).logits[0]
    changed = (CASE.logits[0] != bulk).nonzero().tolist()
    assert changed == [[1, 0, 0, 1, 4]]
    assert CASE.logits[0][1, 0, 0, 1, 4] == 7


def test_the_expanded_layout_shares_the_first_images_logits():
    """All images share one memory, so all have the values of image 0."""
    (logits,) = CASE.changed(layout="expanded").logits
    assert torch.equal(logits[0], logits[1])


def test_json_keeps_every_bit():
    """NaN and infinities are spelled out, and a case read back is the same."""
    text = CASE.model_dump_json()
    assert '"nan"' in text
    back = Case.model_validate_json(text, strict=False)
    assert back.model_dump_json() == text
    assert torch.equal(back.target_rows.isnan(), CASE.target_rows.isnan())
    spelled = CASE.changed(targets=((0.0, 0.0, float("inf"), float("-inf"), 0.3, 0.1),)).model_dump_json()
    assert '"inf","-inf"'.replace(",", ",") in spelled


def test_a_case_prints_as_a_table():
    """Everything that is needed to check it by hand, and nothing that has its default."""
    case = CASE.changed(hyp=CASE.hyp.model_copy(update={"fl_gamma": 1.5}), targets_dtype="float16")
    assert str(case) == (
        "2 image(s), 1 class(es), float32 predictions, contiguous, float16 targets\n"
        "layer 0: 1 rows x 2 columns, stride 8, anchors 1 x 2 cells\n"
        "target  image  class    x    y    w    h\n"
        "     0      0      0  0.1  0.5  0.3  nan\n"
        "fl_gamma = 1.5\n"
        "logits: from -4 to 4, seed 3\n"
        "  layer 0, image 1, anchor 0, row 0, column 1, channel 4: 7"
    )
    many = CASE.changed(targets=((0.0, 0.0, 0.1, 0.5, 0.3, 0.2),) * 27)
    assert str(many).splitlines()[-4:-2] == [
        "    24      0      0  0.1  0.5  0.3  0.2",
        "and 2 more targets",
    ]
    bare = CASE.changed(targets=(), predictions=SeededLogits(seed=0, scale=0.0, offset=-2.0))
    assert str(bare).splitlines()[2:] == ["no targets", "logits: -2 everywhere"]
    formula = CASE.changed(predictions=FormulaLogits(multiplier=7, increment=1))
    assert str(formula).endswith("logits: by formula, scale 1, offset 0")
    given = CASE.changed(predictions=GivenLogits(layers=((0.5,) * 24,)))
    assert str(given).endswith("logits: 24 given values")
    assert given.logits[0].unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"strides": (8.0, 16.0)}, "expected one entry per layer, got 1, 2, 1"),
        ({"anchors": ((),)}, "the same number, 1 or more, on every layer"),
        ({"predictions": GivenLogits(layers=((0.0,),))}, "layers of [1] values do not fill the shapes"),
        ({"batch": 1}, "override (1, 0, 0, 1, 4) of layer 0 is outside its shape"),
        ({"dtype": "float8"}, "Input should be 'float16', 'bfloat16', 'float32' or 'float64'"),
        ({"colour": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_case_that_cannot_be_is_refused(change, text):
    """The parts of a case must fit each other."""
    with pytest.raises(ValidationError, match=re.escape(text)):
        CASE.changed(**change)


def test_vector_files_are_read_back(tmp_path):
    """A written file reads as what was written."""
    path = tmp_path / "deep" / "file.json"
    write_vectors(path, {"project": "test"}, [make_vector(id="a", case=CASE), make_vector(id="b", law="x", case=CASE)])
    back = read_vectors(path)
    assert [(v.id, v.law) for v in back.vectors] == [("a", None), ("b", "x")]
    assert back.source == {"project": "test"}
    assert str(back.vectors[0].case) == str(CASE)
    write_vectors(path, {}, [])
    assert read_vectors(path).vectors == ()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda t: t[:50], "top level: Invalid JSON: Expecting value"),
        (lambda t: "[]", "top level: Input should be an object"),
        (
            lambda t: t.replace('"batch":2', '"batch":"two"'),
            "vectors.0.case.batch: Input should be a valid integer",
        ),
        (lambda t: t.replace('"version":1', '"version":2'), "version: Input should be 1"),
    ],
)
def test_a_bad_file_gets_one_clear_line(tmp_path, spoil, text):
    """The message names the file, the place in it, and what is wrong."""
    path = tmp_path / "file.json"
    write_vectors(path, {}, [make_vector(id="a", case=CASE)])
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(BadFile) as caught:
        read_vectors(path)
    assert text in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_picture_is_no_file_of_cases(tmp_path):
    """It stands beside the file, and is easily named instead of it."""
    path = tmp_path / "file.png"
    path.write_bytes(b"\x89PNG")
    with pytest.raises(BadFile, match=r"file\.png: is no text; a file of cases is JSON$"):
        read_vectors(path)


def test_a_missing_file_is_told(tmp_path):
    """No such file."""
    with pytest.raises(BadFile, match="cannot be read: No such file or directory"):
        read_vectors(tmp_path / "none.json")


def test_saved_files_follow_the_schema(tmp_path):
    """A saved case is valid under golden/v5/schema.json."""
    jsonschema = pytest.importorskip("jsonschema", reason="in the extra dev")
    path = tmp_path / "file.json"
    write_vectors(path, {"project": "test"}, [make_vector(id="a", case=CASE)])
    from tests.test_package import ROOT  # noqa: PLC0415

    schema = json.loads((ROOT / "golden" / "v5" / "schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)


def test_a_case_becomes_simpler_by_one_setting_at_a_time():
    """So what remains in a minimised case matters, though settings are drawn together."""
    case = CASE.changed(
        hyp=CASE.hyp.model_copy(update={"cls_pw": 2.5, "fl_gamma": 2.0}), dtype="float64", layout="sliced"
    )
    assert list(case.simpler) == ["cls_pw", "fl_gamma", "dtype", "layout"]
    simpler = case.simpler.values()
    assert [each.hyp.cls_pw for each in simpler] == [1.0, 2.5, 2.5, 2.5]
    assert [each.hyp.fl_gamma for each in simpler] == [2.0, 0.0, 2.0, 2.0]
    assert [each.dtype for each in simpler] == ["float64", "float64", "float32", "float64"]
    assert [each.layout for each in simpler] == ["sliced", "sliced", "sliced", "contiguous"]
    assert CASE.simpler == {}
