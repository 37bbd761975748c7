"""The history of a loss: which commits, in which order, since when. Most commits here are judged by reading their file.

Such a file names its faults, its dialect, what is hidden, and whether it can be judged: see `judged_by_its_text`.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock, patch

import psutil
import pytest

from tests.made_history import SHORT, Made, Stage, git, history, make
from tests.test_case import GOOD
from tests.test_cli import run, run_apart
from tests.test_docs import USE, blocks
from yololoss.harness.cases.vectors import make_vector, write_vectors
from yololoss.harness.errors import UsageError
from yololoss.harness.findings.about import About
from yololoss.harness.findings.finding import Finding
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.history import commits, sources, trees, verdicts
from yololoss.harness.history.commits import Repository
from yololoss.harness.history.line import Asked, read_line
from yololoss.harness.history.order import next_step
from yololoss.harness.history.run import run as judge_all
from yololoss.harness.history.table import lines, make_table
from yololoss.harness.history.verdicts import Broken, How, Kept, Result, check

LAWS = ("assign.rows", "boxes.item", "totals.sum")
SPEC = "utils/loss.py:Loss"
HOW = How(10.0)
PAGE = (USE / "history.md").read_text(encoding="utf-8")


def consoles(begin: str) -> list[str]:
    """The commands of the guide that begin so."""
    return [line[2:] for block in blocks("console", PAGE) for line in block.splitlines() if line[2:].startswith(begin)]


def text(faults: str = "", *, dialect: str = "upstream", hidden: str = "", cannot: str = "", note: str = "") -> str:
    """A loss as `judged_by_its_text` reads it."""
    return f"faults={faults}\ndialect={dialect}\nhidden={hidden}\ncannot={cannot}\n# {note}\n"


def loss(*given: str, subject: str = "Change", parents: tuple[int, ...] = (), **named: str) -> Made:
    return Made(subject, {"utils/loss.py": text(*given, **named)}, parents)


def judged_by_its_text(step, folder: Path) -> Result:
    told = dict(line.split("=", 1) for line in (folder / step.loss.path).read_text("utf-8").splitlines()[:4])
    if told["cannot"]:
        return Result(why=told["cannot"])
    faults = told["faults"].split()
    held = {*LAWS} - {*faults} - {*told["hidden"].split()}
    return Result(
        dialect=told["dialect"],
        faults=tuple(Broken(law=law, title=f"{law} is wrong") for law in faults),
        held=tuple(sorted(held)),
    )


def judge(folder: Path, asked: Asked, judged=judged_by_its_text, seconds: float = 1e9, out: Path | None = None):
    """The table of a repository."""
    with Repository(folder) as repository:
        steps = read_line(repository, asked)
        kept = Kept((out or folder / ".git" / "kept") / "results", HOW)
        home = (out or folder / ".git" / "kept") / "trees"
        results = judge_all(repository, steps, judged, kept, home, seconds=seconds, show=lambda done: None)
    return make_table(asked.loss, steps, results)


def told(table) -> dict[str, list[tuple]]:
    """For each fault its changes: word, commit, commits before it, exact."""
    return {t.fault: [(c.word, c.commit, c.after, c.exact) for c in t.changes] for t in table.trails}


def test_each_fault_has_its_first_bad_and_first_good_commit(tmp_path):
    """Two faults, one mended and back again; commits that touch nothing of the loss are not among them."""
    ids = make(
        tmp_path,
        [
            Made("Begin", {"README.md": "a"}),
            loss(),
            loss("totals.sum"),
            Made("Say more", {"README.md": "b"}),
            loss("totals.sum boxes.item"),
            loss("boxes.item"),
            loss("boxes.item totals.sum"),
        ],
    )
    table = judge(tmp_path, Asked(SPEC))
    assert [row.commit for row in table.rows] == [ids[n] for n in (1, 2, 4, 5, 6)]
    assert told(table) == {
        "totals.sum": [
            ("first bad", ids[2], (ids[1],), True),
            ("first good", ids[5], (ids[4],), True),
            ("first bad", ids[6], (ids[5],), True),
        ],
        "boxes.item": [("first bad", ids[4], (ids[2],), True)],
    }
    assert table.trails[0].words == ("good", "bad", "bad", "good", "bad")
    assert (table.status, table.rows[0].date) == (1, "2020-09-14")


def test_a_fault_of_the_first_commit_of_the_loss_begins_there(tmp_path):
    """Nothing was there before; with --since, that commit or one before it."""
    ids = make(tmp_path, [Made("Begin", {"README.md": "a"}), loss("totals.sum"), loss("totals.sum", note="b")])
    assert told(judge(tmp_path, Asked(SPEC))) == {"totals.sum": [("first bad", ids[1], (), True)]}
    table = judge(tmp_path, Asked(SPEC, since=ids[2]))
    assert told(table) == {"totals.sum": [("first bad", ids[2], (), False)]}
    assert f"  first bad   {ids[2][:10]} or before" in lines(table)


def test_a_shallow_clone_does_not_know_its_beginning(tmp_path):
    """Its first commit has parents elsewhere."""
    make(tmp_path / "whole", [loss("totals.sum"), loss("totals.sum", note="b")])
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path}/whole", "part")
    ((change,),) = told(judge(tmp_path / "part", Asked(SPEC))).values()
    assert change[3] is False


def test_between_is_said_where_a_neighbour_is_not_known(tmp_path):
    """A commit that cannot be judged is neither good nor bad, nor is a law that another fault hides."""
    ids = make(
        tmp_path,
        [
            loss(),
            loss(cannot="importing it raised NameError"),
            loss("totals.sum"),
            loss("assign.rows", hidden="totals.sum"),
        ],
    )
    table = judge(tmp_path, Asked(SPEC))
    assert told(table) == {
        "totals.sum": [("first bad", ids[2], (ids[0],), False)],
        "assign.rows": [("first bad", ids[3], (ids[2],), True)],
    }
    shown = [*lines(table)]
    assert f"  first bad   between {ids[0][:10]} and {ids[2][:10]}" in shown
    assert "  cannot say: importing it raised NameError" in shown
    assert [row.word for row in table.rows] == ["good", "cannot say", "1 fault", "1 fault"]


def test_a_merge_begins_no_fault_that_one_of_its_parents_has(tmp_path):
    """The fault of a branch begins there; one that only the merge has begins with it."""
    ids = make(
        tmp_path,
        [
            loss(),
            loss("totals.sum"),
            loss(note="main", parents=(0,)),
            loss("totals.sum boxes.item", parents=(2, 1)),
        ],
    )
    assert told(judge(tmp_path, Asked(SPEC))) == {
        "totals.sum": [("first bad", ids[1], (ids[0],), True)],
        "boxes.item": [("first bad", ids[3], (ids[2], ids[1]), True)],
    }


def test_a_merge_that_keeps_a_parents_loss_touches_nothing(tmp_path):
    """It has the loss of that parent; so does what comes after it."""
    ids = make(tmp_path, [loss(), loss(note="b"), loss(note="c", parents=(0,)), loss(note="b", parents=(2, 1))])
    assert {row.commit for row in judge(tmp_path, Asked(SPEC)).rows} == {*ids[:3]}


def test_renames_are_followed(tmp_path):
    """Of the file, by git; a module that it imports needs no name. The commit is marked."""
    long = "\n".join(f"line {n}" for n in range(30))
    ids = make(
        tmp_path,
        [
            Made("Begin", {"old/loss.py": text(note=long)}),
            Made("Move", {"old/loss.py": None, "utils/loss.py": text(note=long + ".")}),
            loss("totals.sum", note=long),
        ],
    )
    table = judge(tmp_path, Asked(SPEC))
    assert [row.loss for row in table.rows] == ["old/loss.py:Loss", SPEC, SPEC]
    assert [row.marks for row in table.rows] == [(), ("renamed: old/loss.py:Loss before",), ()]
    assert told(table) == {"totals.sum": [("first bad", ids[2], (ids[1],), True)]}


def test_a_range_of_commits_has_the_loss_that_is_given_for_it(tmp_path):
    """--loss A..B=SPEC, as in git: without A, with B. Either may be left out."""
    ids = make(
        tmp_path,
        [
            Made("Begin", {"one.py": text()}),
            Made("More", {"one.py": text(note="b")}),
            Made("Anew", {"one.py": None, "utils/loss.py": "x"}),
            loss(),
        ],
    )
    table = judge(
        tmp_path,
        Asked(SPEC, ranges=(f"..{ids[0]}=one.py:First", f"{ids[0]}..{ids[1]}=one.py:Second")),
        judged=lambda *_: Result(),
    )
    assert [row.loss for row in table.rows] == ["one.py:First", "one.py:Second", SPEC, SPEC]
    table = judge(tmp_path, Asked("one.py:First", ranges=(f"{ids[1]}..={SPEC}",)), judged=lambda *_: Result())
    assert [row.loss for row in table.rows] == ["one.py:First", "one.py:First", SPEC, SPEC]


def test_a_dialect_that_changes_is_no_fault(tmp_path):
    """It is a mark of its commit; of a commit that lies somewhere, if one between was not judged."""
    ids = make(
        tmp_path,
        [loss(), loss(dialect="yolov5-6.1"), loss(cannot="x"), loss(dialect="yolov5-4.0")],
    )
    table = judge(tmp_path, Asked(SPEC))
    assert [row.marks for row in table.rows] == [
        (),
        ("dialect: yolov5-6.1; upstream before",),
        (),
        (f"dialect: yolov5-4.0; yolov5-6.1 before, somewhere after {ids[1][:10]}",),
    ]
    assert (table.status, table.trails) == (0, ())


def test_faults_of_one_law_are_told_apart_by_their_titles(tmp_path):
    """Where a commit has two of them. Numbers in a title are those of a case."""
    one, two = (Broken(law="boxes.item", title=t) for t in ("A width is 3.5", "An angle is 2"))
    ids = make(tmp_path, [loss(note=str(n)) for n in range(3)])
    results = iter([Result(faults=(one, two)), Result(held=("boxes.item",)), Result(faults=(one,))])
    table = judge(tmp_path, Asked(SPEC), judged=lambda *_: next(results))  # the newest, the oldest, the one between
    assert [trail.fault for trail in table.trails] == ["boxes.item: A width is N", "boxes.item: An angle is N"]
    assert [trail.words for trail in table.trails] == [("good", "bad", "bad"), ("good", "", "bad")]
    assert told(table)["boxes.item: An angle is N"] == [("first bad", ids[2], (ids[0],), False)]


def order(signatures: str) -> list[int]:
    """The numbers of commits in the order in which they are judged. A blank: nothing can be said."""
    keys, known, found = [str(n) for n in range(len(signatures))], {}, []
    while (n := next_step(keys, known)) is not None:
        found.append(n)
        known[keys[n]] = signatures[n].strip() or None
    return found


def test_the_ends_are_judged_first_then_between_what_differs():
    """A change among 64 commits is found by 8 verdicts, also if nothing can be said of one of them."""
    assert order("a" * 5) == [4, 0, 2, 1, 3]
    for n in range(1, 64):
        first = order("a" * n + "b" * (64 - n))[:8]
        assert {n - 1, n} <= {*first}
    assert {30, 32} <= {*order("a" * 31 + " " + "b" * 32)[:9]}


def test_equal_losses_are_judged_once(tmp_path):
    """A commit that takes back what another one did has a loss that is known."""
    make(tmp_path, [loss(), loss("totals.sum"), loss(), loss("totals.sum")])
    seen = []
    table = judge(tmp_path, Asked(SPEC), judged=lambda *a: seen.append(a) or judged_by_its_text(*a))
    assert (len(table.rows), len(seen)) == (4, 2)
    assert next_step(["a", "b", "a"], {"a": 1, "b": 2}) is None


def test_a_run_that_was_killed_continues_and_gives_the_same_table(tmp_path):
    """Whenever it ends: byte for byte; what a killed run has left is removed; a broken file is written again."""
    repo, whole = tmp_path / "repo", tmp_path / "whole"
    make(repo, [loss("totals.sum" * (n > 4), dialect=f"d{n // 3}", note=str(n)) for n in range(8)])
    expected = judge(repo, Asked(SPEC), out=whole).model_dump_json()
    for ends in (0, 1, 3, 7):
        out, done = tmp_path / f"out{ends}", []

        def dies(step, folder, ends=ends, done=done):
            if len(done) == ends:
                raise SystemExit
            done.append(step)
            return judged_by_its_text(step, folder)

        with pytest.raises(SystemExit):
            judge(repo, Asked(SPEC), judged=dies, out=out)
        assert len([*(out / "results").glob("*")]) == ends
        (out / "trees" / "0-left").mkdir()
        (out / "trees" / f"{os.getpid()}-mine").mkdir()
        for broken in [*(out / "results").glob("*")][:1]:
            broken.write_text("{", "utf-8")
        assert judge(repo, Asked(SPEC), out=out).model_dump_json() == expected
        assert [path.name for path in (out / "trees").iterdir()] == [f"{os.getpid()}-mine"]
    assert Kept(whole / "results", How(10.0, ("--cases=1",))).get("x") is None


def test_no_commit_is_begun_after_the_time(tmp_path):
    """What is not judged is said; also after Ctrl-C."""
    make(tmp_path, [loss(), loss(note="b")])
    table = judge(tmp_path, Asked(SPEC), seconds=-1)
    assert [row.word for row in table.rows] == ["not judged", "not judged"]
    table = judge(tmp_path, Asked(SPEC), judged=Mock(side_effect=[Result(), KeyboardInterrupt]))
    assert [row.word for row in table.rows] == ["not judged", "good"]


def test_a_commit_that_took_too_long_is_judged_again_with_more_time(tmp_path):
    """With less time it is as it was."""
    Kept(tmp_path, How(10.0)).put("a", Result(why="it took longer", limit=10.0))
    assert [Kept(tmp_path, How(limit)).get("a") is None for limit in (9.0, 10.0, 11.0)] == [False, False, True]


def test_what_a_loss_imports_of_the_project_belongs_to_it(tmp_path):
    """Modules, packages and their __init__, relative or not; nothing else, and no file that is too large to read."""
    files = {
        "src/net/__init__.py": "from . import names",
        "src/net/names.py": "",
        "src/net/loss.py": "import torch, helper.deep\nfrom ..net.boxes import iou\nfrom .criteria import *\n"
        "from helper import one",
        "src/net/boxes.py": "import unknown",
        "src/net/criteria.py": "this is no Python",
        "src/helper/__init__.py": "",
        "src/helper/deep.py": "\0",
        "src/helper/one.py": "#" * sources.LARGEST + "\nimport never",
        "src/helper/other.py": "",
        "src/never.py": "",
        "helper/one.py": "",
        "tools/boxes.py": "",
    }
    (id,) = make(tmp_path, [Made("Begin", files)])
    with Repository(tmp_path) as repository:
        found = sources.Sources(repository).files(id, "src/net/loss.py")
    named = (
        "net/__init__",
        "net/names",
        "net/loss",
        "net/boxes",
        "net/criteria",
        "helper/__init__",
        "helper/deep",
        "helper/one",
    )
    assert {*found} == {"helper/one.py", *(f"src/{name}.py" for name in named)}


def test_only_plain_files_are_laid_out(tmp_path, monkeypatch):
    """No link, no submodule, none that is too large; settings are empty. The user's own tree and index stay."""
    repo = tmp_path / "repo"
    make(
        repo, [Made("Begin", {"a/loss.py": "x", "a/pyproject.toml": "[tool.yololoss]\n", "weights": "w" * 99, "z": ""})]
    )
    git(repo, "reset", "-q", "--hard")
    blob = git(repo, "rev-parse", "HEAD:weights").stdout.strip()
    git(repo, "update-index", "--add", "--cacheinfo", f"120000,{blob},link", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repo, "commit", "-q", "-m", "Links")
    (repo / "a" / "loss.py").write_text("mine", "utf-8")
    before = (git(repo, "status", "--porcelain").stdout, (repo / ".git" / "index").read_bytes())
    monkeypatch.setattr(trees, "LARGEST", 98)
    with Repository(repo / "a") as repository:
        commit = repository.resolve("HEAD", "--to")
        with trees.laid_out(repository, commit, tmp_path / "home") as folder:
            top = folder.parent
            assert (folder.name, (folder / "loss.py").read_text("utf-8")) == ("a", "x")
            assert (folder / "yololoss.toml").read_bytes() == b""
            assert {path.name for path in top.iterdir()} == {"a", "z", "yololoss.toml"}
        assert repository.find(commit, "a\nb") is None
    assert not top.exists()
    assert (git(repo, "status", "--porcelain").stdout, (repo / ".git" / "index").read_bytes()) == before


def test_a_loss_is_named_as_in_other_commands(tmp_path):
    """A file, from the folder that is given; a module, as it is at the newest commit."""
    make(tmp_path, [Made("Begin", {"sub/utils/loss.py": "", "sub/net/__init__.py": ""})])
    (tmp_path / "sub").mkdir()
    with Repository(tmp_path / "sub") as repository:
        for spec in (SPEC, "utils.loss:Loss", f"{tmp_path}/sub/utils/loss.py:Loss"):
            assert sources.place(spec, "LOSS", repository, "HEAD") == ("sub/utils/loss.py", "Loss"), spec
        assert sources.place("net:Loss", "LOSS", repository, "HEAD").path == "sub/net/__init__.py"


def test_what_git_tells_may_be_odd(tmp_path):
    """A clock that was far off; a commit with nothing in it; an object that a clone lacks."""
    assert commits._day(10**20) == "unknown"
    (id,) = make(tmp_path, [Made("Sübject\x1b[31m", {})])
    with Repository(tmp_path) as repository:
        assert [*repository.files(id)] == []
        with pytest.raises(UsageError, match=f"git: object {'1' * 40} is missing"):
            repository.read(commits.Blob("1" * 40, 5))
        assert repository.commits(id, None)[0].subject == "Sübject\x1b[31m"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone", SPEC], "gone: no such folder"),
        (["none", SPEC], "none: git: not a git repository"),
        (["repo", SPEC, "--to", "v9"], "--to v9: no such revision in repo"),
        (["repo", SPEC, "--since=--all"], "--since --all: no such revision in repo"),
        (["repo", SPEC, "--since", "HEAD", "--to", "HEAD~1"], "--since HEAD: not in the history of --to HEAD~1"),
        (["repo", "utils/los.py:Loss"], "LOSS utils/los.py:Loss: its file is in no commit up to HEAD; did you mean"),
        (["repo", "utils/loss.py"], "LOSS utils/loss.py: expected path/to/file.py:Name or package.module:Name"),
        (["repo", "../loss.py:Loss"], "LOSS ../loss.py:Loss: outside the repository"),
        (["repo", "utils.los:Loss"], "LOSS utils.los:Loss: no such module at the newest commit; name its file"),
        (["repo", SPEC, "--loss", "HEAD=a.py:B"], "--loss HEAD=a.py:B: expected REV..REV=SPEC, such as v1.0..v2.0="),
        (["repo", SPEC, "--loss", "v8..=a.py:B"], "--loss v8: no such revision in repo"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(tmp_path, monkeypatch, arguments, said):
    """Exit status 2 and no traceback."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    make(tmp_path / "repo", [loss(), loss(note="b")])
    (tmp_path / "none").mkdir()
    status, output, errors = run("history", *arguments, cwd=tmp_path)
    assert (status, output) == (2, "")
    assert errors.startswith(f"yololoss: {said}"), errors
    assert errors.count("\n") == 1


def test_git_is_needed(tmp_path, monkeypatch):
    """One line says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git: no such command"):
        Repository(tmp_path)


def shown(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The command, on commits that are judged by their text."""
    with patch.object(verdicts, "judge_by", lambda how, prefix: judged_by_its_text):
        return run("history", "repo", SPEC, *arguments, cwd=folder)


def test_the_command_shows_a_table_a_page_and_json(tmp_path):
    """Exit status 1 with a fault, else 0. A subject is a stranger's text: escaped in the terminal and in the page."""
    subject = "<script>alert(1)</script>\x1b[31m"
    ids = make(
        tmp_path / "repo", [loss(subject="Begin"), loss(cannot="x < y", note="b"), loss("totals.sum", subject=subject)]
    )
    status, output, errors = shown(tmp_path, "--report", "r.html", "--workers", "1", "--cases", "5", "--laws", "totals")
    judged = "".join(f"{done} of 3 commits judged\n" for done in range(4))
    assert (status, errors) == (1, f"3 commits that touched {SPEC}\n{judged}")
    assert output.splitlines() == [
        f"{ids[2][:10]}  2020-09-15  1 fault     <script>alert(1)</script>\\x1b[31m",
        f"{ids[1][:10]}  2020-09-14  cannot say  Change",
        "  cannot say: x < y",
        f"{ids[0][:10]}  2020-09-13  good        Begin",
        "",
        "totals.sum: totals.sum is wrong",
        f"  first bad   between {ids[0][:10]} and {ids[2][:10]}",
    ]
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in page
    assert "cannot say: x &lt; y" in page
    assert re.findall(r'<td class="(bad|good|)">\1</td>', page) == ["bad", "", "good", "good"]  # the last one: a commit
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r'(?:src|href)="', page)
    status, output, errors = shown(tmp_path, "--json", "--to", ids[0])
    assert (status, errors, [row["commit"] for row in json.loads(output)["rows"]]) == (0, "", [ids[0]])
    assert {path.name for path in (tmp_path / ".yololoss").iterdir()} == {"history", "hypothesis"} - {"hypothesis"}


def test_where_nothing_can_be_said_the_command_could_not_run(tmp_path):
    """A loss of a wrong name is in no commit, and has no fault; nor has one that nobody had time to judge."""
    ids = make(tmp_path / "repo", [loss(note="b"), loss(cannot="has no 'Loss'")])
    status, output, errors = shown(tmp_path, "--since", ids[1])
    assert (status, "cannot say" in output) == (2, True)
    assert errors.endswith("yololoss: no commit was judged: has no 'Loss'\n")
    status, output, errors = shown(tmp_path, "--for", "0.000001s", "--to", ids[0])
    assert (status, errors.endswith("yololoss: no commit was judged: there was no time\n")) == (2, True), output


def finding(law: str, title: str, choice: str = "") -> Finding:
    words = dict.fromkeys(("statement", "where", "expected", "observed", "tolerance", "source", "device", "case"), "")
    more = {"text": "", "path": "", "replay": "", "picture": None, "repeats": True, "numbers": ()}
    return Finding(law=law, title=title, choice=choice, **words, **more)


def python(tmp_path: Path, monkeypatch, printed: str, errors: str = "", more: str = "") -> None:
    """Have the process of a check print this."""
    script = tmp_path / "python"
    (tmp_path / "out.txt").write_text(printed, "utf-8")
    script.write_text(f"#!/bin/sh\necho '{errors}' >&2\n{more}\ncat {tmp_path}/out.txt\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_a_verdict_becomes_a_result(tmp_path, monkeypatch):
    """Faults, laws that held, dialect; a choice is no fault; what the loss prints besides does not matter."""
    named = {"loss": "", "device": "", "family": "v5", "date": "", "command": "", "file": None, "sha256": None}
    verdict = Verdict(
        status=1,
        laws=({"id": "a.b", "word": "held"}, {"id": "c.d", "word": "explained"}, {"id": "e.f", "word": "BROKE"}),
        faults=(
            finding("e.f", f"wrong in {tmp_path}/loss.py at 0x7f0123456789, with gr = 0.5 and fl_gamma = 3.0"),
            finding("g.h", "", "has giou"),
        ),
        about=About(dialect="upstream", versions={}, parts={}, **named),
    )
    told = json.dumps(verdict.model_dump(mode="json"), indent=1)
    python(tmp_path, monkeypatch, f"{{\nhello\n{told}\nbye")
    assert check("loss.py:Loss", tmp_path, HOW) == Result(
        dialect="upstream; has giou", faults=(Broken(law="e.f", title="wrong in loss.py at 0x..."),), held=("a.b",)
    )


@pytest.mark.parametrize(
    ("printed", "errors", "why"),
    [
        (json.dumps({"status": 2, "problem": "nothing was judged"}, indent=1) + "\n", "", "nothing was judged"),
        ("", "yololoss: --loss a.py: no such file", "--loss a.py: no such file"),
        ("", "", "its process printed nothing"),
        ("x" * 99, "", "its process printed more than 98 bytes"),
    ],
)
def test_what_no_verdict_is_says_nothing(tmp_path, monkeypatch, printed, errors, why):
    """The reason is the last line, or that there is none."""
    for module in (verdicts, sys.modules["yololoss.harness.cases.files"]):
        monkeypatch.setattr(module, "LARGEST", 98)
    python(tmp_path, monkeypatch, printed, errors)
    assert check("loss.py:Loss", tmp_path, HOW) == Result(why=why)


def test_a_commit_that_takes_too_long_says_nothing(tmp_path, monkeypatch):
    """Its process ends, with those that it started."""
    python(tmp_path, monkeypatch, "", more=f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    assert check("loss.py:Loss", tmp_path, How(0.5)) == Result(why="it took longer than 0.5 s", limit=0.5)
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text("utf-8"))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_path_of_a_loss_begins_at_the_folder_that_is_given(tmp_path, monkeypatch):
    """Also where the file was elsewhere in the repository."""
    step = read_one(tmp_path)
    seen = []
    monkeypatch.setattr(verdicts, "check", lambda *given: seen.append(given) or Result())
    for prefix in ("", "utils/", "other/"):
        verdicts.judge_by(HOW, prefix)(step, tmp_path)
    assert [spec for spec, *_ in seen] == [SPEC, "loss.py:Loss", f"../{SPEC}"]
    assert "torch " in HOW.key


def read_one(folder: Path):
    make(folder / "repo", [loss()])
    with Repository(folder / "repo") as repository:
        return read_line(repository, Asked(SPEC))[0]


def test_replay_has_an_exit_status_for_git_bisect(tmp_path):
    """0 and 1; 125 where the loss or its law says nothing; 128, which ends the search, where the command is wrong."""
    write_vectors(tmp_path / "a.json", {}, [make_vector(id="a", law="totals.sum", case=GOOD)])
    write_vectors(tmp_path / "m.json", {}, [make_vector(id="a", law="devices.rows", case=GOOD)])
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has", "utf-8")
    expected = {
        "a.json": 0,
        "a.json --loss gone.py:Loss": 125,
        "a.json --loss broken.py:Loss": 125,
        "m.json": 125,
        "gone.json": 128,
        "a.json --device gpu": 128,
        "a.json --dialect yolo": 128,
    }
    for arguments, status in expected.items():
        assert run("replay", *arguments.split(), "--bisect", cwd=tmp_path)[0] == status, arguments
    assert run("replay", "a.json", "--loss", "gone.py:Loss", cwd=tmp_path)[0] == 2
    broken = [{"file": "a", "answer": word, "why": "", "finding": None} for word in ("cannot run", "still broken")]
    with patch("yololoss.harness.cli.replay._replay", return_value=broken):
        assert run("replay", "a.json", "--bisect", cwd=tmp_path)[0] == 1


BISECTED = {
    0: Stage("Write a loss"),
    1: Stage("Change it"),
    2: Stage("Use the new helpers", imports=False),
    3: Stage("Change it again"),
    4: Stage("Return items as they are", begins="items_attached"),
    5: Stage("Change it once more"),
}


@pytest.mark.slow
def test_git_bisect_finds_the_first_bad_commit(tmp_path):
    """docs/use/history.md: one commit cannot be imported, and is skipped."""
    repo = tmp_path / "repo"
    ids = make(repo, history(BISECTED, 6))
    case = make_vector(id="a", law="totals.items-detached", case=GOOD)
    write_vectors(repo / ".yololoss" / "findings" / "case.json", {}, [case])
    git(repo, "reset", "-q", "--hard")
    git(repo, "tag", "v1.0", ids[1])
    start, command, end = (shlex.split(line) for line in consoles("git bisect"))
    git(repo, *start[1:])
    done = git(repo, *command[1:3], sys.executable, "-m", *command[3:], check=False)
    assert f"{ids[4]} is the first bad commit" in done.stdout, done.stdout + done.stderr
    git(repo, *end[1:])


@pytest.mark.slow
def test_a_run_that_is_terminated_ends_what_it_started(tmp_path):
    """As by `timeout`: its table is shown, no folder of a commit stays, and no process runs in one."""
    repo = tmp_path / "repo"
    make(repo, history(SHORT, 5))
    command = [sys.executable, "-m", "yololoss", "history", ".", "yolo/loss.py:ComputeLoss", "--workers", "1"]
    process = subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    trees = repo / ".yololoss" / "history" / "trees"
    while not [*trees.glob("*/yolo")] and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert "not judged" in output
    assert list(trees.iterdir()) == []
    assert not [each for each in psutil.process_iter(["cwd"]) if str(trees) in str(each.info["cwd"])]


@pytest.mark.slow
def test_a_real_history_is_judged_as_users_judge_a_loss(tmp_path):
    """A fault that begins and is mended, a commit that cannot be imported, a rename: each at its commit."""
    repo = tmp_path / "repo"
    ids = make(repo, history(SHORT, 5))
    command, *_ = consoles("yololoss history")
    laws = ("--laws", "totals.items-detached", "--laws", "totals.sum")
    status, output, errors = run_apart(*shlex.split(command)[1:], "--cases", 10, "--workers", 1, *laws, cwd=repo)
    assert status == 1, errors
    (quoted,) = blocks("text", PAGE)
    assert masked(output) == masked(quoted)
    assert [id[:10] for id in reversed(ids[1:])] == re.findall(r"^(\w{10})  2", output, re.MULTILINE)


def masked(output: str) -> str:
    """The output without ids, which depend on the bundled loss."""
    return re.sub(r"\b[0-9a-f]{10}\b", "ID", output)


def test_the_guides_commands_run(tmp_path):
    """docs/use/history.md: each as it stands, in a repository that has what they name."""
    repo = tmp_path / "repo"
    made = [Made("Begin", {"yolo/loss.py": text()}), Made("Move", {"yolo/criterion.py": text("totals.sum")})]
    ids = make(repo, made)
    git(repo, "tag", "v1.0", ids[0])
    assert len(consoles("yololoss history")) == 4
    for command in consoles("yololoss history"):
        with patch.object(verdicts, "judge_by", lambda how, prefix: judged_by_its_text):
            status, output, errors = run(*shlex.split(command)[1:], cwd=repo)
        assert (status, f"  first bad   {ids[1][:10]}" in output) == (1, True), (command, output, errors)
    assert (repo / "history.html").is_file()
