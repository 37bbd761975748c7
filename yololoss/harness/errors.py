"""Errors of the user: printed as one line without a traceback, exit status 2."""

from collections.abc import Iterable
from difflib import get_close_matches

USAGE = 2  # exit status if the harness could not run


class UsageError(Exception):
    """An invalid request, such as an unknown name. The message is one line, with the closest known name."""


class BadFile(UsageError):
    """A file with invalid content. The message names the file, the place in it, and what is wrong."""


def printable(text: str, keep: str = "") -> str:
    """The text with an escape for each character that is not seen as itself, except those to ``keep``.

    Text of a file may hold control characters, which a terminal obeys and XML forbids.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def short(text: str, most: int = 300) -> str:
    """The beginning of a text, in one line that can be printed."""
    return printable(text) if len(text) <= most else f"{printable(text[:most])} ..."


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at the closest known name, or "" if none is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""
