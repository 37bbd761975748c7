"""What a loss consists of at a commit: its file, and what that imports of the project. Read as text; nothing runs."""

import ast
import json
import posixpath
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from yololoss.harness.errors import UsageError
from yololoss.harness.history.commits import Blob, Repository

LARGEST = 2**20  # bytes of a file that is looked through for imports
MOST = 500  # files of a loss


class Place(NamedTuple):
    """Where a loss is: its file's path in the repository, and the name in it."""

    path: str
    name: str


class Imported(NamedTuple):
    """A module as an import statement names it: how many folders upwards it begins, and its parts."""

    level: int
    parts: tuple[str, ...]


def place(spec: str, option: str, repository: Repository, commit: str) -> Place:
    """Where the loss is that is named as for other commands; its path begins at the repository's folder.

    A module is looked up at a commit. Raises UsageError.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name or "\n" in spec:
        raise UsageError(f"{option} {spec}: expected path/to/file.py:Name or package.module:Name")
    if where.endswith(".py"):
        return Place(_path(where, option, spec, repository), name)
    path = posixpath.join(repository.prefix, *where.split("."))
    found = [each for each in (f"{path}.py", f"{path}/__init__.py") if repository.find(commit, each)]
    if not found:
        raise UsageError(f"{option} {spec}: no such module at the newest commit; name its file")
    return Place(found[0], name)


def _path(where: str, option: str, spec: str, repository: Repository) -> str:
    top = str(repository.folder.resolve())
    inside = where[len(top) + 1 :] if where.startswith(f"{top}/") else where
    path = posixpath.normpath(posixpath.join(repository.prefix, inside))
    if path.startswith(("/", "../")):
        raise UsageError(f"{option} {spec}: outside the repository")
    return path


class Sources:
    """What losses consist of, at any commit of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.imports = cache(self._imports)  # commits share most of their files

    def key(self, commit: str, loss: Place) -> str:
        """A text that is the same for two commits if the loss is; "" where its file is not there."""
        files = self.files(commit, loss.path)
        return sha256(json.dumps([loss, sorted(files.items())]).encode()).hexdigest() if files else ""

    def files(self, commit: str, path: str) -> dict[str, str]:
        """The loss's file and those that it imports, by path: git's name for the content.

        Of an import that may name several files, all that exist are taken.
        """
        begins = {self._repository.prefix.rstrip("/"), self._top(commit, path)}
        found: dict[str, str] = {}
        todo, seen = [path], {path}
        while todo and len(found) < MOST:
            each = todo.pop()
            blob = self._repository.find(commit, each)
            if blob is not None:
                found[each] = blob.id
                more = {*_packages(each), *_candidates(each, begins, self.imports(blob))} - seen
                seen |= more
                todo += more
        return found

    def _top(self, commit: str, path: str) -> str:
        """The folder that holds the outermost package that a file is in."""
        folder = posixpath.dirname(path)
        while folder and self._repository.find(commit, posixpath.join(folder, "__init__.py")):
            folder = posixpath.dirname(folder)
        return folder

    def _imports(self, blob: Blob) -> tuple[Imported, ...]:
        if blob.size > LARGEST:
            return ()
        try:
            return tuple(_imports(ast.parse(self._repository.read(blob))))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ()  # it cannot be imported, which its verdict says


def _imports(tree: ast.Module) -> Iterator[Imported]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Imported(0, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            yield from (Imported(node.level, (*base, alias.name)) for alias in node.names)


def _packages(path: str) -> Iterator[str]:
    """The files that Python runs before it imports this one."""
    folder = posixpath.dirname(path)
    while folder:
        yield f"{folder}/__init__.py"
        folder = posixpath.dirname(folder)


def _candidates(path: str, begins: set[str], imports: tuple[Imported, ...]) -> Iterator[str]:
    """The files that imports may mean."""
    for level, parts in imports:
        up = posixpath.dirname(path).split("/")
        for folder in begins if level == 0 else {"/".join(up[: len(up) - level + 1])}:
            for n in range(1, len(parts) + 1):
                module = posixpath.join(folder, *parts[:n])
                yield f"{module}.py"
                yield f"{module}/__init__.py"
