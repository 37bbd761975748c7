"""Some edits planted into a project's loss, each mended: ``python -m tests.mend_planted [FOLDER SPEC]``.

Without arguments into a copy of `examples/fork`. The edits are of kinds that people make by mistake, one of each kind.
They are made by regular expressions, at random among the lines that run, so no one needs to read the loss. An edit
that no law notices, or with which the loss cannot be called at all, is drawn again. Laws that the loss breaks without
any edit are waived first.

    python -m tests.mend_planted [--workers N] [--cases N] [--for TIME] [--results FILE] [--seed N] [--kinds KIND ...]
                                 [FOLDER SPEC]
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tests.fork import ROOT, SPEC
from yololoss.harness.engine.judge import Task
from yololoss.harness.errors import USAGE
from yololoss.harness.findings.finding import CURES_ALL
from yololoss.harness.mend.source import Edit
from yololoss.harness.mend.trial import Desk, Look, Sweep

SEED, LOOKED = 20261129, 60
VERIFIED = 1200  # cases of the check that says whether what is called sure is right: more than mend has
DRAWN = 20  # edits of a kind that are tried until a law notices one
WORD = r"(?<![\w.]){}(?![\w.])"
NUMBER = r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])"
# By kind: what is found, and what takes its place, of which one is drawn.
KINDS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "comparison": ((r" < ", (" > ", " <= ")), (r" > ", (" < ", " >= "))),
    "operator": ((r" \* ", (" / ", " + ")), (r" / ", (" * ",)), (r" \*\* ?2", ("",))),
    "sign": ((r" \+ ", (" - ",)), (r" - ", (" + ",)), (r"(?<=[(\[,=] )-|(?<=[(\[,=])-", ("",))),
    "number": ((NUMBER, ("2 * {0}", "{0} + 1", "10 * {0}", "0")),),
    "index": ((r":(\d)(?=[\],])", ("{1}:", ":{1} + 1")), (r"(?<=[\[,: ])(\d):", (":{1}",))),
    "names swapped": ((r"\b([a-z]\w*), ([a-z]\w*)\b", ("{2}, {1}",)),),
    "x for y": (
        (r"(?<=[a-z])x\b|\bx(?=\d)", ("y",)),
        (r"(?<=[a-z])y\b|\by(?=\d)", ("x",)),
        (r"\bw(?=\d)", ("h",)),
        (r"\bh(?=\d)", ("w",)),
    ),
    "condition": ((r"(?<=\bif )([^:\n]+)(?=:\n)", ("not ({1})",)),),
    "call dropped": ((r"\.(?:detach|clamp|clamp_|sigmoid|square|long|mean|float|clone|t)\([^()]*\)", ("",)),),
    "function": (
        *((rf"\.{one}(?=\()", (f".{two}",)) for one, two in (("mean", "sum"), ("sum", "mean"), ("amax", "amin"))),
        *((rf"\.{one}(?=\()", (f".{two}",)) for one, two in (("max", "min"), ("maximum", "minimum"))),
        *((rf"\.{one}(?=\()", (f".{two}",)) for one, two in (("ones_like", "zeros_like"), ("min", "max"))),
    ),
    "statement deleted": ((r"(?<=\n)( +)[a-z][\w.,\[\]: ]* [-+*/]?= [^\n]*[^\n,(\[{](?=\n)", ("{1}pass",)),),
}


class Planted(NamedTuple):
    """An edit of one line of a file."""

    kind: str
    file: str
    line: int
    change: str  # what became what; "" if that has letters, so that nothing of a loss is quoted
    text: str  # of the whole file then


class Result(NamedTuple):
    """What was said of an edit."""

    kind: str
    file: str
    line: int
    change: str
    law: str  # that shows the fault
    named: list[tuple[str, int]]  # the lines, the most probable first
    sure: str  # how sure the first is
    mended: bool  # the program is as it was, or a check finds nothing more with what is called sure
    wrong: bool  # what is called sure breaks a law
    seconds: float  # of the whole check with its mends

    @property
    def place(self) -> int | None:
        """The place of the line at fault among those named, from 0."""
        return next((n for n, named in enumerate(self.named) if named == (self.file, self.line)), None)


def edits(kind: str, texts: dict[str, str], lines: set[tuple[str, int]], chance: random.Random) -> Iterator[Planted]:
    """The edits of a kind in lines that run, in random order; each another program than it was."""
    found = [
        (file, match, replacements)
        for file, text in sorted(texts.items())
        for pattern, replacements in KINDS[kind]
        for match in re.finditer(pattern, text)
    ]
    chance.shuffle(found)
    for file, match, replacements in found:
        text, new = texts[file], chance.choice(replacements).format(match[0], *match.groups())
        line = text[: match.start()].count("\n") + 1
        edited = text[: match.start()] + new + text[match.end() :]
        if (file, line) in lines and _is_another(text, edited):
            yield Planted(kind, file, line, _change(match[0].strip(), new.strip()), edited)


def _change(old: str, new: str) -> str:
    return "" if re.search(r"[^\W\d]", old + new) else f"`{old}` to `{new}`" if new else f"`{old}` dropped"


def _is_another(old: str, new: str) -> bool:
    """Whether a text is a program, and another one: not only in comments and docstrings."""
    try:
        return _program(old) != _program(new)
    except SyntaxError:
        return False


def _program(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.dump(tree)


def running(desk: Desk) -> set[tuple[str, int]]:
    """The lines that a loss runs through in some usual cases: file, from the current folder, and number."""
    lines = {line for number in range(LOOKED) for line in desk.look(Look(number)).lines}
    return {(os.path.relpath(path), line) for path, line in lines if path in desk.program.texts}


def is_noticed(planted: Planted, desk: Desk, known: Sequence[str]) -> bool:
    """Whether a law that is not known to break breaks on some usual cases."""
    path = os.path.realpath(planted.file)
    whole = Edit(0, len(desk.program.texts[path].encode()), planted.text, planted.line)
    return bool(desk.sweep(Sweep(path, whole, range(LOOKED), frozenset(known))).law)


def copied(project: Path, folder: Path) -> Path:
    """A copy of a project."""
    ignored = shutil.ignore_patterns("__pycache__", ".yololoss", ".git")
    return Path(shutil.copytree(project, folder / "project", ignore=ignored))


def checked(folder: Path, spec: str, *options: Any) -> dict[str, Any] | None:
    """What a check says, as JSON; None where the loss cannot be called at all."""
    command = [sys.executable, "-m", "yololoss", "check", spec, "--json", *map(str, options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == USAGE and not done.stdout:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def waived(project: Path, spec: str, given: Any) -> list[str]:
    """Waive the laws that a project breaks as it is, in its settings; those that were waived."""
    said = checked(project, spec, "--workers", given.workers, "--cases", given.cases, "--no-shrink")
    if said is None:
        raise SystemExit(f"{spec} cannot be called")
    laws = sorted({law for fault in said["faults"] for law in (fault["law"], *fault["explains"])})
    with (project / "pyproject.toml").open("a", encoding="utf-8") as settings:
        for law in laws:
            settings.write(f'\n[[tool.yololoss.waivers]]\nlaw = "{law}"\nreason = "known"\nexpires = 2099-12-31\n')
    return laws


def tried(planted: Planted, project: Path, spec: str, given: Any) -> Result | None:
    """Plant it in a copy, and check that with mends. None if no law notices it, or nothing can be judged."""
    with tempfile.TemporaryDirectory() as name:
        folder = copied(project, Path(name))
        (folder / planted.file).write_text(planted.text, encoding="utf-8")
        usual = ("--workers", given.workers, "--cases", given.cases)
        said = checked(folder, spec, *usual, "--mend", "--for", given.seconds)
        if said is None or not said["faults"]:
            return None
        fault = said["faults"][0]
        mends = fault["mends"]
        sure = bool(mends) and mends[0]["sure"] == CURES_ALL
        right = (project / planted.file).read_text(encoding="utf-8")
        mended = sure and _holds(folder, spec, mends[0]["diff"], folder / planted.file, right, given.workers)
        named = [(each["file"], each["line"]) for each in mends]
        first = mends[0]["sure"] if mends else ""
        return Result(*planted[:4], fault["law"], named, first, mended, sure and not mended, said["seconds"])


def _holds(folder: Path, spec: str, diff: str, file: Path, right: str, workers: int) -> bool:
    """Whether the file is as it was once the difference is applied, or else a check finds no fault."""
    subprocess.run(["patch", "-p1", "-s"], input=diff, text=True, check=True, cwd=folder)
    if not _is_another(file.read_text(encoding="utf-8"), right):
        return True
    said = checked(folder, spec, "--workers", workers, "--cases", VERIFIED, "--no-shrink")
    return said is not None and not said["faults"]


def results(project: Path, spec: str, known: Sequence[str], given: Any) -> Iterator[Result]:
    """One result of each kind; those that are in the file of results are not made again."""
    path: Path | None = given.results
    kept = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    made = {each.kind: each for each in (_read(line) for line in kept)}
    os.chdir(project)
    desk = Desk(Task(spec, "cpu", "upstream"), ())
    lines = running(desk)
    texts = {file: (project / file).read_text(encoding="utf-8") for file in {file for file, _ in lines}}
    for kind in given.kinds or KINDS:
        if kind not in made:
            drawn = edits(kind, texts, lines, random.Random(f"{given.seed} {kind}"))
            seen = (each for each in drawn if is_noticed(each, desk, known))
            tries = (tried(each, project, spec, given) for each in islice(seen, DRAWN))
            found = next((each for each in tries if each is not None), None)
            if found is None:
                print(f"{kind}: no law noticed one", file=sys.stderr)
                continue
            made[kind] = found
            if path:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
        yield made[kind]


def _read(line: str) -> Result:
    values = json.loads(line)
    return Result(*values[:5], [tuple(each) for each in values[5]], *values[6:])


def table(found: Sequence[Result]) -> Iterator[str]:
    """The table, and a line that sums it up."""
    yield "| edit | in | law | line at fault | mended | check and mend |"
    yield "|---|---|---|---|---|---:|"
    for each in found:
        place = "not named" if each.place is None else ("first", "second", "third")[each.place]
        mended = "yes" if each.mended else "WRONG" if each.wrong else "no"
        where = f"`{each.file}:{each.line}`"
        kind = f"{each.kind}: {each.change}" if each.change else each.kind
        yield f"| {kind} | {where} | `{each.law}` | {place} | {mended} | {each.seconds:.0f} s |"
    first, three = (sum(each.place in places for each in found) for places in ((0,), (0, 1, 2)))
    mended = sum(each.mended for each in found)
    wrong = sum(each.wrong for each in found)
    yield f"\nOf {len(found)}: line first {first}, among three {three}, mended {mended}, wrong and called sure {wrong}."
    yield f"Median time of check and mend: {statistics.median(each.seconds for each in found):.0f} s."


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "examples" / "fork")
    parser.add_argument("spec", nargs="?", default=SPEC)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cases", type=int, default=600, help="of the check that finds the fault")
    parser.add_argument("--for", dest="seconds", default="60s")
    parser.add_argument("--results", type=Path, help="make only what this file does not have, and add to it")
    parser.add_argument("--seed", type=int, default=SEED, help="another one draws other edits")
    parser.add_argument("--kinds", nargs="*", metavar="KIND", help="only these")
    given = parser.parse_args()
    given.results = given.results and given.results.resolve()
    with tempfile.TemporaryDirectory() as name:
        project = copied(given.folder, Path(name)).resolve()
        laws = waived(project, given.spec, given)
        print(f"Waived, since the loss breaks them as it is: {', '.join(laws) or 'none'}.\n")
        print("\n".join(table([*results(project, given.spec, laws, given)])))


if __name__ == "__main__":
    main()
