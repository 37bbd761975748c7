"""Case, vector and settings files are data: 200 malformed ones each give one line; nothing in them is run."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from properties.v5.case import LARGEST as LARGEST_CASE
from tests.test_cli import run
from yololoss.harness.cases.files import LARGEST

GOOD: dict[str, Any] = {
    "format": "yololoss-vectors",
    "version": 1,
    "source": {"project": "x"},
    "vectors": [
        {
            "id": "a",
            "law": "totals.sum",
            "case": {
                "batch": 1,
                "classes": 2,
                "grids": [[2, 3]],
                "strides": [8.0],
                "anchors": [[[1.0, 1.5]]],
                "targets": [[0.0, 1.0, 0.5, 0.5, 0.2, 0.3]],
                "hyp": {"box": 0.05},
                "options": {"calls": 1},
                "predictions": {"kind": "seed", "seed": 3, "overrides": []},
            },
        }
    ],
}
# Where in the file, and what is put there.
CASE = ("vectors", 0, "case")
PLACES = {
    (): ([], "x", 3, None),
    ("format",): ("other", 1, None, ["yololoss-vectors"]),
    ("version",): (2, 0, "1", None, 1.5, [1]),
    ("source",): (None, "x", {"project": 3}, []),
    ("vectors",): (None, "x", {}, [3], [[]], [None]),
    ("vectors", 0, "id"): (3, None, ["a"]),
    ("vectors", 0, "law"): (3, ["totals.sum"], {}),
    ("vectors", 0, "flags"): ("x", [3], {}),
    ("vectors", 0, "case"): (None, 3, [], "x"),
    (*CASE, "batch"): (0, -1, 1.5, "nan", "1", None, True, 10**12, 10**400, [1]),
    (*CASE, "classes"): (0, -3, 2.5, "nan", "2", None, False, 10**12),
    (*CASE, "grids"): ([], [[2]], [[2, 3, 4]], [[0, 3]], [["nan", 3]], [[2, 3], [1, 1]], [[10**9, 10**9]], "x", None),
    (*CASE, "strides"): ([], [0.0], [-8.0], ["nan"], ["inf"], [8.0, 16.0], "x", None, [[8.0]]),
    (*CASE, "anchors"): ([], [[]], [[[1.0]]], [[[0.0, 1.0]]], [[[-1.0, 1.0]]], [[["nan", 1.0]]], "x", None),
    (*CASE, "targets"): ([[0.0] * 5], [[0.0] * 7], [["x"] * 6], [3], "x", None, [[None] * 6], [[True] * 6]),
    (*CASE, "dtype"): ("float8", 3, None, ["float32"]),
    (*CASE, "targets_dtype"): ("bfloat16", "int8", 3),
    (*CASE, "layout"): ("sideways", 3, None),
    (*CASE, "hyp"): (3, {"boxx": 1.0}, {"box": "nan"}, {"box": -1.0}, {"cls_pw": 0.0}, {"label_smoothing": 2.0}),
    (*CASE, "options"): (
        3,
        {"cals": 1},
        {"calls": 0},
        {"calls": 10**9},
        {"gr": 2.0},
        {"gr": "nan"},
        {"autobalance": 1},
    ),
    (*CASE, "predictions"): (
        None,
        3,
        {},
        {"kind": "pickle", "data": "gASVJ..."},
        {"kind": "seed"},
        {"kind": "seed", "seed": -1},
        {"kind": "seed", "seed": 2**40},
        {"kind": "seed", "seed": "nan"},
        {"kind": "seed", "seed": 1, "scale": "inf"},
        {"kind": "seed", "seed": 1, "more": 1},
        {"kind": "formula", "multiplier": 10**30, "increment": 0},
        {"kind": "formula", "multiplier": 1.5, "increment": 0},
        {"kind": "values", "layers": []},
        {"kind": "values", "layers": [[0.0] * 5]},
        {"kind": "values", "layers": [["x"] * 42]},
    ),
    (*CASE, "unknown"): (1, None),
    ("unknown",): (1, None),
    ("vectors", 0, "unknown"): (1,),
    ("vectors", 0, "expected"): (
        3,
        {"built": 3},
        {"calls": [{"total": "x"}]},
        {"calls": [{}]},
        {"gradients": [{"cells": []}]},
        {"gradients": [{"cells": [[0]], "values": [], "obj_sum": 0.0, "obj_abs_sum": 0.0}]},
        {"raised": 3},
        {"more": 1},
    ),
}
OVERRIDE = {"layer": 0, "image": 0, "anchor": 0, "row": 0, "column": 0, "channel": 0, "value": 1.0}
OVERRIDES = [
    *({**OVERRIDE, name: bad} for name in OVERRIDE if name != "value" for bad in (-1, 99, 0.5, "nan")),
    {**OVERRIDE, "value": "x"},
    {**OVERRIDE, "value": None},
    {**OVERRIDE, "more": 1},
    {},
    3,
]


def changed(place: tuple[Any, ...], value: Any, base: dict[str, Any] = GOOD) -> str:
    file = copy.deepcopy(base)
    if not place:
        return json.dumps(value)
    at = file
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return json.dumps(file)


def malformed() -> Iterator[str]:
    """Texts of files that are no vector files."""
    for place, values in PLACES.items():
        yield from (changed(place, value) for value in values)
    yield from (changed((*CASE, "predictions", "overrides"), [override]) for override in OVERRIDES)
    text = json.dumps(GOOD)
    yield from (text[: len(text) * n // 20] for n in range(20))
    yield from (text.replace(old, new) for old, new in (("1.5", "NaN"), ("1.5", "1e999"), (",", ";"), ("1.0", "1.0.0")))
    yield from ("[" * 100_000, '{"a":' * 100_000, text + text, "\x00" * 50, "﻿", '{"vectors": ' + "[" * 5000)
    yield from (f"{text}x", text.replace("}", "]"), "!!python/object/apply:os.system ['true']")


MALFORMED = [text for text in malformed() if text]
SETTINGS = (
    "[tool.yololoss",
    "[tool.yololoss]\nloss = 3",
    "[tool.yololoss]\nlos = 'x'",
    "[tool.yololoss]\nfamily = ['upstream']",
    "[tool.yololoss]\nbaseline = true",
    "[tool.yololoss]\nbaseline = 'gone.json'",
    "[tool.yololoss]\ndevice = 'gpu'",
    "[tool.yololoss]\nloss = 'a.py:A'\nloss = 'b.py:B'",
    "[tool.yololoss]\nwaivers = 3",
    "[tool.yololoss]\nwaivers = [3]",
    "[[tool.yololoss.waivers]]\nlaw = 'totals.sum'",
    "[[tool.yololoss.waivers]]\nlaw = 3\nreason = 'x'",
    "[[tool.yololoss.waivers]]\nlaw = 'totals.sum'\nreason = ''",
    "[[tool.yololoss.waivers]]\nlaw = 'totals.sum'\nreason = 'x'\nexpires = 'soon'",
    "[[tool.yololoss.waivers]]\nlaw = 'totals.sum'\nreason = 'x'\nexpires = 2001-01-01",
    "[[tool.yololoss.waivers]]\nlaw = 'totals.sun'\nreason = 'x'",
    "[tool]\nyololoss = 'x'",
    "tool = " + "[" * 5000,
    "a = nan\n[tool.yololoss]\nloss = nan",
)


def one_line(status: int, errors: str) -> str:
    """The one line that the command must print."""
    assert status == 2, errors
    (line,) = errors.strip().splitlines()
    return line


def test_there_are_two_hundred_and_a_good_one(tmp_path):
    """There are enough texts, and none is refused for a part that all of them have."""
    assert len(MALFORMED) + len(SETTINGS) >= 200
    (tmp_path / "good.json").write_text(json.dumps(GOOD), encoding="utf-8")
    assert run("replay", "good.json", cwd=tmp_path)[:2] == (0, "good.json: fixed\n")


@pytest.mark.parametrize("part", range(8))
def test_malformed_files_are_told_in_one_line(tmp_path, part):
    """The message names the file, the place in it, and what is wrong; exit status 2."""
    for n, text in enumerate(MALFORMED[part::8]):
        path = tmp_path / f"{n}.json"
        path.write_text(text, encoding="utf-8")
        status, output, errors = run("draw", path.name, "-o", "a.png", cwd=tmp_path)
        assert one_line(status, errors).startswith(f"yololoss: {path.name}: "), text[:200]
        assert len(errors) < 400
        assert output == ""
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("text", SETTINGS)
def test_malformed_settings_are_told_in_one_line(tmp_path, text):
    """The same for pyproject.toml."""
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    status, _, errors = run("check", "--laws", "totals.sum", "--workers", 1, cwd=tmp_path)
    last = errors.strip().splitlines()[-1]
    assert status == 2, errors
    assert last.startswith("yololoss: ")
    assert len([line for line in errors.strip().splitlines() if line.startswith("yololoss: ")]) == 1
    assert "Traceback" not in errors


def test_a_file_of_no_reasonable_size_is_not_read(tmp_path):
    """Its size is checked first. A case may be too large as well, and is refused before its tensors are made."""
    with (tmp_path / "huge.json").open("wb") as huge:
        huge.truncate(LARGEST + 1)
    status, _, errors = run("draw", "huge.json", cwd=tmp_path)
    assert one_line(status, errors) == f"yololoss: huge.json: {LARGEST + 1} bytes, expected {LARGEST} at most"
    Path(tmp_path / "wide.json").write_text(changed((*CASE, "grids"), [[10**5, 10**5]]), encoding="utf-8")
    status, _, errors = run("draw", "wide.json", cwd=tmp_path)
    assert f"70000000000 logits, expected {LARGEST_CASE} at most" in one_line(status, errors)
