"""A module as text and as a tree: where a node lies in the text, and the edit that puts something in its place."""

import ast
from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# An expression of one of these kinds needs no parentheses, wherever it stands.
CLOSED = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set)
HUGE = 1e15  # larger numbers are limits, and some are no floats
CALLED = tuple(bytes([each]) for each in b")]_") + tuple(bytes([each]) for each in range(128) if chr(each).isalnum())
OPERATORS = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Attribute, ast.Starred)

MODULES = frozenset(("torch", "nn", "np", "numpy", "math", "F", "self", "cls"))  # names that are no values


class Edit(NamedTuple):
    """One change of a module: the bytes from ``start`` to ``end`` become ``new``."""

    start: int
    end: int
    new: str
    line: int  # of the first changed character, from 1
    kind: str = ""

    def applied(self, text: str) -> str:
        """The text with this change."""
        raw = text.encode()
        return (raw[: self.start] + self.new.encode() + raw[self.end :]).decode()


Edits: TypeAlias = Iterator[Edit]


class Source:
    """A module's text, with the places of its nodes."""

    def __init__(self, text: str) -> None:
        self.text, self.raw, self.tree = text, text.encode(), ast.parse(text)
        self.parent = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._starts = [0]
        for line in self.raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: Any) -> tuple[int, int]:
        """Where a node begins and ends, in bytes."""
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.AST) -> str:
        """A node's text."""
        start, end = self.span(node)
        return self.raw[start:end].decode()

    def in_place(self, node: Any, new: str) -> Edit:
        """The edit that puts a text in place of a node, as it is."""
        return Edit(*self.span(node), new, node.lineno)

    def edit(self, node: ast.AST, new: str) -> Edit:
        """The edit that puts an expression in place of another, in parentheses where it needs them."""
        start, end = self.span(node)
        beside, inside = self._beside(node), self.raw[start - 1 : start] == b"(" and self.raw[end : end + 1] == b")"
        if closed(new) and inside and beside and not self.raw[: start - 1].endswith(CALLED):
            return Edit(start - 1, end + 1, new, node.lineno)  # type: ignore[attr-defined]
        bare = beside and not inside and not closed(new)
        return Edit(start, end, f"({new})" if bare else new, node.lineno)  # type: ignore[attr-defined]

    def _beside(self, node: ast.AST) -> bool:
        """Whether an operator, an index or a call stands beside the node."""
        parent = self.parent.get(node)
        of = node in (getattr(parent, "func", 0), getattr(parent, "value", 0))
        return (isinstance(parent, OPERATORS) or of) and not isinstance(parent, ast.stmt | ast.keyword)

    @cached_property
    def statements(self) -> list[ast.stmt]:
        """All statements but imports and docstrings, in the order of the text."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, ast.stmt) and not _passive(node)]
        return sorted(found, key=lambda node: (node.lineno, node.col_offset))

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The numbers that stand in the module, each once."""
        values = (node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant))
        numbers = (each for each in values if isinstance(each, int | float) and not isinstance(each, bool))
        return tuple({each: None for each in numbers if abs(each) < HUGE})

    def running(self, lines: Container[int]) -> list[ast.stmt]:
        """The statements of which a line runs. Of one that holds others, its head counts."""
        return [node for node in self.statements if any(line in lines for line in head_lines(node))]

    @cached_property
    def outermost(self) -> list[Function]:
        """The functions that are in no other one."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)]
        return [node for node in found if self.function(node) is None]

    def function(self, node: ast.AST) -> Function | None:
        """The outermost function that a node is in the body of; None outside functions, and in defaults."""
        found, below = None, node
        while below in self.parent:
            above = self.parent[below]
            if isinstance(above, FUNCTIONS) and below in above.body:
                found = above
            below = above
        return found


class Place(NamedTuple):
    """A statement in its module, and what may stand in it."""

    source: Source
    statement: ast.stmt
    numbers: Sequence[float]  # that a right loss may contain

    @property
    def expressions(self) -> Iterator[ast.expr]:
        """Its expressions, outer ones first."""
        return expressions(self.statement)

    def edit(self, node: ast.AST, new: str) -> Edit:
        """The edit that puts an expression in place of another."""
        return self.source.edit(node, new)

    def of(self, node: ast.AST) -> str:
        """A node's text."""
        return self.source.of(node)

    def renamed(self, node: ast.AST, name: str, other: str) -> Edit:
        """The edit that puts another name in place of the one that a node ends with."""
        end = self.source.span(node)[1]
        return Edit(end - len(name.encode()), end, other, node.lineno)  # type: ignore[attr-defined]

    def exchanged(self, one: ast.AST, other: ast.AST) -> Edit:
        """The edit that exchanges two nodes, the first before the second."""
        (start, middle), (later, end) = self.source.span(one), self.source.span(other)
        between = self.source.raw[middle:later].decode()
        return Edit(start, end, f"{self.of(other)}{between}{self.of(one)}", one.lineno)  # type: ignore[attr-defined]


def closed(text: str) -> bool:
    """Whether an expression needs no parentheses beside an operator."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:  # such as a slice, which stands in brackets of its own
        return True
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):  # a negative number
        return True
    return isinstance(node, CLOSED) and not (isinstance(node, ast.Tuple) and not text.startswith("("))


def head_lines(node: ast.stmt) -> range:
    """The lines of a statement; of one that holds others, those before them."""
    body = getattr(node, "body", None)
    last = max(body[0].lineno - 1, node.lineno) if body else node.end_lineno
    return range(node.lineno, (last or node.lineno) + 1)


def expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, outer ones first; none of the statements in it, of annotations and f-strings."""
    waiting: list[ast.AST] = [child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt)]
    if isinstance(statement, ast.AnnAssign):
        waiting.remove(statement.annotation)
    if isinstance(statement, FUNCTIONS):
        defaults = [each for each in statement.args.kw_defaults if each is not None]
        waiting = [*statement.args.defaults, *defaults]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.JoinedStr | ast.stmt):
            continue
        if isinstance(node, ast.expr):
            yield node
        waiting += ast.iter_child_nodes(node)


def _passive(node: ast.stmt) -> bool:
    """Whether a statement does nothing that could be wrong."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.Raise | ast.Global | ast.Nonlocal)
