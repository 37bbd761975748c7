"""What is taken for what by mistake: operators, functions, and the words that tell twins apart."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import partial

COMPARED = {
    ast.Lt: ("<=", ">", ">=", "!=", "=="),
    ast.LtE: ("<", ">=", ">", "!=", "=="),
    ast.Gt: (">=", "<", "<=", "!=", "=="),
    ast.GtE: (">", "<=", "<", "!=", "=="),
    ast.Eq: ("!=", "<=", ">=", "<", ">"),
    ast.NotEq: ("==", "<", ">", "<=", ">="),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
WRITTEN = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.MatMult: "@",
}
# the operators that stand for each by mistake, the most probable first
OPERATORS = {
    "+": "-*/",
    "-": "+/*",
    "*": ("/", "**", "+", "-", "//", "%"),
    "/": ("*", "//", "-", "+", "%"),
    "//": ("/", "%", "*"),
    "%": ("//", "/", "*"),
    "**": ("*", "/"),
    "&": "|^",
    "|": "&^",
    "^": "&|",
    "<<": (">>", "*"),
    ">>": ("<<",),
    "@": "*",
}
# Functions that stand for one another by mistake.
ALIKE = (
    ("min", "max"),
    ("amin", "amax"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("floor", "ceil", "round", "trunc"),
    ("exp", "log"),
    ("sum", "mean", "prod", "amax", "amin"),
    ("mean", "sum"),
    ("amax", "mean", "prod", "sum"),
    ("any", "all"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like", "full_like"),
    ("new_zeros", "new_ones", "new_empty"),
    ("sin", "cos"),
    ("atan", "atan2", "tanh"),
    ("square", "sqrt", "abs"),
    ("sigmoid", "tanh", "logsigmoid"),
    ("float", "half", "double", "long", "int"),
    ("mul", "add", "div", "sub"),
    ("eq", "ne", "lt", "le", "gt", "ge"),
    ("triu", "tril"),
    ("append", "extend"),
    ("shape", "stride"),
    ("scatter_", "scatter_add_"),
)
OPPOSITES: dict[str, tuple[str, ...]] = {}
for _group in ALIKE:
    for _name in _group:
        _others = tuple(each for each in _group if each != _name and each not in OPPOSITES.get(_name, ()))
        OPPOSITES[_name] = OPPOSITES.get(_name, ()) + _others
# What is put after a value, or around it, the most probable first.
AFTER = (
    ".detach()",
    ".clamp(0)",
    ".clamp(min=0)",
    ".square()",
    ".float()",
    ".long()",
    ".mean()",
    ".sum()",
    ".sigmoid()",
    ".flip(0)",
    ".flip(1)",
    ".abs()",
    ".sqrt()",
    ".exp()",
    ".floor()",
    ".clone()",
    ".T",
)
AROUND = ("{} * 2", "{} / 2", "1 - {}", "{} + 0.5", "{} - 0.5", "{} + 1", "{} - 1", "{} ** 2", "-{}", "1 / {}")
# Letters and numbers that tell twins apart: one of each pair stands in the place of the other.
AXES = (
    ("x", "y"),
    ("w", "h"),
    ("width", "height"),
    ("widths", "heights"),
    ("column", "row"),
    ("columns", "rows"),
)
TWINS = (
    *AXES,
    ("0", "1"),
    ("1", "2"),
    ("low", "high"),
    ("left", "right"),
    ("top", "bottom"),
    ("above", "below"),
    ("start", "end"),
    ("first", "last"),
    ("min", "max"),
    ("pos", "neg"),
)


def twins(name: str) -> Iterator[str]:
    """The names that differ by a twin."""
    words = re.split(r"(_|\d+)", name)
    for pair in TWINS:
        for one, other in (pair, pair[::-1]):
            for n, word in enumerate(words):
                if word == one:
                    yield "".join((*words[:n], other, *words[n + 1 :]))
                elif len(one) == 1 and one.isalpha() and len(word) > 1 and word.endswith(one):
                    yield "".join((*words[:n], word[:-1] + other, *words[n + 1 :]))


def exchanged_words(text: str) -> list[str]:
    """The text with twins exchanged: of both axes, also at the end of names; 0 and 1; both; or other words."""
    axes, numbers = _swapped_words(text, AXES), _swapped_words(text, [("0", "1")])
    others = (_swapped_words(text, [pair]) for pair in TWINS if pair not in AXES)
    found = (axes, numbers, _swapped_words(axes, [("0", "1")]), *others)
    return [each for each in dict.fromkeys(found) if each != text]


def _swapped_words(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    swap = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    either = "|".join(sorted(map(re.escape, swap), key=len, reverse=True))
    return re.sub(
        rf"(?<![a-zA-Z0-9.])({either})(?![a-zA-Z])|(?<=\b[a-z])([xywh])(?![a-zA-Z])", partial(_other, swap), text
    )


def _other(swap: dict[str, str], found: re.Match[str]) -> str:
    return swap.get(found[0], found[0])
