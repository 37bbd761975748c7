"""A dialect as text: the name of a known one, and the choices that differ from it.

``yolov5-6.1``, or ``upstream, balance = [4, 1, 0.3], smoothing = ignored``. A value is a word, a number, a list or a
table, as in Python. Without a name, the rest differs from the family's usual dialect.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from yololoss.harness.cases.case import Data
from yololoss.harness.errors import UsageError, closest


@dataclass(frozen=True)
class Recognised:
    """The dialect that a loss was found to have."""

    dialect: Any  # of the family's type
    unsure: Mapping[str, tuple[str, ...]]  # choices of which other options fit as well
    unexplained: Mapping[str, str]  # choices that no option explains, and what was seen
    explained: int  # other cases that the dialect explains
    tried: int  # of so many

    @property
    def sure(self) -> bool:
        """Whether the dialect explains everything that was tried, and no other one does."""
        return not self.unsure and not self.unexplained and 0 < self.tried == self.explained


PAIRS = {"[": "]", "{": "}", "(": ")"}


def read_dialect(text: str, known: Mapping[str, Data], usual: str) -> Data:
    """The dialect that the text names. Raises UsageError, one line, for an unknown name, choice or option."""
    first, *rest = _split(text)
    name, changes = (usual, [first, *rest]) if "=" in first else (first, rest)
    if name not in known:
        raise UsageError(f"--dialect {name}: no such dialect{closest(name, known)} (known: {', '.join(known)})")
    base = known[name]
    given = dict(_change(each, type(base)) for each in changes)
    try:
        return type(base).model_validate(dict(base) | given)
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        choice = str(first_error["loc"][0])
        raise UsageError(f"--dialect: {choice} = {_spell(given[choice])}: {first_error['msg']}") from error


def write_dialect(dialect: Data, known: Mapping[str, Data]) -> str:
    """The shortest text that names the dialect."""
    changes = {name: differences(dialect, base) for name, base in known.items()}
    nearest = min(changes, key=lambda name: len(changes[name]))
    return ", ".join((nearest, *changes[nearest]))


def differences(dialect: Data, base: Data) -> list[str]:
    """The choices in which a dialect differs from another."""
    return [f"{choice} = {_spell(value)}" for choice, value in dialect if value != getattr(base, choice)]


def whose_rule(dialect: Data, base: Data, known: Mapping[str, Data]) -> list[str]:
    """The known dialects that make every choice in which a dialect differs from another as that dialect makes it."""
    changed = {choice: value for choice, value in dialect if value != getattr(base, choice)}
    return [name for name, each in known.items() if changed.items() <= dict(each).items()]


def with_choice(dialect: Data, choice: str, value: Any) -> Data | None:
    """The dialect with one other option; None if that does not go with its other options."""
    try:
        return type(dialect).model_validate(dict(dialect) | {choice: value})
    except ValidationError:
        return None


def options_of(kind: Any) -> str:
    """The options of a choice, from its type."""
    words = get_args(kind)
    return ", ".join(map(str, words)) if get_origin(kind) is Literal else "a number" if kind is float else "numbers"


def text_of_table(table: Any) -> Any:
    """The text of a table of the settings: choices, and with ``like`` the dialect that they differ from."""
    if not isinstance(table, dict):
        return table
    changes = [f"{choice} = {_spell(value)}" for choice, value in table.items() if choice != "like"]
    return ", ".join((*([str(table["like"])] if "like" in table else []), *changes))


def _split(text: str) -> list[str]:
    """The parts between the commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in PAIRS) - (letter in PAIRS.values())
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _change(text: str, kind: type[Data]) -> tuple[str, Any]:
    choice, equals, value = (part.strip() for part in text.partition("="))
    choices = kind.model_fields
    if not equals or choice not in choices:
        raise UsageError(
            f"--dialect: no such choice as {choice!r}{closest(choice, choices)} (known: {', '.join(choices)})"
        )
    try:
        return choice, _fixed(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return choice, value  # a word


def _fixed(value: Any) -> Any:
    """The value as data that does not change: lists as tuples, and the keys of tables as text."""
    if isinstance(value, dict):
        return {str(key): _fixed(each) for key, each in value.items()}
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _spell(value: Any) -> str:
    """A value as `_change` reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_spell(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_spell, value)) + "]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value)
