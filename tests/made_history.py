"""Makes git repositories with the history of a loss. ``python -m tests.made_history FOLDER`` judges the long one.

By `git fast-import`: sixty commits take a moment, and have the same ids on every machine. In the long one there are
five faults, one of which is mended, a commit that cannot be imported, a rename and another dialect. The command judges
it twice: in a run that is killed after a while and continued, and without that. It prints what is not as it should be.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import HOME, faulty_text
from tests.faults.catalogue import BY_NAME

PACKAGE = "yolo"
BEFORE, AFTER = f"{PACKAGE}/loss.py", f"{PACKAGE}/criterion.py"
DIALECT = "THREE_LAYERS = (4.0, 1.0, 0.4)", "THREE_LAYERS = (4.0, 1.0, 0.3)"
KILLED = 120.0  # seconds after which the first run is killed
SHOWN = {
    "smoothing_doubled": "classes.item"
}  # laws that show a fault, where it is not the one that the catalogue names
NO_IMPORT = "import a_module_that_nobody_has\n"


class Made(NamedTuple):
    """A commit to make: files that it writes, or removes (None); numbers of its parents, if not the one before."""

    subject: str
    files: Mapping[str, str | None]
    parents: tuple[int, ...] = ()


def git(folder: Path, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run git without anybody's own configuration."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check, env=environment)


def make(folder: Path, commits: Iterable[Made]) -> list[str]:
    """Make a repository of these commits, the last one on the branch main. Returns their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    marks = folder / ".git" / "marks"
    stream = "".join(part for number, made in enumerate(commits) for part in _commit(number, made)).encode()
    command = ["git", "-C", str(folder), "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(command, input=stream, check=True)
    found = dict(line.split() for line in marks.read_text(encoding="utf-8").splitlines())
    return [found[f":{number + 1}"] for number in range(len(found))]


def _commit(number: int, made: Made) -> Iterator[str]:
    yield f"commit refs/heads/main\nmark :{number + 1}\n"
    yield f"committer a <a@example.org> {1_600_000_000 + 86400 * number} +0000\n{_data(made.subject)}"
    first, *others = made.parents or ((number - 1,) if number else (None,))
    yield f"from :{first + 1}\n" if first is not None else ""
    yield from (f"merge :{other + 1}\n" for other in others)
    for path, text in made.files.items():
        yield f"D {path}\n" if text is None else f"M 100644 inline {path}\n{_data(text)}"
    yield "\n"


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"


class Stage(NamedTuple):
    """What a commit does to the bundled loss: faults that begin or end, and other changes."""

    subject: str
    begins: str = ""
    ends: str = ""
    dialect: bool = False
    renames: bool = False
    imports: bool = True  # else it cannot be imported, until the next commit
    touches: bool = True


# By the number of its commit. The faults break laws of which no other one of them says anything.
LONG = {
    0: Stage("Say what this is", touches=False),
    7: Stage("Smooth labels in one place", begins="smoothing_doubled"),
    12: Stage("Return items as they are", begins="items_attached"),
    18: Stage("Mend the smoothing", ends="smoothing_doubled"),
    23: Stage("Use the new helpers", imports=False),
    29: Stage("Say that the loss was called", begins="environment_set"),
    34: Stage("Rename the loss", renames=True),
    41: Stage("Balance layers as our models want it", dialect=True),
    47: Stage("Warn of what is new", begins="warns_each_time"),
    55: Stage("Choose neighbours by sign", begins="neighbour_sign"),
}
SHORT = {
    0: Stage("Say what this is", touches=False),
    1: Stage("Write a loss"),
    2: Stage("Return items as they are", begins="items_attached"),
    3: Stage("Rename the loss, detach the items again", ends="items_attached", renames=True),
    4: Stage("Use the new helpers", imports=False),
}


def history(stages: Mapping[int, Stage], count: int) -> Iterator[Made]:
    """The commits of a package with the bundled loss. Every fifth one that has no stage touches only the README."""
    planted: list[str] = []
    dialect, path = False, BEFORE
    for number in range(count):
        stage = stages.get(number, Stage(f"Change {number}", touches=number % 5 != 0))
        planted = [name for name in [*planted, stage.begins] if name and name != stage.ends]
        dialect |= stage.dialect
        files: dict[str, str | None] = {}
        if stage.renames:
            files[path], path = None, AFTER
        if stage.touches:
            files |= _package(planted, path, f"# change {number}\n" + ("" if stage.imports else NO_IMPORT), dialect)
        yield Made(stage.subject, files or {"README.md": f"A loss, {number}.\n"})


def _package(planted: Iterable[str], path: str, more: str, dialect: bool) -> dict[str, str | None]:
    texts = {source.stem: source.read_text(encoding="utf-8") for source in HOME.glob("*.py")}
    if dialect:
        texts["loss"] = texts["loss"].replace(*DIALECT)
    for fault in (BY_NAME[name] for name in planted):
        texts[fault.module] = faulty_text(fault, texts[fault.module])
    texts["loss"] += more
    named = {name: text.replace("yololoss.v5.", f"{PACKAGE}.") for name, text in texts.items()}
    named = {name: text.replace("from yololoss.v5 import", f"from {PACKAGE} import") for name, text in named.items()}
    return {path if name == "loss" else f"{PACKAGE}/{name}.py": text for name, text in named.items()}


def expected(ids: list[str], stages: Mapping[int, Stage]) -> dict[str, list[tuple[str, str]]]:
    """For each law that shows a fault: its first bad and first good commits."""
    found: dict[str, list[tuple[str, str]]] = {}
    for number, stage in stages.items():
        for name, word in ((stage.begins, "first bad"), (stage.ends, "first good")):
            if name:
                found.setdefault(SHOWN.get(name, BY_NAME[name].law), []).append((word, ids[number]))
    return found


def wrong(table: Mapping[str, Any], ids: list[str], stages: Mapping[int, Stage]) -> Iterator[str]:
    """What a table, as JSON, does not say as it is."""
    found = {trail["law"]: [(c["word"], c["commit"]) for c in trail["changes"]] for trail in table["trails"]}
    if found != expected(ids, stages):
        yield f"faults: {found}, not {expected(ids, stages)}"
    yield from (
        f"not exact: {change}" for trail in table["trails"] for change in trail["changes"] if not change["exact"]
    )
    rows = {row["commit"]: row for row in table["rows"]}
    for number, stage in stages.items():
        row = rows.get(ids[number])
        if (row is not None) != stage.touches:
            yield f"{stage.subject}: {row}"
        elif row is not None and bool(row["why"]) == stage.imports:
            yield f"{stage.subject}: cannot say: {row['why']!r}"
        elif row is not None and any(mark.startswith("renamed") for mark in row["marks"]) != stage.renames:
            yield f"{stage.subject}: marks: {row['marks']}"
        elif row is not None and stage.dialect and not any(mark.startswith("dialect") for mark in row["marks"]):
            yield f"{stage.subject}: no other dialect"


def main(folder: Path) -> int:
    """Judge the long history, and print what is wrong, and how long each run took."""
    ids = make(folder / "repo", history(LONG, 60))
    laws = ("assign", "classes.item", "totals.items-detached", "run", "state.global-settings-unchanged")
    named = [f"--laws={law}" for law in laws]
    command = [sys.executable, "-m", "yololoss", "history", "repo", f"{AFTER}:ComputeLoss", "--cases=40", "--workers=1"]
    said = {}
    for out, kills in {"continued": (KILLED, None), "whole": (None,)}.items():
        for seconds in kills:
            began = time.monotonic()
            try:  # a run that takes too long is killed, as by kill -9
                done = subprocess.run(
                    [*command, *named, f"--out={out}", "--json"],
                    cwd=folder,
                    capture_output=True,
                    timeout=seconds,
                    check=False,
                )
                said[out] = done.stdout
            except subprocess.TimeoutExpired:
                pass
            kept = len([*(folder / out / "results").iterdir()])
            print(f"{out}: {time.monotonic() - began:.0f} s, {kept} results", flush=True)
    found = [*wrong(json.loads(said["continued"]), ids, LONG)]
    found += [] if said["continued"] == said["whole"] else ["the run that was killed gives another table"]
    print("\n".join(found) or "everything as it should be")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
