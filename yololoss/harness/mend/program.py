"""The loss, loaded so that one function or module of it can be another for a while, without any file being written."""

import __future__

import ast
import functools
import gc
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, TypeVar
from unittest.mock import patch

from yololoss.harness.engine.judge import Task
from yololoss.harness.mend.source import Edit, Source
from yololoss.harness.subjects.family import LossUnderTest

T = TypeVar("T")
NOT_OWN = ("yololoss.harness", "yololoss._suite", "properties")  # modules of the harness
PACKAGES = ("site-packages", "dist-packages")  # folders of what is installed
STANDARD = tuple(os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib"))
LATER = __future__.annotations.compiler_flag


class Program:
    """A loss and its own files. ``patched`` makes one edit of them for as long as its context lasts."""

    def __init__(self, task: Task) -> None:
        self._task = task
        before = set(sys.modules)
        self.subject, self.at_import = traced(task.under_test)
        top = _top(self.subject.spec)
        self._modules = {n: m for n, m in list(sys.modules.items()) if _is_own(m, n not in before, top)}
        paths = {os.path.realpath(str(module.__file__)) for module in self._modules.values()}
        self.texts = {path: Path(path).read_text(encoding="utf-8") for path in sorted(paths)}
        self._sources = {path: Source(text) for path, text in self.texts.items()}
        found = gc.get_objects()
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = {}
        for each in found:
            if type(each) is FunctionType:  # isinstance would ask objects that warn when they are asked
                code = each.__code__
                self._functions.setdefault((code.co_filename, code.co_name, code.co_firstlineno), []).append(each)
        caches = (each for each in found if type(each) is functools._lru_cache_wrapper)
        self._caches = [each for each in caches if getattr(each, "__module__", "") in self._modules]
        self._named = {os.path.realpath(str(m.__file__)): str(m.__file__) for m in self._modules.values()}

    @contextmanager
    def patched(self, path: str, edit: Edit, *, whole: bool = False) -> Iterator[LossUnderTest]:
        """The loss with this edit. In the body of a function only that is compiled again, unless ``whole``.

        Raises what the edited text raises when it is compiled or imported.
        """
        for cache in self._caches:
            cache.cache_clear()
        found = None if whole else self._function(path, edit)
        if found is None:
            with self._imported_again(path, edit) as subject:
                yield subject
            return
        functions, code = found
        own = [function.__code__ for function in functions]
        try:
            for function in functions:
                function.__code__ = code
            yield self.subject
        finally:
            for function, each in zip(functions, own, strict=True):
                function.__code__ = each

    def _function(self, path: str, edit: Edit) -> tuple[list[FunctionType], CodeType] | None:
        """The functions whose body the edit changes, and their new code; None if it changes something else."""
        source = self._sources[path]
        node = enclosing(source, edit)
        if node is None:
            return None
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        found = self._functions.get((self._named[path], node.name, first), [])
        code = _compiled(source, node, edit, self._named[path])
        fits = all(len(f.__code__.co_freevars) == len(code.co_freevars) for f in found)
        return (found, code) if found and fits else None

    @contextmanager
    def _imported_again(self, path: str, edit: Edit) -> Iterator[LossUnderTest]:
        code = compile(edit.applied(self.texts[path]), path, "exec", dont_inherit=True)
        for name in self._modules:
            sys.modules.pop(name, None)
        own = SourceFileLoader.get_code

        def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
            return code if os.path.realpath(loader.get_filename(name)) == path else own(loader, name)

        folders = [*sys.path]
        try:
            with patch.object(SourceFileLoader, "get_code", get_code):
                yield self._task.under_test()
        finally:
            sys.modules.update(self._modules)
            sys.path[:] = folders


def _top(spec: str) -> str:
    """The top package of a loss; of a file in no package, the name of its module."""
    place = spec.rpartition(":")[0]
    if not place.endswith(".py"):
        return place.partition(".")[0]
    path = os.path.realpath(place)
    files = {os.path.realpath(str(m.__file__)): n for n, m in list(sys.modules.items()) if getattr(m, "__file__", None)}
    return files[path].partition(".")[0]


def _is_own(module: ModuleType, new: bool, top: str) -> bool:
    """Whether a module is one of the user's own that the loss needs."""
    path, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    if not path or not path.endswith(".py") or name.startswith(NOT_OWN) or is_installed(path):
        return False
    own = name.partition(".")[0] == top
    return own or (new and not name.startswith("yololoss."))  # a loss may use the bundled one, as it is


def is_installed(path: str) -> bool:
    """Whether a file belongs to an installed package or to Python."""
    real = os.path.realpath(path)
    return not set(PACKAGES).isdisjoint(Path(real).parts) or real.startswith(STANDARD)


def enclosing(source: Source, edit: Edit) -> Any:
    """The outermost function whose body contains the edit; None if there is none."""
    for node in source.outermost:
        start, end = source.span(node.body[0])[0], source.span(node)[1]
        if start <= edit.start and edit.end <= end:
            return node
    return None


def _compiled(source: Source, node: Any, edit: Edit, path: str) -> CodeType:
    """The code of a function with the edit in it, with the numbers of its lines."""
    start, end = source.span(node)
    raw = source.raw
    text = (raw[start : edit.start] + edit.new.encode() + raw[edit.end : end]).decode()
    parent = source.parent[node]
    if isinstance(parent, ast.ClassDef):  # names of two underscores depend on it
        head = f"class {parent.name}:\n{' ' * node.col_offset}"
    else:
        head = f"if 1:\n{' ' * node.col_offset}" if node.col_offset else ""
    lines = "\n" * (node.lineno - 1 - head.count("\n"))
    flags = LATER if "from __future__ import annotations" in source.text else 0
    return _inner(compile(lines + head + text, path, "exec", flags, dont_inherit=True), node.name)


def _inner(code: CodeType, name: str) -> CodeType:
    """The code of the function of that name in another code, which contains it."""
    waiting = [code]
    while (each := waiting.pop(0)).co_name != name or not each.co_flags & inspect.CO_OPTIMIZED:  # as of a class
        waiting += [inner for inner in each.co_consts if isinstance(inner, CodeType)]
    return each


def traced(work: Callable[[], T]) -> tuple[T, frozenset[tuple[str, int]]]:
    """What a function returns, and the lines that run in it, of files that are not installed: path and number."""
    lines: set[tuple[str, int]] = set()
    known: dict[str, bool] = {}

    def line(frame: FrameType, event: str, _: Any) -> Any:  # pragma: no cover  # coverage sees nothing meanwhile
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def call(frame: FrameType, _: str, __: Any) -> Any:  # pragma: no cover  # nor here
        path = frame.f_code.co_filename
        if path not in known:
            harness = str(frame.f_globals.get("__name__")).startswith(NOT_OWN)
            known[path] = not (path.startswith("<") or harness or is_installed(path))
        return line if known[path] else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        result = work()
    finally:
        sys.settrace(before)
        _called()
    return result, frozenset(lines)


def _called() -> None:
    """Do nothing. A debugger, or what measures coverage, sees this call and goes on."""
