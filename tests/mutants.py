"""Mutants of the loss: every one of its texts that one small change makes of a module.

The classic operators are cosmic-ray's. Code for tensors does its work in method calls and keyword arguments, which
those leave alone, so here calls, arguments and statements are also taken away, and functions swapped for their
opposites.
"""

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from tests.faults import PACKAGES
from yololoss.harness.mend.source import Source

MODULES = {  # of each loss; each imports none but those before it
    "v5": ("assign", "boxes", "criteria", "checks", "gather", "loss"),
    "tal": ("boxes", "inputs", "checks", "parts", "assign", "explain", "terms", "loss", "ends"),
}
# Of each binary operator one or two others: what survives one of them survives all.
BINARY = ("Add_Sub", "Add_Mul", "Sub_Add", "Sub_Div", "Mul_Div", "Mul_Add", "Div_Mul", "Div_Sub", "Pow_Mul", "Mod_Mul")
BITS = ("BitOr_BitAnd", "BitAnd_BitOr")
COMPARED = tuple(
    f"{one}_{two}"
    for one in ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
    for two in ("Eq", "Lt", "LtE", "Gt", "GtE")
    if one != two
)
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{name}" for name in (*BINARY, *BITS)),
    *(f"core/ReplaceComparisonOperator_{name}" for name in COMPARED),
    "core/ReplaceUnaryOperator_USub_UAdd",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_Delete_Invert",
    "core/AddNot",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ZeroIterationForLoop",
)
OPPOSITES = {
    "amax": "amin",
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "floor": "ceil",
    "square": "abs",
    "sigmoid": "tanh",
    "logsigmoid": "sigmoid",
    "exp": "square",
    "log": "sqrt",
    "prod": "sum",
    "mean": "sum",
    "sum": "mean",
    "mul": "add",
    "add": "mul",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
    "new_zeros": "new_ones",
    "float": "half",
    "iou": "union",
    "centre_distance2": "union",
}
MODULE_NAMES = {"torch", "nn", "boxes", "math", "self"}


@dataclass(frozen=True)
class Mutant:
    """A module with one change in it."""

    module: str
    line: int
    old: str  # the lines that changed, without indentation
    new: str
    text: str

    @property
    def key(self) -> str:
        """What tells it from others."""
        return sha256(f"{self.module} {self.text}".encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line}: {self.old}  ->  {self.new}"


def mutants(module: str, package: str = "v5") -> Iterator[Mutant]:
    """Every mutant of a module of a loss that is another program, once."""
    text = (PACKAGES / package / f"{module}.py").read_text(encoding="utf-8")
    seen = {ast.dump(ast.parse(text))}
    for mutated in (*classic(module, package), *_cut(text)):
        try:
            program = ast.dump(ast.parse(mutated))
        except SyntaxError:
            continue
        if program not in seen:
            seen.add(program)
            yield _mutant(module, text, mutated)


def _mutant(module: str, text: str, mutated: str) -> Mutant:
    old, new = text.splitlines(), mutated.splitlines()
    changes = [c for c in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if c[0] != "equal"]
    (_, start, _, first, _), (_, _, end, _, last) = changes[0], changes[-1]
    was, now = (" ".join(line.strip() for line in lines) for lines in (old[start:end], new[first:last]))
    return Mutant(module, start + 1, was, now, mutated)


def classic(module: str, package: str = "v5") -> Iterator[str]:
    """The texts that cosmic-ray's operators make of a module."""
    text = (PACKAGES / package / f"{module}.py").read_text(encoding="utf-8")
    for name in OPERATORS:
        occurrence = 0
        while (mutated := mutate_code(text, get_operator(name)(), occurrence)) is not None:
            yield mutated
            occurrence += 1


def _cut(text: str) -> Iterator[str]:
    """Calls, arguments and statements taken away, arguments and functions exchanged."""
    source = Source(text)
    for node in ast.walk(source.tree):
        for new in _without(node):
            yield source.in_place(node, new).applied(text)


def _without(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assign | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "pass"
    if isinstance(node, ast.If):
        for test in ("True", "False"):
            yield ast.unparse(ast.If(ast.parse(test, mode="eval").body, node.body, node.orelse)).replace(
                "\n", "\n" + " " * node.col_offset
            )
    if isinstance(node, ast.Attribute) and node.attr in OPPOSITES:
        yield f"{ast.unparse(node.value)}.{OPPOSITES[node.attr]}"
    if not isinstance(node, ast.Call):
        return
    function = node.func
    if isinstance(function, ast.Attribute) and ast.unparse(function.value) not in MODULE_NAMES:
        yield ast.unparse(function.value)
    for i in range(len(node.keywords)):
        yield ast.unparse(ast.Call(function, node.args, node.keywords[:i] + node.keywords[i + 1 :]))
    for i in range(len(node.args) - 1):
        swapped = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.unparse(ast.Call(function, swapped, node.keywords))
