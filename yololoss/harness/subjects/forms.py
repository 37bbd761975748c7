"""Looking at a class or function: how it can be called, and what it returned. Shared by the families' call forms."""

import inspect
from collections.abc import Callable, Sized
from typing import Any, TypeGuard

from torch import Tensor

from yololoss.harness.subjects.subject import UnknownForm

OTHER_FORM = "for another form derive from yololoss.harness.subjects.subject.Subject"


def is_open(function: Callable[..., Any]) -> bool:
    """Whether it takes any positional arguments, as one that hands them on does."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def required(function: Callable[..., Any]) -> list[str]:
    """Names of the positional arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind in kinds]


def shown(names: list[str]) -> str:
    """The arguments, and what to do about another form, for an error message."""
    return f"({', '.join(names)}); {OTHER_FORM}"


def takes(builder: Callable[..., Any] | None, given: tuple[Any, ...]) -> TypeGuard[Callable[..., Any]]:
    """Whether there is a builder, and one that is called so: a method of that name may be for the loss's own use."""
    try:
        return builder is not None and inspect.signature(builder).bind(*given) is not None
    except (TypeError, ValueError):  # other arguments; no signature
        return False


def total_and_items(result: Any) -> tuple[Tensor, Any]:
    """A black box returns its total alone; the others total and items."""
    if isinstance(result, Tensor):
        return result, None
    if not isinstance(result, tuple | list) or len(result) != 2 or not isinstance(result[0], Tensor):
        shown = f"{type(result).__name__} of {len(result)}" if isinstance(result, Sized) else type(result).__name__
        raise UnknownForm(f"expected (total, items), or the total alone, got {shown}; {OTHER_FORM}")
    return result[0], result[1]
