"""Inspects a class or function: how it can be called, and what it returned. All families' call forms use it."""

import inspect
from collections.abc import Callable, Sized
from typing import Any, TypeGuard

from torch import Tensor

from yololoss.harness.subjects.subject import UnknownForm

OTHER_FORM = "for another form derive from yololoss.harness.subjects.subject.Subject"


def is_open(function: Callable[..., Any]) -> bool:
    """Whether it takes any number of positional arguments (``*args``), as a wrapper does."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def required(function: Callable[..., Any]) -> list[str]:
    """Names of the positional arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind in kinds]


def shown(names: list[str]) -> str:
    """The arguments, and what to do for another form, for an error message."""
    return f"({', '.join(names)}); {OTHER_FORM}"


def takes(builder: Callable[..., Any] | None, given: tuple[Any, ...]) -> TypeGuard[Callable[..., Any]]:
    """Whether there is a builder that takes these arguments. A method of that name may have another purpose."""
    try:
        return builder is not None and inspect.signature(builder).bind(*given) is not None
    except (TypeError, ValueError):  # other arguments; no signature
        return False


def total_and_items(result: Any) -> tuple[Tensor, Any]:
    """The total and the items of a result; the items are None if the loss returns only its total."""
    if isinstance(result, Tensor):
        return result, None
    if not isinstance(result, tuple | list) or len(result) != 2 or not isinstance(result[0], Tensor):
        shown = f"{type(result).__name__} of {len(result)}" if isinstance(result, Sized) else type(result).__name__
        raise UnknownForm(f"expected (total, items) or only the total, got {shown}; {OTHER_FORM}")
    return result[0], result[1]
