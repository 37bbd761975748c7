"""Edits of whole statements: deleted, moved, or put back beside their twin.

Each kind is a function: of a statement it yields edits.
"""

import ast
from collections.abc import Sequence

from yololoss.harness.mend.source import Edit, Edits, Place
from yololoss.harness.mend.words import exchanged_words


def dropped(place: Place) -> Edits:
    """A statement deleted; of one that holds others, also only its head."""
    node = place.statement
    declared = isinstance(node, ast.AnnAssign) and node.value is None
    if (
        isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.AnnAssign | ast.Delete | ast.Assert)
        and not declared
    ):
        yield _deleted(place, node)
    elif isinstance(node, ast.If | ast.For | ast.With | ast.Try | ast.While):
        yield _deleted(place, node)
        for block in (node.body, node.orelse if isinstance(node, ast.If) else []):
            if block:
                yield place.source.in_place(node, _dedented(place, node, block))
    elif isinstance(node, ast.Return) and not isinstance(place.source.parent[node], ast.FunctionDef):
        yield _deleted(place, node)


def _siblings(place: Place, node: ast.AST) -> list[ast.stmt]:
    """The statements of the block that a statement is in."""
    parent = place.source.parent[node]
    blocks = (getattr(parent, name, []) for name in ("body", "orelse", "finalbody"))
    return next((block for block in blocks if isinstance(block, list) and node in block), [])


def _deleted(place: Place, node: ast.stmt) -> Edit:
    """The edit that deletes a statement, with its line if nothing else is on it."""
    siblings, (start, end) = _siblings(place, node), place.source.span(node)
    if len(siblings) == 1:
        return Edit(start, end, "pass", node.lineno)
    raw = place.source.raw
    begin, after = raw.rfind(b"\n", 0, start) + 1, raw.find(b"\n", end) + 1
    alone = not raw[begin:start].strip() and not raw[end:after].split(b"#")[0].strip()
    return Edit(begin, after, "", node.lineno) if alone and after else Edit(start, end, "pass", node.lineno)


def _lines(place: Place, block: Sequence[ast.stmt]) -> str:
    return place.source.raw[place.source.span(block[0])[0] : place.source.span(block[-1])[1]].decode()


def _dedented(place: Place, node: ast.stmt, block: list[ast.stmt]) -> str:
    """A block of a statement, as it stands in that statement's place."""
    less = block[0].col_offset - node.col_offset
    return _lines(place, block).replace("\n" + " " * less, "\n")


def moved(place: Place) -> Edits:
    """A statement moved by one, or out of the block that it ends."""
    siblings = _siblings(place, place.statement)
    n = siblings.index(place.statement) if place.statement in siblings else 0
    if n:
        before = siblings[n - 1]
        if before in place.source.statements:
            yield place.exchanged(before, place.statement)
    parent = place.source.parent[place.statement]
    if (
        isinstance(parent, ast.If | ast.For | ast.With | ast.While)
        and n
        and siblings is parent.body
        and siblings[-1] is place.statement
    ):
        start = place.source.span(siblings[n - 1])[1]
        text = _lines(place, [place.statement])
        less = place.statement.col_offset - parent.col_offset
        moved = "\n" + " " * parent.col_offset + text.replace("\n" + " " * less, "\n")
        yield Edit(start, place.source.span(place.statement)[1], moved, place.statement.lineno)


def twin(place: Place) -> Edits:
    """A statement put back beside its twin, with the twins' names exchanged."""
    if isinstance(place.statement, ast.Assign | ast.AugAssign | ast.Expr):
        text, end = place.of(place.statement), place.source.span(place.statement)[1]
        for exchanged in exchanged_words(text):
            indent = "\n" + " " * place.statement.col_offset
            yield Edit(end, end, f"{indent}{exchanged}", place.statement.lineno)
