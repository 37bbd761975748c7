"""Edits of expressions: another operator, number, name or function, a part of one, something more, something less.

Each kind is a function: of a statement it yields the edits of the expressions in it. What was added by mistake is taken
away by an edit that puts a part of an expression in its place; so such edits are few for each expression.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from yololoss.harness.mend.source import FUNCTIONS, MODULES, Edit, Edits, Place, closed
from yololoss.harness.mend.words import AFTER, AROUND, COMPARED, OPERATORS, OPPOSITES, WRITTEN, exchanged_words, twins

SHORT = 24  # letters of a short expression
MOST_SMALL = 25  # short expressions of a function that are tried in one place: the nearest
MOST_NAMES = 12  # other names tried for one name: of a long function, the nearest


def comparison(place: Place, near: bool) -> Edits:
    """Another comparison: the two that are taken for it most often, or the others."""
    for node in place.expressions:
        if isinstance(node, ast.Compare):
            for n, operator in enumerate(node.ops):
                others = COMPARED[type(operator)]
                for other in others[:2] if near else others[2:]:
                    yield _between(place, [node.left, *node.comparators][n], node.comparators[n], f" {other} ")


def _between(place: Place, left: ast.AST, right: ast.AST, new: str) -> Edit:
    """The edit of what stands between two nodes, without the parentheses that belong to them."""
    start, end = place.source.span(left)[1], place.source.span(right)[0]
    between = place.source.raw[start:end].decode()
    before, after = re.match(r"[\s)]*", between), re.search(r"[\s(]*$", between)
    closing, opening = (found[0].strip() if found else "" for found in (before, after))
    return Edit(start, end, f"{closing}{new}{opening}", left.lineno)  # type: ignore[attr-defined]


def part(place: Place) -> Edits:
    """A part of an expression in its place: without an operand, a call, an index, a sign, a condition."""
    for node in place.expressions:
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.Call | ast.Subscript | ast.UnaryOp | ast.IfExp | ast.Compare):
            for part in _parts(node):
                yield place.edit(node, place.of(part))


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.Subscript):
        yield node.value
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Call):
        method = node.func if isinstance(node.func, ast.Attribute) else None
        if method is not None and not _is_module(method.value):
            yield method.value
        yield from (each for each in node.args if not isinstance(each, ast.Starred))


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in MODULES


def shorter(place: Place) -> Edits:
    """An argument, an element or one of several conditions less."""
    for node in place.expressions:
        if isinstance(node, ast.Call):
            rows: list[list[Any]] = [[*node.args, *node.keywords]]
        elif isinstance(node, ast.BoolOp) and len(node.values) > 2:
            rows = [node.values]
        else:
            continue
        for row in rows:
            for n in range(len(row)):
                yield _without(place, node, row, n)


def _without(place: Place, node: ast.expr, row: list[Any], n: int) -> Edit:
    first, last = (row[n], row[n + 1]) if n + 1 < len(row) else (row[max(n - 1, 0)], row[n])
    start, end = place.source.span(first)[0], place.source.span(last)[1]
    if n + 1 < len(row):
        end = place.source.span(row[n + 1])[0]
    elif n:
        start = place.source.span(row[n - 1])[1]
    return Edit(start, end, "", node.lineno)


def operator(place: Place, near: bool) -> Edits:
    """Another operator: the one that is taken for it most often, or the others."""

    def some(operator: ast.operator) -> Sequence[str]:
        others = OPERATORS[WRITTEN[type(operator)]]
        return others[:1] if near else others[1:]

    for node in place.expressions:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd):
            yield place.edit(node, f"-{place.of(node.operand)}")
        if isinstance(node, ast.BinOp):
            for other in some(node.op):
                yield _between(place, node.left, node.right, f" {other} ")
    if isinstance(place.statement, ast.AugAssign):
        for other in some(place.statement.op):
            yield _between(place, place.statement.target, place.statement.value, f" {other}= ")
        yield _between(place, place.statement.target, place.statement.value, " = ")


def truth(place: Place) -> Edits:
    """True for False, and for or, a condition negated or fixed."""
    for node in place.expressions:
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield place.edit(node, str(not node.value))
        elif isinstance(node, ast.BoolOp):
            other = " and " if isinstance(node.op, ast.Or) else " or "
            yield place.edit(node, other.join(map(place.of, node.values)))
    condition = getattr(place.statement, "test", None)
    if condition is not None:
        yield from _negated(place, condition)
    for node in place.expressions:
        if isinstance(node, ast.IfExp):
            yield from _negated(place, node.test)
            yield place.edit(node, f"{place.of(node.orelse)} if {place.of(node.test)} else {place.of(node.body)}")


def _negated(place: Place, condition: ast.expr) -> Edits:
    yield place.edit(
        condition, f"not {place.of(condition)}" if closed(place.of(condition)) else f"not ({place.of(condition)})"
    )
    yield place.edit(condition, "True")
    yield place.edit(condition, "False")


def number(place: Place, near: bool) -> Edits:
    """Numbers near a number: its neighbours, half and double; or others, such as none, one, and its negative."""
    for node in place.expressions:
        value = _value(node)
        if value is not None:
            for other in [*_near(value)][:4] if near else [*_near(value)][4:]:
                yield place.edit(node, _written(other))


def _value(node: ast.expr) -> float | None:
    """The value of a number, which may be negative; None of anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and (value := _value(node.operand)) is not None:
        return -value
    found = node.value if isinstance(node, ast.Constant) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _near(value: float) -> Iterator[float]:
    if isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value, value // 2 if value % 2 == 0 else value / 2)
        yield from (-value, 0, 1, value + 2, value - 2, value + 0.5, value - 0.5)
    else:
        yield from (2 * value, value / 2, value + 1, 1 - value)
        yield from (value - 1, -value, 0.0, 1.0, value + 0.5, value - 0.5)
        yield from (value + 0.1, value - 0.1, value * 10, value / 10, value * value)


def _written(value: float) -> str:
    return f"{value:.10g}" if isinstance(value, float) and value != int(value) else repr(value)


def known_number(place: Place) -> Edits:
    """A number that a right loss may contain, or that stands elsewhere in the module, in place of another."""
    for node in place.expressions:
        value = _value(node)
        if value is not None:
            for other in dict.fromkeys((*place.numbers, *place.source.numbers)):
                whole = isinstance(value, int) and other == int(other)  # an index cannot be 2.0
                yield place.edit(node, repr(int(other) if whole else float(other)))


def index(place: Place) -> Edits:
    """Other halves, ends and columns of what an index takes."""
    for node in place.expressions:
        if isinstance(node, ast.Slice):
            lower, upper = node.lower, node.upper
            if lower is not None and upper is None:
                yield place.source.in_place(node, f":{place.of(lower)}")
            elif upper is not None and lower is None:
                yield place.source.in_place(node, f"{place.of(upper)}:")
            elif lower is not None and upper is not None:
                yield place.source.in_place(node, f"{place.of(lower)}:")
                yield place.source.in_place(node, f":{place.of(upper)}")
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            yield from _exchanged(place, node.slice.elts)


def _exchanged(place: Place, row: Sequence[ast.AST]) -> Edits:
    """Two of a row exchanged: first neighbours."""
    for apart in range(1, len(row)):
        for n in range(len(row) - apart):
            yield place.exchanged(row[n], row[n + apart])


def exchange(place: Place) -> Edits:
    """Arguments, elements and operands exchanged."""
    for node in place.expressions:
        if isinstance(node, ast.Call):
            yield from _exchanged(place, node.args)
            yield from _exchanged(place, [each.value for each in node.keywords])
        elif isinstance(node, ast.Tuple | ast.List):
            yield from _exchanged(place, node.elts)
        elif isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Add | ast.Mult):
            left, right = place.of(node.left), place.of(node.right)
            bare = [text if closed(text) else f"({text})" for text in (right, left)]
            yield place.edit(node, f" {WRITTEN[type(node.op)]} ".join(bare))
        elif isinstance(node, ast.IfExp):
            yield from _exchanged(place, (node.body, node.orelse))


def opposite(place: Place) -> Edits:
    """Another function: the opposite, or one that is often taken for it."""
    for node in place.expressions:
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        for other in OPPOSITES.get(name, ()):
            yield place.renamed(node, name, other)


def key(place: Place) -> Edits:
    """Another text of the same statement, such as a key."""
    texts = [n for n in place.expressions if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    for node in texts:
        for other in dict.fromkeys(place.of(each) for each in texts):
            yield place.edit(node, other)


def name_beside(place: Place) -> Edits:
    """A name in place of another of the same statement."""
    names = [node for node in place.expressions if isinstance(node, ast.Name) and node.id not in MODULES]
    for node in names:
        for other in dict.fromkeys(each.id for each in names):
            yield place.edit(node, other)


def twin_name(place: Place) -> Edits:
    """The name of the twin in place of a name: x for y, 1 for 0."""
    for node in place.expressions:
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            for other in twins(name):
                yield place.renamed(node, name, other)


def name_of_function(place: Place) -> Edits:
    """A name in place of another of the same function, the nearest first."""
    function = place.source.function(place.statement)
    if function is None:
        return
    used = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id not in MODULES]
    given = [each for each in ast.walk(function) if isinstance(each, ast.arg) and each.arg not in MODULES]
    called = {id(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    known = [(n.id, n.lineno) for n in used if id(n) not in called] + [(a.arg, a.lineno) for a in given]
    for node in place.expressions:
        read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called
        if isinstance(node, ast.Name) and read and node.id not in MODULES:
            near = sorted((abs(line - node.lineno), n, name) for n, (name, line) in enumerate(known))
            for other in [*dict.fromkeys(name for _, _, name in near)][:MOST_NAMES]:
                yield place.edit(node, other)


def attribute(place: Place) -> Edits:
    """An attribute in place of another that the module reads of the same object."""
    read: dict[str, dict[str, None]] = {}
    for node in ast.walk(place.source.tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id not in MODULES - {"self"}
        ):
            read.setdefault(node.value.id, {})[node.attr] = None
    for node in place.expressions:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            for other in [*read.get(node.value.id, ())][:MOST_NAMES]:
                yield place.edit(node, f"{node.value.id}.{other}")


def _values(place: Place) -> Iterator[ast.expr]:
    """The expressions that something may be put after or around."""
    for node in place.expressions:
        kinds = ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.BinOp | ast.UnaryOp
        loaded = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
        parent = place.source.parent[node]
        called = isinstance(parent, ast.Call) and parent.func is node
        if isinstance(node, kinds) and loaded and not called and not _is_module(node):
            yield node


def after(place: Place) -> Edits:
    """A call put after a value, such as ``.detach()``."""
    for node in _values(place):
        yield from _called(place, node)


def after_whole(place: Place) -> Edits:
    """A call put after all that a statement computes, or hands over to a call."""
    whole = getattr(place.statement, "value", None)
    handed = whole.args if isinstance(place.statement, ast.Expr) and isinstance(whole, ast.Call) else [whole]
    for node in _values(place):
        if node in handed:
            yield from _called(place, node)


def _called(place: Place, node: ast.expr) -> Edits:
    text = place.of(node)
    for call in AFTER:
        yield place.edit(node, f"{text if closed(text) else f'({text})'}{call}")


def around(place: Place) -> Edits:
    """A constant taken off a value, added to it, or a factor."""
    for node in _values(place):
        text = place.of(node)
        for around in AROUND:
            yield place.edit(node, around.format(text if closed(text) else f"({text})"))


def twin_part(place: Place) -> Edits:
    """A part of a statement as its twin in the same statement is."""
    parts = [node for node in _values(place) if not isinstance(node, ast.Name)]
    twins = dict.fromkeys(text for node in parts for text in exchanged_words(place.of(node)))
    for node in _values(place):
        own = _names(place.of(node))
        for text in twins:
            if own < _names(text):
                yield place.edit(node, text)


def _names(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d]\w*", text))


def _small(place: Place) -> list[tuple[str, ast.expr]]:
    """The short expressions of the function that a statement is in, each once, the nearest first."""
    around = place.source.function(place.statement) or place.source.tree
    kinds = ast.Name | ast.Attribute | ast.Subscript | ast.Compare | ast.Call
    found: list[ast.expr] = [node for node in ast.walk(around) if isinstance(node, kinds) and _may_stand(place, node)]
    nearest = sorted(range(len(found)), key=lambda n: (abs(found[n].lineno - place.statement.lineno), n))
    given = around.args.args if isinstance(around, FUNCTIONS) else []
    texts: dict[str, ast.expr] = {each.arg: ast.Name(each.arg) for each in given if each.arg not in MODULES}
    for n in nearest:
        texts.setdefault(place.of(found[n]), found[n])
    return [*texts.items()][:MOST_SMALL]


def _may_stand(place: Place, node: ast.expr) -> bool:
    """Whether an expression is short, and a value."""
    parent = place.source.parent[node]
    called = isinstance(parent, ast.Call) and parent.func is node
    start, end = place.source.span(node)
    loaded = isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
    return loaded and not called and not _is_module(node) and end - start <= SHORT


def expression(place: Place) -> Edits:
    """A short expression of the same function in place of a value or a number."""
    small = [text for text, _ in _small(place)]
    for node in place.expressions:
        if isinstance(node, ast.Constant) or node in _slots(place):
            for text in small:
                yield place.edit(node, text)


def _slots(place: Place) -> list[ast.expr]:
    """The values that a statement is made of: what is assigned or returned, arguments, elements, operands."""
    return [node for node in _values(place) if not isinstance(place.source.parent[node], ast.Attribute)]


def operand(place: Place) -> Edits:
    """A value with a short expression of the same function as one more operand."""
    small = _small(place)
    for node in _slots(place):
        text = place.of(node)
        bare = text if closed(text) else f"({text})"
        for other, kind in small:
            if isinstance(kind, ast.Compare):
                yield place.edit(node, f"{bare} & ({other})")
            else:
                for operator in "*+-/":
                    yield place.edit(node, f"{bare} {operator} {other}")
    for node in place.expressions:
        if isinstance(node, ast.Compare):
            for other, kind in small:
                if isinstance(kind, ast.Compare):
                    yield place.edit(node, f"({place.of(node)}) & ({other})")


def argument(place: Place) -> Edits:
    """A name or attribute of the same function as one more argument of a call."""
    small = [text for text, node in _small(place) if isinstance(node, ast.Name | ast.Attribute)]
    for node in place.expressions:
        if isinstance(node, ast.Call) and not node.keywords:
            end = place.source.span(node)[1] - 1
            for text in small:
                yield Edit(end, end, f", {text}" if node.args else text, node.lineno)
