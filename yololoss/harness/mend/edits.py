"""Small edits of a module, the most probable kinds first. They know nothing of a particular loss."""

from collections.abc import Callable, Container, Sequence
from functools import lru_cache, partial

from yololoss.harness.mend import expressions, statements
from yololoss.harness.mend.source import Edits, Place, Source


def edits(
    text: str, lines: Container[int], numbers: Sequence[float] = (), kinds: Container[str] | None = None
) -> Edits:
    """Every edit of the statements that run on these lines, by kind; each place and text once.

    ``numbers``: those that a right loss may contain, such as the ones of its specification. ``kinds``: only these.
    """
    source, seen = _source(text), set[tuple[int, int, str]]()
    places = [Place(source, statement, numbers) for statement in source.running(lines)]
    for name, kind in KINDS.items():
        if kinds is not None and name not in kinds:
            continue
        for place in places:
            for edit in kind(place):
                key = edit[:3]
                if key not in seen and source.raw[edit.start : edit.end].decode() != edit.new:
                    seen.add(key)
                    yield edit._replace(kind=name)


_source = lru_cache(maxsize=16)(Source)  # a search asks for the edits of one line of a module after another


KINDS: dict[str, Callable[[Place], Edits]] = {
    "nearest comparison": partial(expressions.comparison, near=True),
    "statement dropped": statements.dropped,
    "part alone": expressions.part,
    "function": expressions.opposite,
    "operator": partial(expressions.operator, near=True),
    "truth": expressions.truth,
    "comparison": partial(expressions.comparison, near=False),
    "index": expressions.index,
    "after the whole": expressions.after_whole,
    "key": expressions.key,
    "exchange": expressions.exchange,
    "number": partial(expressions.number, near=True),
    "argument dropped": expressions.shorter,
    "twin": expressions.twin_name,
    "twin statement": statements.twin,
    "twin part": expressions.twin_part,
    "other operator": partial(expressions.operator, near=False),
    "other number": partial(expressions.number, near=False),
    "known number": expressions.known_number,
    "name beside": expressions.name_beside,
    "moved": statements.moved,
    "around": expressions.around,
    "after": expressions.after,
    "name": expressions.name_of_function,
    "attribute": expressions.attribute,
    "argument": expressions.argument,
    "expression": expressions.expression,
    "operand": expressions.operand,
}
# The kinds are tried in rounds, those of which there are few for each line first: a short time is enough for these on
# every line of a large loss. After the first, a round goes line by line; what was seen before says which line is first.
_FIRST = ("nearest comparison", "statement dropped", "part alone", "function", "operator")
_FEW = ("truth", "comparison", "index", "key", "exchange", "number", "argument dropped", "twin", "other operator")
_MANY = ("around", "after", "name", "attribute", "expression", "operand")
_SOME = tuple(kind for kind in KINDS if kind not in {*_FIRST, *_FEW, *_MANY})
ROUNDS = (_FIRST, _FEW, _SOME, _MANY)
