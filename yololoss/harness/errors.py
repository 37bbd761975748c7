"""What is said to a user in one line; no traceback, exit status 2."""

from collections.abc import Iterable
from difflib import get_close_matches

USAGE = 2  # exit status if the harness could not run


class UsageError(Exception):
    """The harness was asked for something that is not there; one line, with the closest match."""


class BadFile(UsageError):
    """A file that is not of its format; the message names the file, the place in it and what was wrong."""


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is closest, or nothing where none is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""
