"""Inspects a class or function: how it can be called, and what it returned. All families' call forms use it."""

import inspect
from collections.abc import Callable, Sized
from types import FunctionType, MethodType
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

from torch import Tensor

from yololoss.harness.subjects.subject import UnknownForm

ADAPTERS = "docs/use/adapters.md"


# Every case builds a new object of one class. To inspect its methods takes as long as to build it. By weak reference,
# since a method that is made for one object may keep its tensors in memory.
_SIGNATURES: WeakKeyDictionary[FunctionType, inspect.Signature] = WeakKeyDictionary()


def signature(called: Callable[..., Any]) -> inspect.Signature:
    """``inspect.signature``, remembered for each method of a class."""
    own = called.__func__ if isinstance(called, MethodType) else _called_method(called)
    if not isinstance(own, FunctionType):
        return inspect.signature(called)
    found = _SIGNATURES.get(own)
    if found is None:
        found = _SIGNATURES[own] = inspect.signature(called)
    return found


def _called_method(called: Any) -> Any:
    """The method that an object with ``__call__`` is called by; None if it may say itself how it is called."""
    alone = isinstance(called, type) or hasattr(called, "__signature__") or hasattr(called, "__wrapped__")
    return None if alone else type(called).__call__


def is_open(function: Callable[..., Any]) -> bool:
    """Whether it takes any number of positional arguments (``*args``), as a wrapper does."""
    return any(p.kind is p.VAR_POSITIONAL for p in signature(function).parameters.values())


def required(function: Callable[..., Any]) -> list[str]:
    """Names of the positional arguments without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = signature(function).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind in kinds]


def shown(names: list[str]) -> str:
    """The arguments, and what to do about them, for an error message."""
    return f"({', '.join(names)}). An adapter can build and call it: {ADAPTERS}"


def takes(builder: Callable[..., Any] | None, given: tuple[Any, ...]) -> TypeGuard[Callable[..., Any]]:
    """Whether there is a builder that takes these arguments. A method of that name may have another purpose."""
    try:
        return builder is not None and signature(builder).bind(*given) is not None
    except (TypeError, ValueError):  # other arguments; no signature
        return False


def total_and_items(result: Any) -> tuple[Tensor, Any]:
    """The total and the items of a result; the items are None if the loss returns only its total."""
    if isinstance(result, Tensor):
        return result, None
    if not isinstance(result, tuple | list) or len(result) != 2 or not isinstance(result[0], Tensor):
        shown = f"{type(result).__name__} of {len(result)}" if isinstance(result, Sized) else type(result).__name__
        expected = f"expected (total, items) or only the total, got {shown}"
        raise UnknownForm(f"{expected}. An adapter can make them of it: {ADAPTERS}")
    return result[0], result[1]
