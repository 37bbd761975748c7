"""Files that a stranger may have made: each is refused in one line, or read; nothing in them reaches beyond that."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from properties.v5.case import LARGEST as LOGITS
from properties.v5.case import LAYERS, PAIRS
from tests.all_laws import ROOT
from tests.hostile import HUGE, NAMES, TEXTS, accepted, huge, many, refused
from tests.test_case import CASE
from tests.test_case import GOOD as VALID
from tests.test_cli import run
from tests.test_files import CASE as PLACE
from tests.test_files import GOOD, changed, one_line
from yololoss.harness.cases import files
from yololoss.harness.cases.files import LARGEST
from yololoss.harness.cases.vectors import as_name, case_name, make_vector, read_vectors, write_vectors
from yololoss.harness.engine.clerk import Record, write_record
from yololoss.harness.engine.journal import ROOM, Journal
from yololoss.harness.engine.judge import Task
from yololoss.harness.engine.raw import read_raw
from yololoss.harness.engine.session import begin, resume
from yololoss.harness.engine.state import Settings
from yololoss.harness.engine.worker import Orders
from yololoss.harness.errors import BadFile, printable, short
from yololoss.harness.findings import draw as drawing
from yololoss.harness.findings.about import about
from yololoss.harness.findings.baseline import baseline_cases
from yololoss.harness.findings.finding import keep
from yololoss.harness.findings.junit import write_junit
from yololoss.harness.findings.report import write_report
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family
from yololoss.harness.subjects.project import LARGEST as LARGEST_SETTINGS

V5 = find_family("v5")
BUNDLED = Settings("yololoss:ComputeLoss", "cpu", laws=("totals.sum",))


def written(folder: Path, text: str, name: str = "a.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("place", [("vectors", 0, "id"), ("vectors", 0, "law"), ("family",)])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_name_is_refused(tmp_path, place, name):
    """An id becomes the name of a file, and is printed: no path, no control character, not too long."""
    written(tmp_path, changed(place, name))
    (tmp_path / "in").mkdir()
    status, output, errors = run("draw", "../a.json", cwd=tmp_path / "in")
    assert f"../a.json: {'.'.join(map(str, place))}: " in one_line(status, errors)
    assert output == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "in"]


def test_names_that_we_make_are_names(tmp_path):
    """Ids of laws, of golden cases, of files with other names, and the longest of all can be read back."""
    names = [*find_laws(V5), *V5.golden(), case_name("x" * 100, CASE), as_name(f"my cases/{'é' * 200}-a")]
    vectors = [make_vector(CASE, id=name) for name in names]
    write_vectors(tmp_path / "a.json", {}, vectors)
    assert [vector.id for vector in read_vectors(tmp_path / "a.json").vectors] == names


def test_a_record_names_cases_of_any_file(tmp_path):
    """An id is made from the name of the file, which may hold anything."""
    path = written(tmp_path, json.dumps(GOOD), "my café (2).json")
    assert "my_caf___2_-a" in baseline_cases(V5, [path])


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_file_says_is_printed_as_it_can_be_seen(tmp_path, text):
    """In a terminal, and as the title of a picture, in one line."""
    written(tmp_path, changed(("vectors", 0, "comment"), text))
    status, output, _ = run("corpus", "list", ".", cwd=tmp_path)
    line, _ = output.splitlines()
    assert (status, line.partition("  ")[2]) == (0, printable(text))
    assert line.isprintable()
    assert run("draw", "a.json", "-o", "a.svg", cwd=tmp_path)[0] == 0
    ElementTree.parse(tmp_path / "a.svg")


def test_what_is_printed_has_an_end():
    """The beginning is enough."""
    assert short("x" * 400) == f"{'x' * 300} ..."
    assert short("a\x00b") == "a\\x00b"


def test_reports_hold_no_control_character(tmp_path):
    """JUnit's file is XML, which forbids them; the page of HTML, and JSON for machines."""
    loss = Task("yololoss:ComputeLoss", "cpu").under_test()
    law = find_laws(V5)["totals.sum"]
    broken = LawBroken(law, CASE, "where", "\x1b[2J\x9b\x00\ufffe<b>", "b\nc", "d")
    finding = keep(broken, loss, tmp_path, {}, drawn=False)
    row = {"id": law.id, "word": "BROKE", "why": "\x07", "tried": 1, "judged": 1, "notes": {}, "not_applicable": {}}
    skipped = {**row, "id": "totals.finite", "word": "waived"}
    verdict = Verdict(status=1, laws=(row, skipped), faults=(finding,), failures=("\x00",))
    write_junit(verdict, tmp_path / "a.xml")
    told = ElementTree.parse(tmp_path / "a.xml").findtext(".//failure")
    assert "expected   \\x1b[2J\\x9b\\x00\\ufffe<b>" in str(told)
    write_report(verdict, about(loss, "cpu", "\x1b"), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "\\x1b[2J\\x9b\\x00\\ufffe&lt;b&gt;" in page
    assert printable(page, keep="\n") == page


def test_what_an_exported_test_says_is_no_code():
    """A title is a string of the test, whatever it says."""
    title = '"""\nraise SystemExit\n"""\\'
    loss = Task("yololoss:ComputeLoss", "cpu").under_test()
    case = CASE.changed(layout="contiguous")
    text = V5.exported(find_laws(V5)["totals.finite"], case, title, loss)
    assert compile(text, "test.py", "exec").co_consts[0].startswith("'''\\nraise SystemExit")


def test_only_plain_files_are_read(tmp_path):
    """A pipe would be waited for, and a device has no end. A link to a plain file is one."""
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("pipe.json", "/dev/zero"):
        status, _, errors = run("draw", name, cwd=tmp_path)
        assert one_line(status, errors) == f"yololoss: {name}: cannot be read: not a plain file"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link.json").symlink_to(written(tmp_path, json.dumps(GOOD)))
    assert run("draw", "a/link.json", cwd=tmp_path)[0] == 0
    assert run("corpus", "list", "a", cwd=tmp_path)[0] == 0
    status, _, errors = run("corpus", "list", ".", cwd=tmp_path)
    assert one_line(status, errors) == "yololoss: pipe.json: cannot be read: not a plain file"
    with pytest.raises(BadFile, match=r"Is a directory"):
        read_vectors(tmp_path)


def test_a_file_that_grows_is_read_to_the_limit(tmp_path, monkeypatch):
    """Files of the kernel have no size before they are read."""
    monkeypatch.setattr(files, "LARGEST", 10)
    if Path("/proc/self/status").exists():
        with pytest.raises(BadFile, match="/proc/self/status: 11 bytes, expected 10 at most"):
            files.read_bytes(Path("/proc/self/status"))
    with pytest.raises(BadFile, match="12 bytes, expected 10 at most"):
        files.read_bytes(written(tmp_path, "x" * 12))


def test_settings_that_name_no_file_are_told(tmp_path):
    """A name with a NUL is no name of a file."""
    written(tmp_path, '[tool.yololoss]\nbaseline = "a\\u0000b"\n', "pyproject.toml")
    status, _, errors = run("check", "--laws", "totals.sum", cwd=tmp_path)
    assert one_line(status, errors).endswith("baseline a\\x00b: cannot be read: embedded null byte")


def test_settings_of_no_reasonable_size_are_not_read(tmp_path):
    """Every command reads them, also those of a folder above."""
    written(tmp_path, f"a = '{'x' * LARGEST_SETTINGS}'\n", "pyproject.toml")
    status, _, errors = run("check", "--laws", "totals.sum", cwd=tmp_path)
    assert one_line(status, errors).endswith(f"pyproject.toml: more than {LARGEST_SETTINGS} bytes")


def test_a_picture_is_not_written_through_a_link(tmp_path):
    """A link of that name is replaced: what it leads to may be anywhere."""
    (tmp_path / "in").mkdir()
    written(tmp_path / "in", json.dumps(GOOD))
    outside = written(tmp_path, "mine", "b.png")
    (tmp_path / "in" / "a.png").symlink_to(outside)
    assert run("draw", "a.json", cwd=tmp_path / "in")[0] == 0
    assert outside.read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "in" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("key", ["version", "id", "batch", "seed", "box", "project"])
def test_a_key_that_is_there_twice_is_named(tmp_path, key):
    """Readers of JSON do not agree on which value counts."""
    text = json.dumps(GOOD).replace(f'"{key}": ', f'"{key}": 1, "{key}": ', 1)
    text = text.replace(f'"{key}": 1, ', f'"{key}": "1", ', 1) if key in ("id", "project") else text
    status, _, errors = run("draw", written(tmp_path, text), cwd=tmp_path)
    assert one_line(status, errors).endswith(f"a.json: the key {key!r} is there twice")


@pytest.mark.parametrize("place", [("vectors",), (*PLACE, "targets"), ("vectors", 0, "flags"), ("broken",)])
@pytest.mark.parametrize("part", [{}, [], 3])
def test_the_first_error_of_a_sequence_ends_it(tmp_path, place, part):
    """A small file may have a million invalid parts, and an error takes 2 kB."""
    with pytest.raises(BadFile) as error:
        read_vectors(written(tmp_path, changed(place, [part] * 5000)))
    more = re.search(r"\((\d+) more errors\)", str(error.value))
    assert more is None or int(more[1]) < 10


def test_an_object_has_only_so_many_keys(tmp_path):
    """Each that is unknown would be an error."""
    with pytest.raises(BadFile, match=f"{files.KEYS + 1} keys in one object, expected {files.KEYS} at most"):
        read_vectors(written(tmp_path, json.dumps({str(n): 1 for n in range(files.KEYS + 1)})))


@pytest.mark.parametrize("value", ["1e999", "NaN", '"nan"', "-1e999"])
def test_replay_says_that_a_case_is_no_valid_input(tmp_path, value):
    """Such a case shows nothing about a law of valid cases; a law about bad input may judge it."""
    text = changed((*PLACE, "targets"), [[0.0, 1.0, 0.5, 0.75, 0.2, 0.3]]).replace("0.75", value)
    written(tmp_path, text)
    status, output, _ = run("replay", "a.json", cwd=tmp_path)
    number = {"NaN": "nan", '"nan"': "nan", "1e999": "inf", "-1e999": "-inf"}[value]
    assert (status, output) == (
        2,
        f"a.json: cannot run: the case is no valid input: targets[0, 3] = {number}\n",
    )


def test_mend_says_that_a_case_is_no_valid_input(tmp_path):
    """It shows no fault of the loss; nor does a case that is saved under no law."""
    text = changed((*PLACE, "targets"), [[0.0, 1.0, 0.5, 0.75, 0.2, 0.3]]).replace("0.75", "NaN")
    written(tmp_path, text)
    status, _, errors = run("mend", "--case", "a.json", "--dialect", "upstream", cwd=tmp_path)
    told = "yololoss: a.json: a: the case is no valid input: targets[0, 3] = nan"
    assert one_line(status, errors) == told
    written(tmp_path, changed(("vectors", 0, "law"), None))
    status, _, errors = run("mend", "--case", "a.json", "--dialect", "upstream", cwd=tmp_path)
    assert one_line(status, errors).startswith("yololoss: a.json: a: saved under no law: no such law")


def test_laws_judge_only_what_they_are_about():
    """A class beyond the last is no valid input, and judged by no law but those about bad input."""
    case = VALID.changed(targets=((0.0, 99.0, 0.5, 0.5, 0.1, 0.1),))
    laws = find_laws(V5)
    assert laws["totals.sum"].cannot_judge(case) == "the case is no valid input: targets[0, 1] = 99"
    assert laws["totals.sum"].cannot_judge(VALID) is None
    assert laws["input.class-negative"].cannot_judge(case) is None


def test_a_case_has_as_much_as_can_be_judged(tmp_path):
    """Limits of layers, of pairs and of logits, each told in one line."""
    for file, told in (
        (many(1, LAYERS + 1), f"at most {LAYERS} items after validation, not {LAYERS + 1}"),
        (many(PAIRS + 1), f"{PAIRS + 1} pairs of a target and an anchor, expected {PAIRS} at most"),
        (many(2, 1, PAIRS), f"{2 * PAIRS} pairs of a target and an anchor, expected {PAIRS} at most"),
    ):
        status, _, errors = run("draw", written(tmp_path, json.dumps(file)), cwd=tmp_path)
        assert told in one_line(status, errors)


def test_a_picture_says_what_is_not_in_it(tmp_path):
    """Layers, images, and what of each has no room."""
    file = many(1000, LAYERS, 1, 4)
    file["vectors"][0]["case"] |= {"batch": 5, "targets": [[n % 5, 1.0, 0.4, 0.6, 0.2, 0.3] for n in range(1000)]}
    case = read_vectors(written(tmp_path, json.dumps(file))).vectors[0].case
    figure = V5.draw(case, "title", None, V5.dialects["upstream"])
    assert figure.get_suptitle().splitlines() == [
        "title",
        "3 more images with targets are not shown",
        "58 more layers are not shown",
        "of each image and layer, the first 200 targets, anchors and cells are shown",
    ]
    assert len(figure.axes) == 12
    assert max(len(axes.patches) for axes in figure.axes) <= 3 * 200


@pytest.mark.parametrize("value", ["1e999", "1e300", "-5.0", "NaN"])
def test_a_target_far_outside_is_no_trouble_to_draw(tmp_path, value):
    """Nothing is drawn of it, and nothing warned."""
    text = changed((*PLACE, "targets"), [[0.0, 1.0, 0.5, 0.75, 0.2, 0.3]]).replace("0.75", value)
    written(tmp_path, text)
    assert run("draw", "a.json", cwd=tmp_path) == (0, "a.png\n", "")


def test_a_large_case_is_not_run_to_draw_it(tmp_path, monkeypatch):
    """A command says so; a finding has neither numbers nor marks, and the title of its law."""
    monkeypatch.setattr(drawing, "LARGEST", 10)
    monkeypatch.setattr("yololoss.harness.findings.finding.LARGEST", 10)
    written(tmp_path, json.dumps(GOOD))
    status, _, errors = run("draw", "a.json", "--loss", "yololoss:ComputeLoss", cwd=tmp_path)
    assert one_line(status, errors).endswith("42 logits; --loss takes 10 at most, without it the case is drawn")
    law = find_laws(V5)["totals.sum"]
    loss = Task("yololoss:ComputeLoss", "cpu").under_test()
    finding = keep(LawBroken(law, CASE, "a", "b", "c", "d"), loss, tmp_path, {}, drawn=False)
    assert (finding.numbers, finding.title) == ((), law.title)


def test_a_given_case_of_any_size_fits_into_a_journal(tmp_path):
    """A case of a corpus may be larger than any that is made: the journal's file is made for it."""
    text = "é" * ROOM
    orders = Orders(BUNDLED, tmp_path, 0, 0, first=("x", text))
    assert orders.largest == 2 * ROOM
    journal = Journal(tmp_path / "j", 1, orders.largest)
    journal.write(text)
    assert Journal(tmp_path / "j").read().text == text


def test_a_pipe_is_no_journal(tmp_path):
    """It is not waited for."""
    os.mkfifo(tmp_path / "j")
    with pytest.raises(BadFile, match="j: not a worker's journal"):
        Journal(tmp_path / "j")


def session(folder: Path) -> Path:
    begin(folder, replace(BUNDLED, cases=0))._save()
    return folder


@pytest.mark.parametrize("given", [{"modules": ["evil.py"]}, {"findings": "/tmp/elsewhere"}])
def test_a_session_imports_no_file_and_writes_to_no_other_folder(tmp_path, given):
    """Such settings are those of a check, which runs in a folder of its own."""
    path = session(tmp_path) / "session.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["settings"] |= given
    path.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(BadFile, match="modules and findings are those of a check"):
        resume(tmp_path)


def test_a_session_reads_only_what_it_can_have_written(tmp_path):
    """Records that name other files or laws are refused; odd notes, journals and raw findings harm nothing."""
    session(tmp_path)
    loss = Task("yololoss:ComputeLoss", "cpu").under_test()
    broken = LawBroken(find_laws(V5)["totals.sum"], CASE, "a", "b", "c", "d")
    finding = keep(broken, loss, tmp_path / "findings", {}, drawn=False)
    record = Record(kind="k", finding=finding)
    write_record(tmp_path, record)
    resume(tmp_path)
    for change, told in (
        ({"path": "/etc/passwd"}, "/etc/passwd: not in the session's folder"),
        ({"picture": "/etc/passwd"}, "/etc/passwd: not in the session's folder"),
        ({"law": "a\x1b"}, "finding.law: a\\x1b: no such law"),
    ):
        write_record(tmp_path, Record(kind="k", finding=finding.model_copy(update=change)))
        with pytest.raises(BadFile) as error:
            resume(tmp_path)
        assert told in str(error.value)
    write_record(tmp_path, record)
    (tmp_path / "journal" / "x.journal").write_bytes(b"")
    notes = {"nobody": {"notes": {"a": 1}}, "totals.sum": {"notes": {"b": 2}, "word": {"BROKE": 1}}}
    written(tmp_path / "notes", json.dumps(notes), "0.json")
    told = [["totals.nobody", "a", "b", "c", "d"], ["totals.sum", 3], 3]
    for n, each in enumerate(told):
        source = {"told": json.dumps(each), "made": "", "number": "0"}
        write_vectors(tmp_path / "raw" / f"{n}.json", source, [make_vector(CASE, id="a", law="totals.sum")])
    again = resume(tmp_path)
    assert again.told()["totals.sum"]["notes"] == {"b": 2}
    assert set(again.told()["totals.sum"]) == {"notes", "not_applicable", "explained"}
    with pytest.raises(BadFile, match="not in a worker's format"):
        read_raw(tmp_path / "raw" / "1.json")
    assert again._waiting() == []
    assert len(list((tmp_path / "raw").glob("*.unreadable"))) == 3


# The readers, on texts that no person would write

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 3)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(("nan", "inf", "a", "../a", 10**30, 1e308, [[0.0] * 6], [8.0], [[2, 3]])),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=4), parts, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, ...]]:
    """Every place in a file."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, part in inside for rest in places(part))]


@st.composite
def of_bytes(draw):
    """A valid file with some bytes replaced, deleted, repeated or inserted."""
    data = bytearray(json.dumps(GOOD).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        new = draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"1e999", b"\xff"]))
        end = start + draw(st.sampled_from((0, 1, 1, 8)))
        data[start:end] = new + data[start:end] * draw(st.sampled_from((0, 0, 1)))
    return bytes(data)


@st.composite
def of_values(draw):
    """A valid file with other values in some places, or with more keys."""
    found = json.loads(json.dumps(GOOD))
    for _ in range(draw(st.integers(1, 3))):
        at, *rest = found, *draw(st.sampled_from(places(found)[1:]) if places(found)[1:] else st.just(()))
        for key in rest[:-1]:
            at = at[key]
        if rest:
            at[rest[-1]] = copy.deepcopy(draw(JSON))
        if isinstance(at, dict) and draw(st.booleans()):
            at[draw(st.text(max_size=5))] = copy.deepcopy(draw(JSON))
    return json.dumps(found).encode(errors="surrogatepass")


SCHEMA = json.loads((ROOT / "golden" / "v5" / "schema.json").read_text(encoding="utf-8"))


def number(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A number within the bounds of a part of the schema."""
    low = part.get("minimum", part.get("exclusiveMinimum"))
    high = part.get("maximum", part.get("exclusiveMaximum"))
    if part["type"] == "integer":
        return st.integers(low, high) | st.integers(low or 0, (low or 0) + 3)
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


def array(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An array; items at the beginning have their own schemas."""
    first = [valid(each) for each in part.get("prefixItems", ())]
    more = st.lists(valid(part.get("items", {})), min_size=0 if first else part.get("minItems", 0), max_size=2)
    return st.tuples(*first).map(list) if first else more


def of_object(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An object with all that is required, and some of the rest."""
    parts = {name: valid(each) for name, each in part.get("properties", {}).items()}
    needed = {name: parts.pop(name) for name in part.get("required", ())}
    return st.fixed_dictionaries(needed, optional=parts)


def text(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """A text, a name if the schema has a pattern."""
    return st.sampled_from(("a", "totals.sum", "a-b_c.1")) if "pattern" in part else st.text(max_size=3)


def valid(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a part of the schema allows."""
    if "$ref" in part:
        return st.deferred(lambda: valid(SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]))
    if "const" in part or "enum" in part:
        return st.sampled_from([part["const"]] if "const" in part else part["enum"])
    if options := part.get("anyOf", part.get("oneOf")):
        return st.one_of(*map(valid, options))
    kinds = {"array": array, "object": of_object, "string": text, "integer": number, "number": number}
    plain = {"boolean": st.booleans(), "null": st.none(), None: st.none()}
    kind = part.get("type")
    return kinds[kind](part) if kind in kinds else plain[kind]


OF_SCHEMA = valid(SCHEMA).map(lambda file: json.dumps(file).encode(errors="surrogatepass"))


def answers(path: Path, data: bytes) -> None:
    """A file is refused in one short line by a command, with exit status 2, or is a case within its limits."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        file, told = read_vectors(path), ""
    except BadFile as error:
        file, told = None, printable(str(error))
    for vector in () if file is None else file.vectors:
        case = vector.case
        assert case.layers <= LAYERS
        assert len(case.targets) * sum(map(len, case.anchors)) <= PAIRS
        assert case.numbers <= LOGITS
        assert as_name(vector.id) == vector.id
        assert len(str(case)) < 10_000
        _ = case.invalid
    assert time.process_time() - start < 10  # a hang: these files are small
    if told:
        status, output, errors = run("draw", path, cwd=path.parent)
        assert one_line(status, errors) == f"yololoss: {told}"
        assert output == ""
        assert len(errors) < 600
        assert told.isprintable()


QUICK = settings(max_examples=150, deadline=None, database=None, derandomize=True)
LONG = settings(QUICK, max_examples=1000, suppress_health_check=list(HealthCheck))


@QUICK
@given(data=of_bytes() | of_values() | OF_SCHEMA)
def test_any_file_is_refused_in_one_line_or_read(tmp_path_factory, data):
    """Bytes changed anywhere, values of any kind anywhere, and what the published schema allows."""
    answers(tmp_path_factory.getbasetemp() / "fuzzed.json", data)


@pytest.mark.slow
@LONG
@given(data=of_bytes() | of_values() | OF_SCHEMA)
def test_many_more_files_are_refused_in_one_line_or_read(tmp_path_factory, data):
    """The same, with more examples."""
    answers(tmp_path_factory.getbasetemp() / "fuzzed.json", data)


def survived(folder: Path, *arguments: str, seconds: float = 10) -> tuple[list[Any], Any]:
    """Run the commands on the hostile files: what each said, and what was used. ``seconds``: of processor, of each."""
    command = [sys.executable, "-m", "tests.hostile", str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, end = map(json.loads, done.stdout.splitlines())
    for line in lines:
        text = line["output"] + line["errors"]
        assert "Traceback" not in text
        assert "Warning" not in text
        assert printable(text, keep="\n") == text
        assert line["processor"] < seconds, line["command"]  # a hang; the slowest takes a second
        if "--json" in line["command"]:
            json.loads(line["output"] or "[]")
        elif line["status"] == 2 and "invalid: target" not in text:  # which explain says at length
            assert len(text.splitlines()) == 1, line
    assert end["MiB"] < 2048
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return lines, end


@pytest.mark.slow
def test_all_commands_survive_hostile_files(tmp_path):
    """300 files: no traceback, nothing that takes 10 s, no file outside the folder, and memory that any machine has.

    A case may take as much time and memory as --limit and --memory say: that is in another process.
    """
    lines, end = survived(tmp_path / "a" / "in")
    assert end["files"] == len({*refused(), *accepted()}) >= 300
    assert {line["status"] for line in lines if line["kind"] == "refused"} == {2}
    assert not [*Path("/tmp").glob("outside-yololoss*")]


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_commands_survive_files_of_the_largest_size(tmp_path, name):
    """They are refused early, or read with less than 2 GiB."""
    assert len(huge(name)) > LARGEST // 2
    lines, _ = survived(tmp_path / "a" / "in", name, seconds=60)  # explain: 6 for a valid file, 20 under coverage
    assert len(lines) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["id-0", "comment-0", "twice-0", "target-0", "many-layers"])
def test_a_terminal_sees_the_same(tmp_path, name):
    """In a process of its own, as a user runs it."""
    written(tmp_path, {**refused(), **accepted()}[name])
    for command in ("draw", "replay"):
        done = subprocess.run(
            [sys.executable, "-m", "yololoss", command, "a.json"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode in (0, 2)
        text = (done.stdout + done.stderr).decode()
        assert len(text.splitlines()) == 1
        assert printable(text, keep="\n") == text
