"""Reads a git repository by git's own plumbing commands. Nothing in it is written: no file, no index, no ref."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from typing_extensions import Self

from yololoss.harness.errors import UsageError, short

# A hook of git sets these for its own repository; they would override the folder that is given.
OVERRIDING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
FORMAT = "%P%x00%ct%x00%s"
PLAIN = ("100644", "100755", "100664")  # modes of files; a link has 120000, a submodule 160000


class Commit(NamedTuple):
    """A commit, as git tells it. The subject is a stranger's text."""

    id: str
    parents: tuple[str, ...]
    date: str
    subject: str


class Blob(NamedTuple):
    """The content of a file, by git's name for it."""

    id: str
    size: int


class Entry(NamedTuple):
    """A plain file of a commit."""

    path: str
    blob: Blob


class Repository:
    """A repository that is only read. Use it as a context: two processes of git answer until it is closed.

    Raises UsageError, one line, without git, without a repository, and for what git refuses.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        self.folder = folder
        self.prefix = self._git("rev-parse", "--show-prefix").rstrip("\n")  # of the folder, in the repository
        self.shallow = self._git("rev-parse", "--is-shallow-repository").strip() == "true"
        self._sizes = self._asked("--batch-check=%(objectname) %(objecttype) %(objectsize)")
        self._contents = self._asked("--batch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in (self._sizes, self._contents):
            process.kill()
            process.communicate()

    def resolve(self, rev: str, option: str) -> str:
        """The id of a commit that a revision names."""
        try:
            if rev.startswith("-"):
                raise UsageError(rev)
            return self._git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}").strip()
        except UsageError as error:
            raise UsageError(f"{option} {rev}: no such revision in {self.folder}") from error

    def is_ancestor(self, one: str, other: str) -> bool:
        """Whether the second commit has the first one in its history."""
        return self._run("merge-base", "--is-ancestor", one, other).returncode == 0

    def commits(self, to: str, since: str | None) -> list[Commit]:
        """The commits from one to another, both included: each after its parents."""
        given = [to] if since is None else [to, f"^{since}"]
        found = [*_commits(self._git("rev-list", "--topo-order", f"--format={FORMAT}", "--encoding=UTF-8", *given))]
        if since is not None:
            only = self._git("rev-list", "--no-walk", f"--format={FORMAT}", "--encoding=UTF-8", since)
            found += _commits(only)
        return found[::-1]

    def within(self, old: str | None, new: str) -> set[str]:
        """The ids of the commits of a range, as in git: without the old one, with the new one."""
        return set(self._git("rev-list", new, *([f"^{old}"] if old else [])).split())

    def renamed(self, parent: str, commit: str, path: str) -> str | None:
        """The name that a commit's file has in its parent, if the commit renamed it."""
        told = self._git("diff-tree", "-r", "-M", "--diff-filter=R", "--name-status", "-z", parent, commit)
        parts = told.split("\0")[:-1]
        return next((old for old, new in zip(parts[1::3], parts[2::3], strict=True) if new == path), None)

    def find(self, commit: str, path: str) -> Blob | None:
        """The file of a commit; None if there is none of that name."""
        if "\n" in path:  # which git would take for two questions
            return None
        self._ask(self._sizes, f"{commit}:{path}")
        answer = _line(self._sizes).split()
        found = len(answer) == 3 and answer[1] == "blob"
        return Blob(answer[0], int(answer[2])) if found else None

    def read(self, blob: Blob) -> bytes:
        """The content of a file."""
        self._ask(self._contents, blob.id)
        answer = _line(self._contents).split()
        if len(answer) != 3:  # a clone may lack objects
            raise UsageError(f"{self.folder}: git: object {blob.id} is missing")
        size = int(answer[2])
        return _out(self._contents).read(size + 1)[:size]

    def files(self, commit: str) -> Iterator[Entry]:
        """The plain files of a commit: no link, no submodule, nothing that would lie outside."""
        for line in self._git("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split("\0")[:-1]:
            about, _, path = line.partition("\t")
            mode, _, id, size = about.split()
            if mode in PLAIN and not {"", ".", "..", ".git"} & {*path.split("/")}:
                yield Entry(path, Blob(id, int(size)))

    def _asked(self, how: str) -> "subprocess.Popen[bytes]":
        command = self._command("cat-file", how)
        return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, env=_environment())

    def _ask(self, process: "subprocess.Popen[bytes]", what: str) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{what}\n".encode("utf-8", "surrogateescape"))
        process.stdin.flush()

    def _git(self, *arguments: str) -> str:
        """What git prints. Raises UsageError with git's own first line."""
        done = self._run(*arguments)
        if done.returncode:
            why = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0].removeprefix("fatal: ")
            raise UsageError(f"{self.folder}: git: {short(why) or f'exit status {done.returncode}'}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(self._command(*arguments), capture_output=True, env=_environment(), check=False)
        except FileNotFoundError as error:
            raise UsageError("git: no such command; history needs git") from error

    def _command(self, *arguments: str) -> Sequence[str]:
        return ["git", "--no-pager", "-C", str(self.folder), *arguments]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OVERRIDING}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def _out(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _line(process: "subprocess.Popen[bytes]") -> str:
    return _out(process).readline().decode("utf-8", "surrogateescape")


def _commits(told: str) -> Iterator[Commit]:
    """The commits that rev-list tells: a line with the id, and a line of that format."""
    lines = told.split("\n")
    for first, second in zip(lines[::2], lines[1::2], strict=False):
        parents, time, subject = second.split("\0", 2)
        yield Commit(first.removeprefix("commit "), tuple(parents.split()), _day(int(time)), _shown(subject))


def _day(time: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):  # somebody's clock was far off
        return "unknown"


def _shown(subject: str) -> str:
    """The subject as text that any file can hold."""
    return subject.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
