"""What would mend a loss: edits, the processes that try them, and what is told of them."""

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY, MagicMock, Mock, patch

import pytest

from tests import mend_planted
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.test_cli import run
from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.cli.mend import NOTHING, SAME, UNMENDED
from yololoss.harness.engine.gate import Gate
from yololoss.harness.engine.judge import Task
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.finding import CURES_ALL, CURES_THIS, POSSIBLY, Finding, Mend
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.mend import fence, search, trial
from yololoss.harness.mend.bench import Bench, Trier
from yololoss.harness.mend.edits import edits
from yololoss.harness.mend.mend import _run, mend
from yololoss.harness.mend.program import Program, is_installed
from yololoss.harness.mend.search import Candidate, Scout, Search, told
from yololoss.harness.mend.source import Edit
from yololoss.harness.mend.trial import RAISED, Answer, Ask, Desk, Look, Question, Seen, Sweep, Swept, Try, serve
from yololoss.harness.subjects.family import find_family

EVERY = range(1, 1000)
# by kind: a text, and one that an edit of this kind makes of it
MADE = {
    "nearest comparison": ("a = (b) < (c)\n", "a = (b) <= (c)\n"),
    "comparison": ("a = b < c\n", "a = b >= c\n"),
    "part alone": ("a = b * (c + d)\n", "a = c + d\n"),
    "statement dropped": ("a = 1\nb = 2\n", "a = 1\n"),
    "operator": ("a += b\n", "a -= b\n"),
    "truth": ("if a or b:\n    c = 1\n", "if a and b:\n    c = 1\n"),
    "exchange": ("a = f(b, c)\n", "a = f(c, b)\n"),
    "number": ("a = 4\n", "a = 8\n"),
    "other number": ("a = 4\n", "a = -4\n"),
    "other operator": ("a = b * c\n", "a = b ** c\n"),
    "argument": ("def f(a, b):\n    return g(a)\n", "def f(a, b):\n    return g(a, b)\n"),
    "twin part": ("a = f(low_x.c, low_y)\n", "a = f(low_x.c, low_y.c)\n"),
    "expression": ("def f(a):\n    b = 4.0\n    return a.c\n", "def f(a):\n    b = a.c\n    return a.c\n"),
    "operand": ("def f(a, b):\n    c = a\n    return b.d\n", "def f(a, b):\n    c = a * b.d\n    return b.d\n"),
    "argument dropped": ("a = f(b, c=1)\n", "a = f(b)\n"),
    "index": ("a = b[:, 2:]\n", "a = b[:, :2]\n"),
    "key": ('a = f("b", "c")\n', 'a = f("c", "c")\n'),
    "function": ("a = b.amax(1)\n", "a = b.amin(1)\n"),
    "twin": ("a = low_x\n", "a = low_y\n"),
    "name beside": ("a = b - c\n", "a = c - c\n"),
    "known number": ("a = 3.5\n", "a = 0.75\n"),
    "around": ("a = b\n", "a = 1 - b\n"),
    "after": ("a = b + c\n", "a = b + c.detach()\n"),
    "after the whole": ("a.append(b + c)\n", "a.append((b + c).detach())\n"),
    "name": ("def f(a, b):\n    c = a\n    return c\n", "def f(a, b):\n    c = b\n    return c\n"),
    "attribute": ("a = b.c\nd = b.e\n", "a = b.e\nd = b.e\n"),
    "moved": ("a = 1\nb = 2\n", "b = 2\na = 1\n"),
    "twin statement": ("ax = bx\n", "ax = bx\nay = by\n"),
}


def made(text: str, numbers: tuple[float, ...] = (0.75,)) -> dict[str, set[str]]:
    """What edits make of a text, by kind."""
    found: dict[str, set[str]] = {}
    for each in edits(text, EVERY, numbers):
        found.setdefault(each.kind, set()).add(each.applied(text))
    return found


@pytest.mark.parametrize("kind", MADE)
def test_each_kind_of_edit_makes_its_text(kind: str):
    """Parentheses, comments and lines beside it stay as they are."""
    text, wanted = MADE[kind]
    assert wanted in made(text).get(kind, ())


OTHERS = [
    ("a = f(-1)\n", "a = f(0)\n"),
    ("a = b[:7]\nc = 30\n", "a = b[:30]\nc = 30\n"),
    ("a = +b\n", "a = -b\n"),
    ("def f(a, b):\n    c = a < b\n    return b < 1\n", "def f(a, b):\n    c = (a < b) & (b < 1)\n    return b < 1\n"),
    ("a = b * (c if d else e)\n", "a = b * e\n"),
    ("a = f(b + c).d\n", "a = f(b).d\n"),
    ("if a:\n    b = 1\nelse:\n    b = 2\n", "b = 2\n"),
    ("for a in b:\n    c = 1\n    d = 2\n", "for a in b:\n    c = 1\nd = 2\n"),
    ("a = b if c else d\n", "a = d\n"),
    ("a = b if c else d\n", "a = d if c else b\n"),
    ("a = b if not c else d\n", "a = b if c else d\n"),
    ("a = b and c and d\n", "a = b and d\n"),
    ("a = -b\n", "a = b\n"),
    ("a = b[1:2]\n", "a = b[:2]\n"),
    ("a = b[:2]\n", "a = b[2:]\n"),
    ("a = b[0, :]\n", "a = b[:, 0]\n"),
    ("a = b - c\n", "a = c - b\n"),
    ("a = f(x=b, y=c)\n", "a = f(x=c, y=b)\n"),
    ("def f(a=1):\n    return a\n", "def f(a=2):\n    return a\n"),
    ("def f(a):\n    if a:\n        return 1\n    return 2\n", "def f(a):\n    if a:\n        pass\n    return 2\n"),
    ("a = 0.25\n", "a = 0.75\n"),
    ("a: int = 1\n", "pass\n"),
    ("a = True\n", "a = False\n"),
    ("x = width0\n", "x = height0\n"),
    ("x = width0\n", "x = width1\n"),
]


@pytest.mark.parametrize(("text", "wanted"), OTHERS)
def test_edits_take_statements_as_a_whole(text: str, wanted: str):
    """Also those that hold others, and parts of many forms."""
    assert wanted in set().union(*made(text).values())


def test_edits_leave_alone_what_does_not_run():
    """Nor do they change texts, annotations, imports, or what only raises; and each comes once."""
    text = 'import a\n"""b"""\nc: int\nraise d("e")\nf = f"{g}"\nh = 1\n'
    lines = {each.line for each in edits(text, EVERY)}
    assert lines == {5, 6}
    assert {each.kind for each in edits(text, {5})} == {"statement dropped"}
    keys = [each[:3] for each in edits(text, EVERY)]
    assert len(keys) == len(set(keys))


def test_most_edits_of_the_loss_are_programs():
    """Of some hundred, nine in ten can be compiled."""
    text = (Path(trial.__file__).parents[2] / "v5" / "boxes.py").read_text(encoding="utf-8")
    found = [each.applied(text) for each in list(edits(text, EVERY))[::60]]
    assert len(found) > 50
    assert sum(_compiles(each) for each in found) > 0.9 * len(found)


def _compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


PARTS = """
import functools


@functools.lru_cache
def kept(x):
    return x + 1


class Base:
    def __scale(self):
        return 2.0

    def value(self, x):
        return self.__scale() * x


class Derived(Base):
    @staticmethod
    def fixed():
        return 3.0

    def value(self, x):
        return super().value(x) + 1.0


if True:
    def inside():
        return 5.0

FACTOR = 7.0
"""
LOSS = """
from own.parts import FACTOR, Derived, inside, kept
from yololoss.v5.loss import ComputeLoss


class Loss(ComputeLoss):
    def all_of_it(self=None):
        return Derived().value(10.0), Derived.fixed(), inside(), kept(1), FACTOR
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program of a user's package, with functions in many places."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in (("__init__", ""), ("parts", PARTS), ("loss", LOSS)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return Program(Task(f"{folder / 'loss.py'}:Loss", "cpu", "upstream"))


def edit_of(text: str, old: str, new: str) -> Edit:
    """The edit that replaces a text."""
    start = text.encode().index(old.encode())
    return Edit(start, start + len(old.encode()), new, text[:start].count("\n") + 1)


def results(program: Program, old: str, new: str, *, whole: bool = False) -> tuple[float, ...]:
    """What all functions of the package return with an edit."""
    path = next(path for path in program.texts if path.endswith("parts.py"))
    with program.patched(path, edit_of(PARTS, old, new), whole=whole):
        return tuple(sys.modules["own.loss"].Loss.all_of_it())


AS_IT_IS = (21.0, 3.0, 5.0, 2, 7.0)
PATCHES = [
    ("return 2.0", "return 4.0", (41.0, 3.0, 5.0, 2, 7.0)),
    ("+ 1.0", "- 1.0", (19.0, 3.0, 5.0, 2, 7.0)),
    ("return 3.0", "return 0.5", (21.0, 0.5, 5.0, 2, 7.0)),
    ("return 5.0", "return 6.0", (21.0, 3.0, 6.0, 2, 7.0)),
    ("x + 1\n", "x + 2\n", (21.0, 3.0, 5.0, 3, 7.0)),
    ("FACTOR = 7.0", "FACTOR = 8.0", (21.0, 3.0, 5.0, 2, 8.0)),
]


@pytest.mark.parametrize(("old", "new", "wanted"), PATCHES)
def test_an_edit_counts_while_its_context_lasts(program: Program, old: str, new: str, wanted: tuple[float, ...]):
    """In functions, methods, what is kept of calls, and constants; after it, all is as before. No file is written."""
    before = {path.name: path.read_bytes() for path in Path(next(iter(program.texts))).parent.glob("*.py")}
    assert {Path(path).name for path in program.texts} == {"__init__.py", "parts.py", "loss.py"}
    assert results(program, old, new) == results(program, old, new, whole=True) == wanted
    assert results(program, "FACTOR = 7.0", "FACTOR = 7.0 ") == AS_IT_IS
    assert {path.name: path.read_bytes() for path in Path(next(iter(program.texts))).parent.glob("*.py")} == before


def test_an_edit_that_is_no_program_raises(program: Program):
    """Both inside a function and outside; all is as before then."""
    for old, new in (("return 5.0", "return 5.0 +"), ("FACTOR = 7.0", "FACTOR = ")):
        with pytest.raises(SyntaxError):
            results(program, old, new)
    assert results(program, "return 5.0", "return 5.0") == AS_IT_IS


def test_only_files_of_the_user_are_edited():
    """Not those of Python, nor of installed packages."""
    assert is_installed(ast.__file__)
    assert is_installed(str(pytest.__file__))
    assert not is_installed(__file__)
    named = Program(Task("yololoss.v5.loss:ComputeLoss", "cpu"))
    assert {Path(path).parts[-2] for path in named.texts} <= {"v5", "tal", "yololoss"}


def test_a_trial_reaches_nothing_outside_its_folder(tmp_path: Path):
    """It may write there, and read anything."""
    allowed = tmp_path / "trial"
    allowed.mkdir()
    outside, inside = tmp_path / "file", allowed / "file"
    outside.write_text("as it was", encoding="utf-8")
    link = allowed / "link"
    link.symlink_to(outside)
    fence.FENCE.put_up(str(allowed))
    try:
        inside.write_text("new", encoding="utf-8")
        inside.unlink()
        assert outside.read_text(encoding="utf-8") == "as it was"
        assert Path(os.devnull).write_text("", encoding="utf-8") == 0
        with os.fdopen(os.open(inside, os.O_WRONLY | os.O_CREAT), "w", encoding="utf-8") as opened:
            opened.write("new")
        for refused in (
            lambda: outside.write_text("x", encoding="utf-8"),
            lambda: link.write_text("x", encoding="utf-8"),
            lambda: os.open(outside, os.O_WRONLY),
            outside.unlink,
            lambda: outside.rename(inside),
            (tmp_path / "new").mkdir,
            lambda: subprocess.run(["true"], check=False),
            lambda: os.system("true"),
            lambda: os.kill(os.getpid(), 0),
            os.fork,
        ):
            with pytest.raises(PermissionError, match="a trial may not do this"):
                refused()
    finally:
        fence.FENCE.take_down()
    assert outside.read_text(encoding="utf-8") == "as it was"
    with pytest.raises(PermissionError):
        fence._save()


def test_memory_and_files_are_limited_where_the_system_can(monkeypatch: pytest.MonkeyPatch):
    """And torch.save, which Python does not see, is refused."""
    asked = MagicMock()
    monkeypatch.setattr(fence, "torch", Mock())
    monkeypatch.setattr(fence, "resource", asked)
    fence.limit(10)
    assert asked.setrlimit.call_count == 2
    assert fence.torch.save is fence._save


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loss with a fault: the offset of a neighbour is added, not subtracted."""
    return Path(plant(BY_NAME["neighbour_sign"], tmp_path_factory.mktemp("planted")).rpartition(":")[0])


def text_of(planted: Path, name: str = "assign") -> tuple[str, str]:
    """The path of a module, and its text."""
    path = planted.with_name(f"{name}.py").resolve()
    return str(path), path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def desk(planted: Path) -> Desk:
    """The desk of this loss, with the first usual case that shows the fault as that of its finding."""
    empty = Desk(Task(f"{planted}:ComputeLoss", "cpu", "upstream"), ())
    number = next(n for n in range(30) if "assign.neighbours" in empty.look(Look(n)).broke)
    vector = make_vector(empty.vector(number).case, id="own", law="assign.neighbours")
    found = Desk(empty.task, (vector,))
    found.program = empty.program
    return found


def finding(desk: Desk, folder: Path, **other: Any) -> Finding:
    """The finding of that case."""
    path = folder / "own.json"
    write_vectors(path, {}, desk.given)
    texts = dict.fromkeys(
        ("title", "statement", "where", "expected", "observed", "tolerance", "source", "case", "text"), ""
    )
    given: dict[str, Any] = {
        **texts,
        "law": "assign.neighbours",
        "explains": ("assign.rows", "assign.row-order"),
        **other,
    }
    return Finding(
        **given, repeats=True, device="cpu", numbers=(), path=str(path), picture=None, replay="yololoss replay own.json"
    )


RIGHT = ("shifted = centre + offset", "shifted = centre - offset")
OWN = Question(0, ("assign.neighbours", "run.no-exception"))


def test_a_desk_says_what_the_loss_does_on_a_case(desk: Desk, planted: Path):
    """Which laws break and hold, and which lines run."""
    seen = desk.look(Look(0))
    path, text = text_of(planted)
    assert "assign.neighbours" in seen.broke
    assert "assign.matched-pairs" in seen.held
    assert (path, edit_of(text, *RIGHT).line) in seen.lines
    assert not seen.observed.startswith("None")
    assert desk.files.texts[path] == text
    assert desk.look(Look(1)).lines


def test_a_desk_judges_an_edit_by_the_questions_in_their_order(desk: Desk, planted: Path):
    """It stops at the first law that breaks; one edit mends all, one raises, one is no program."""
    path, text = text_of(planted)
    desk.asks = Ask((OWN, OWN), desk.look(Look(0)).observed)
    assert desk.answer(Try(path, edit_of(text, *RIGHT))) == Answer(2)
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "pass"))).held == 0
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "shifted ="))) == Answer(0, "run.no-exception")
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "raise SystemExit"))) == Answer(0, "assign.neighbours")
    assert not desk.answer(Try(path, edit_of(text, RIGHT[0], RIGHT[0]))).alone
    desk.asks = desk.asks._replace(observed="something else")
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "shifted = centre + offset * 1"))).alone
    desk.asks = Ask((Question(0, ("no.such-law",)),))
    assert not desk.answer(Try(path, edit_of(text, RIGHT[0], RIGHT[0]))).law
    desk.asks = Ask((Question(0, ("no.such-law", RAISED)),))
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "raise ValueError"))) == Answer(0, RAISED)
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "raise SystemExit"))) == Answer(0, RAISED)  # of no law's own


def test_a_desk_judges_an_edit_as_a_gate_does(desk: Desk, planted: Path):
    """On cases of a gate, by all laws but those that are known to break."""
    path, text = text_of(planted)
    assert desk.answer(Sweep(path, edit_of(text, *RIGHT), range(3), frozenset())) == Swept()
    wrong = edit_of(text, RIGHT[0], RIGHT[0])
    swept = desk.answer(Sweep(path, wrong, range(30), frozenset()))
    assert (swept.case > 0, swept.law) == (True, "assign.neighbours")
    assert desk.answer(Sweep(path, wrong, range(30), frozenset({swept.law}))).law != swept.law
    waived = frozenset({swept.law})
    assert desk.answer(Sweep(path, wrong, range(30), waived, waived)) == Swept()  # it explains all others
    assert desk.answer(Sweep(path, edit_of(text, "import torch", "import"), range(3), frozenset())).case < 0


def test_the_process_answers_until_nobody_asks(
    desk: Desk, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It sends its files first, and is limited before the first edit."""
    limit, put_up = Mock(), Mock()
    monkeypatch.setattr(fence, "limit", limit)
    monkeypatch.setattr(fence.FENCE, "put_up", put_up)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    path, text = text_of(planted)
    pipe = Mock()
    pipe.recv.side_effect = [Ask((OWN,)), Try(path, edit_of(text, *RIGHT)), EOFError]
    serve(pipe, desk.task, "v5", [desk.given[0].model_dump_json()], str(tmp_path))
    files, answer = (call.args[0] for call in pipe.send.call_args_list)
    assert files.texts[path] == text
    assert answer == Answer(1)
    assert limit.called
    assert put_up.called


WRONG = {
    "exits": "__import__('sys').exit(3)",
    "aborts": "__import__('os').abort()",
    "catches all": "exec('while True:\\n try:\\n  while True: pass\\n except BaseException: pass')",
    "takes memory": "bytearray(10**13)",
    "writes": "open('{file}', 'w').write('x')",
    "starts a process": "__import__('os').system('touch {file}.new')",
    "saves": "torch.save(torch.zeros(3), '{file}')",
}


def test_an_edit_may_do_anything_and_harms_nothing(desk: Desk, planted: Path, tmp_path: Path):
    """Each is answered, or ends only its own process; the next one is judged as if nothing had been."""
    file = tmp_path / "file"
    file.write_text("as it was", encoding="utf-8")
    path, text = text_of(planted)
    bad = [edit_of(text, RIGHT[0], f"{what.format(file=file)}; {RIGHT[1]}") for what in WRONG.values()]
    right = edit_of(text, *RIGHT)
    with Bench(Task(f"{planted}:ComputeLoss", "cpu", "upstream", limit=1.0), "v5", (given(desk),), 1) as found:
        folder = Path(found.folder.name)
        found.asks = Ask((OWN,))
        asked = [Try(path, each) for edit in bad for each in (edit, right)]
        answers = dict(zip(range(99), found.answers(asked, time.monotonic() + 120), strict=False))
    assert len(answers) == 2 * len(WRONG)
    assert all(answer == Answer(1) for number, (_, answer) in answers.items() if number % 2)
    assert [answer for number, (_, answer) in answers.items() if not number % 2 and answer == Answer(1)] == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text(encoding="utf-8") == "as it was"
    assert not folder.exists()


def given(desk: Desk) -> str:
    """The case of the finding, as a process gets it."""
    return desk.given[0].model_dump_json()


def test_a_process_that_cannot_load_the_loss_is_told():
    """In one line."""
    found = Bench(Task("nothing.py:Loss", "cpu"), "v5", (), 1)
    with found, pytest.raises(UsageError, match="a process that tries edits ended when it loaded it"):
        _ = found.files


def test_what_is_still_asked_when_time_is_over_is_lost(desk: Desk, planted: Path):
    """Its process starts again, so that no later message gets its answer."""
    with Bench(desk.task, "v5", (given(desk),), 1) as found:
        _ = found.files
        assert not list(found.answers([Look(0)], time.monotonic() - 1))
        with patch.object(Trier, "answer", return_value=(False, None)):
            assert not list(found.answers([Look(0)], time.monotonic() + 0.1))
        asked = iter([Look(0), Look(1)])
        answers = found.answers(asked, time.monotonic() + 60)
        assert next(answers)[0] == Look(0)
        answers.close()  # type: ignore[attr-defined]
        assert [message for message, _ in found.answers([Look(2)], time.monotonic() + 60)] == [Look(2)]


SEEN = Seen((), (), frozenset())


class Here:
    """A bench in this process."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.given = desk, desk.given
        self.files = desk.files

    @property
    def asks(self) -> Ask:
        return self.desk.asks

    @asks.setter
    def asks(self, asks: Ask) -> None:
        self.desk.asks = asks

    def answers(self, messages: Any, _: float) -> Any:
        return ((message, self.desk.answer(message)) for message in messages)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """Few cases."""
    monkeypatch.setattr(search, "SCOUTED", 8)
    monkeypatch.setattr(search, "SWEPT", 4)
    monkeypatch.setattr(search, "PART", 2)


def searched(desk: Desk, fault: Finding, line: int, **other: Any) -> Search:
    """A search that edits one line."""
    here: Any = Here(desk)
    path = next(path for path in desk.files.texts if path.endswith("assign.py"))
    questions = Scout(here).look(0.0).questions(0, fault, frozenset())
    given: dict[str, Any] = {"others": frozenset(), **other}
    return Search(here, fault, frozenset({(path, line)}), questions, observed=desk.look(Look(0)).observed, **given)


def mends(search: Search, seconds: float = 60.0) -> tuple[Mend, ...]:
    """What a search finds."""
    search.run(time.monotonic() + seconds)
    return search.mends


@pytest.mark.usefixtures("short")
def test_the_edit_that_mends_a_fault_is_told_with_its_line(desk: Desk, planted: Path, tmp_path: Path):
    """And as a difference that git apply takes."""
    line = edit_of(text_of(planted)[1], *RIGHT).line
    (found,) = mends(searched(desk, finding(desk, tmp_path), line))
    assert (found.line, found.was, found.would_be, found.sure) == (line, *RIGHT, CURES_ALL)
    assert found.laws == ("assign.neighbours", "assign.rows", "assign.row-order")
    assert f"-    {RIGHT[0]}" in found.diff
    (other,) = mends(searched(desk, finding(desk, tmp_path), line, others=frozenset({"totals.sum"})))
    assert other.sure == CURES_THIS
    waived = frozenset({"totals.sum"})
    (known,) = mends(searched(desk, finding(desk, tmp_path), line, others=waived, known=waived))
    assert known.sure == CURES_ALL
    assert f"+ {RIGHT[1]}" in str(other)
    assert "laws that hold then: assign.neighbours, assign.rows" in str(finding(desk, tmp_path, mends=(other,)))


@pytest.mark.usefixtures("short")
def test_where_nothing_mends_the_line_is_told_whose_edits_matter(desk: Desk, planted: Path, tmp_path: Path):
    """Here a line before the one at fault."""
    line = edit_of(text_of(planted)[1], "cell = shifted", "").line
    found = mends(searched(desk, finding(desk, tmp_path), line))
    assert [(each.line, each.sure, each.diff) for each in found] in ([(line, POSSIBLY, "")], [])
    assert not mends(searched(desk, finding(desk, tmp_path), 1))
    tried = searched(desk, finding(desk, tmp_path), line)
    place = next(iter(tried.lines))
    tried._of_line[place], tried._only[place] = 8, 2
    (named,) = tried._probably()
    assert (named.line, named.sure, named.diff) == (line, POSSIBLY, "")
    assert named.was.startswith("cell = shifted")
    assert not mends(searched(desk, finding(desk, tmp_path), line), 0.0)


@pytest.mark.usefixtures("short")
def test_an_edit_that_breaks_a_law_elsewhere_does_not_mend(desk: Desk, planted: Path, tmp_path: Path):
    """Its case is then asked of the next edits; a law that broke before counts for nothing."""
    path, text = text_of(planted)
    right = Candidate(path, edit_of(text, *RIGHT))
    tried = searched(desk, finding(desk, tmp_path), 1)
    swept = iter([Swept(3, "assign.rows")])
    with patch.object(Search, "_swept", side_effect=lambda *_: next(swept)):
        assert not tried._holds_everywhere(right, time.monotonic())
    assert tried.questions[1] == Question(3, ("assign.rows",))
    with patch.object(Search, "_swept", return_value=Swept(-1, "run.no-exception")):
        assert not tried._holds_everywhere(right, time.monotonic())
    swept = iter([Swept(0, "assign.neighbours"), Swept()])
    tried.fault = finding(desk, tmp_path, law="totals.sum", explains=())
    with patch.object(Search, "_swept", side_effect=lambda *_: next(swept)):
        assert tried._holds_everywhere(right, time.monotonic())
    assert tried.others == {"assign.neighbours"}


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_difference_can_be_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str):
    """By git, also at the end of a file without a line end; from the folder where the command ran."""
    monkeypatch.chdir(tmp_path)
    text = f"a = 1\n\n\nb = 2{end}"
    file = tmp_path / "file.py"
    file.write_text(text, encoding="utf-8")
    mended = told(Candidate(str(file), edit_of(text, "2", "3")), text, CURES_ALL, ("x",))
    subprocess.run(["git", "apply"], input=f"# x\n{mended.diff}\n# y", text=True, check=True)
    assert file.read_text(encoding="utf-8") == text.replace("2", "3")
    assert told(Candidate("/other/file.py", edit_of(text, "2", "3")), text, CURES_ALL, ()).diff.startswith("--- /other")


def test_each_fault_of_two_is_mended_by_itself(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Laws of the other may break. Where a case ends its process, all lines count."""
    faults = [finding(desk, tmp_path), finding(desk, tmp_path, law="totals.sum", explains=("assign.rows",))]
    found: list[Search] = []
    monkeypatch.setattr(Search, "run", lambda self, *_: found.append(self))
    lines = frozenset({("x.py", 1)})
    monkeypatch.setattr(Scout, "look", lambda self, _: self.seen.update({1: SEEN._replace(lines=lines)}) or self)
    task = desk.task
    assert len(mend(faults, task, find_family("v5"), known=frozenset({"state.restored"}), workers=1, seconds=1)) == 2
    assert found[0].others == {"totals.sum", "assign.rows", "state.restored"}
    assert found[1].others == {"assign.neighbours", "assign.rows", "assign.row-order", "state.restored"}
    assert len(found[0].lines) > 800
    assert ("x.py", 1) in found[1].lines
    assert len(found[1].lines) < 400


@pytest.mark.usefixtures("short")
def test_what_mends_one_fault_is_tried_on_the_others(desk: Desk, planted: Path, tmp_path: Path):
    """If it mends all of them, and no law breaks then, it cures everything."""
    line = edit_of(text_of(planted)[1], *RIGHT).line
    first, second = searched(desk, finding(desk, tmp_path), 1), searched(desk, finding(desk, tmp_path), line)
    for each in (first, second):
        each.others = frozenset({"totals.sum"})
    _run([first, second], time.monotonic() + 60, lambda _: None)
    assert [[(each.line, each.sure) for each in search.mends] for search in (first, second)] == [
        [(line, CURES_ALL)]
    ] * 2


def test_an_installed_loss_is_not_edited(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One line says so."""
    monkeypatch.setattr(Bench, "files", Mock(texts={}))
    with pytest.raises(UsageError, match="mend changes only files of your own"):
        mend([finding(desk, tmp_path)], desk.task, find_family("v5"), workers=1)


def test_mend_of_a_loss_without_a_fault_says_so(tmp_path: Path):
    """Exit status 0."""
    status, out, _ = run("mend", "--laws", "totals.sum", "--workers", 1, cwd=tmp_path)
    assert (status, out) == (0, "no law broke: there is nothing to mend\n")


def test_mend_says_which_dialect_it_found(tmp_path: Path):
    """As a comment, so that what is printed can be applied."""
    plain = "tests.subjects.plain:PlainLoss"
    _, out, _ = run("mend", plain, "--laws", "totals.sum", "--workers", 1, cwd=tmp_path)
    assert out.startswith("# dialect: upstream")


def test_mend_names_what_is_wrong_with_its_options(tmp_path: Path):
    """In one line, with exit status 2."""
    for given, said in (
        (("nothing.py:Loss",), "no such file"),
        (("--case", "nothing.json"), "nothing.json"),
        (("--for", "soon"), "expected a time"),
    ):
        status, _, err = run("mend", *given, cwd=tmp_path)
        assert (status, said in err) == (2, True), err


def test_what_mends_is_shown(desk: Desk, tmp_path: Path, planted: Path, monkeypatch: pytest.MonkeyPatch):
    """By mend as text and JSON, and by check; so is that nothing mends, and a choice that may be meant."""
    diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"
    given = {"file": "x.py", "line": 1, "was": "a", "laws": ("totals.sum",)}
    sure = Mend(**given, would_be="b", sure=CURES_ALL, diff=diff)
    place = Mend(**given, would_be="", sure=POSSIBLY, diff="")
    faults = tuple(
        finding(desk, tmp_path, law=f"totals.{n}", choice="it has x", meant="if that is meant, use y") for n in range(4)
    )
    faults = tuple(fault.model_copy(update={"path": f"{fault.path}{n}"}) for n, fault in enumerate(faults))
    mended = {fault.path: mends for fault, mends in zip(faults, ((sure,), (place,), (), (sure,)), strict=True)}

    def found(mine: list[Finding], *_: Any, show: Any, **__: Any) -> tuple[Finding, ...]:
        show(3)
        return tuple(fault.model_copy(update={"mends": mended[fault.path]}) for fault in mine)

    monkeypatch.setattr("yololoss.harness.mend.mend.mend", found)
    monkeypatch.setattr(Gate, "verdict", lambda *_: Verdict(status=1, faults=faults))
    spec, dialect = f"{planted}:ComputeLoss", ("--dialect", "upstream")
    status, out, _ = run("mend", spec, *dialect, cwd=tmp_path)
    assert status == 1
    assert out.count(diff) == out.count(SAME) == 1
    assert [said in out for said in ("# it has x\n# if that is meant", NOTHING, UNMENDED)] == [True] * 3
    _, as_json, _ = run("mend", spec, *dialect, "--json", cwd=tmp_path)
    assert [len(fault["mends"]) for fault in json.loads(as_json)] == [1, 1, 0, 1]
    _, out, _ = run("check", spec, *dialect, "--mend", cwd=tmp_path)
    assert f"{CURES_ALL}: x.py:1" in out
    assert f"{POSSIBLY}: x.py:1" in out
    monkeypatch.setattr(Gate, "verdict", lambda *_: Verdict(status=2, problem="interrupted"))
    assert run("mend", spec, *dialect, cwd=tmp_path)[::2] == (2, ANY)


@pytest.mark.usefixtures("short")
def test_the_first_law_that_breaks_on_cases_of_a_check_ends_the_sweep(desk: Desk, planted: Path, tmp_path: Path):
    """Of the loss as it is; a process that ends is no answer."""
    path, text = text_of(planted)
    tried = searched(desk, finding(desk, tmp_path), 1)
    as_it_is = Candidate(path, edit_of(text, RIGHT[0], RIGHT[0]))
    with patch.object(search, "SWEPT", 30):
        assert tried._swept(as_it_is, 0.0).law
    with patch.object(Here, "answers", return_value=iter([(None, None)])):
        assert tried._swept(as_it_is, 0.0) == Swept(-1, "run.no-exception")


def test_a_process_that_ends_says_nothing_of_its_case(desk: Desk):
    """The others are seen."""
    here: Any = Here(desk)
    with patch.object(Here, "answers", return_value=iter([(Look(0), None), (Look(1), SEEN)])):
        assert Scout(here).look(0.0).seen == {1: SEEN}


def bound() -> list[str]:
    """What a command begins with so that permissions of files bind it: root may write to all files without."""
    setpriv = shutil.which("setpriv")
    if not hasattr(os, "geteuid") or os.geteuid() or setpriv is None:
        return []
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search,-fowner"]


@pytest.mark.skipif(not bound() and not getattr(os, "geteuid", lambda: 1)(), reason="root, and no setpriv")
def test_permissions_of_files_bind_the_command_of_the_next_test(tmp_path: Path):
    """Else it would say nothing."""
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    file.chmod(0o444)
    done = subprocess.run(
        [*bound(), sys.executable, "-c", f"open({str(file)!r}, 'w')"], stderr=subprocess.PIPE, check=False
    )
    assert b"PermissionError" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_mend_changes_nothing_and_what_it_prints_mends_the_loss(tmp_path: Path):
    """On a checkout that cannot be written to. The difference is applied by git, and the case is fixed then."""
    package = Path(plant(BY_NAME["best_anchor_forced"], tmp_path / "checkout").rpartition(":")[0]).parent
    spec = f"checkout/{package.name}/loss.py:ComputeLoss"
    before = {path: path.read_bytes() for path in package.iterdir()}
    for path in (*before, package, package.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    common = ("--dialect", "upstream", "--workers", 1)
    command = ["mend", spec, *map(str, common), "--laws", "assign.matched-pairs", "--for", "30s"]
    done = subprocess.run(
        [*bound(), sys.executable, "-m", "yololoss", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, CURES_ALL in done.stdout) == (1, True), done.stdout + done.stderr
    assert {path: path.read_bytes() for path in package.iterdir()} == before
    (case,) = (tmp_path / ".yololoss" / "findings").glob("*.json")
    _, as_json, _ = run("mend", spec, *common, "--case", case, "--json", "--for", "30s", cwd=tmp_path)
    assert [mend["sure"] for fault in json.loads(as_json) for mend in fault["mends"]] == [CURES_ALL]
    for path in (package.parent, package, *before):
        path.chmod(0o755)
    subprocess.run(["git", "apply"], input=done.stdout, text=True, check=True, cwd=tmp_path)
    assert run("replay", case, "--loss", spec, "--dialect", "upstream", cwd=tmp_path)[0] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_check_shows_what_mends_each_fault(tmp_path: Path):
    """In the terminal and in the report."""
    spec = plant(BY_NAME["best_anchor_forced"], tmp_path)
    given = ("--dialect", "upstream", "--workers", 1, "--laws", "assign.matched-pairs", "--mend", "--for", "30s")
    status, out, _ = run("check", spec, *given, "--report", "report.html", cwd=tmp_path)
    assert (status, CURES_ALL in out) == (1, True), out
    assert f"<strong>{CURES_ALL}</strong>" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", mend_planted.KINDS)
def test_edits_that_people_make_change_one_line_of_a_program(kind: str):
    """Those of the trial with planted edits: each is another program, and the lines keep their numbers."""
    file = mend_planted.ROOT / "examples" / "fork" / "utils" / "loss.py"
    text = file.read_text(encoding="utf-8")
    every = {("loss.py", line) for line in EVERY}
    found = list(mend_planted.edits(kind, {"loss.py": text}, every, random.Random(0)))
    assert found
    for each in found:
        changed = [
            n + 1
            for n, pair in enumerate(zip(text.split("\n"), each.text.split("\n"), strict=True))
            if pair[0] != pair[1]
        ]
        assert changed == [each.line]
        ast.parse(each.text)


def test_an_edit_that_leaves_a_law_nothing_to_judge_is_no_mend(desk: Desk, planted: Path):
    """As where it raises, and that is waived; nor must laws hold that other faults break."""
    path, text = text_of(planted)
    desk.asks = Ask((Question(0, ("assign.neighbours",)),))
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "raise ValueError"))) == Answer(0, "assign.neighbours")
    desk.asks = Ask((Question(len(desk.given), ("assign.neighbours",)),))  # a case of a gate: laws may say nothing
    assert desk.answer(Try(path, edit_of(text, RIGHT[0], "raise ValueError"))) == Answer(1)
    here: Any = Here(desk)
    broke = ("assign.neighbours", "boxes.item")
    scout = Scout(
        here,
        {
            0: Seen(("assign.neighbours",), ("totals.sum", RAISED), frozenset()),
            1: Seen(broke[:1], (), frozenset()),
            2: Seen(broke, ("classes.item",), frozenset()),  # here the first law may break for the other one
        },
    )
    fault: Any = Mock(law="assign.neighbours", laws=("assign.neighbours",))
    own, *more = scout.questions(0, fault, frozenset({"totals.sum", "boxes.item"}), frozenset({"boxes.item"}))
    assert own.laws == ("assign.neighbours", RAISED, RAISED)
    assert more == [Question(1, ("assign.neighbours", RAISED)), Question(2, (RAISED, "classes.item"))]
