"""In which order commits are judged: the ends, then by bisection between different results, then the rest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Signature = Any  # what two results have in common if nothing changed between them; None: nothing can be said


def next_step(keys: Sequence[str], known: Mapping[str, Signature]) -> int | None:
    """The number of the next commit to judge; None if all are. Equal losses are judged once.

    ``keys``: of the commits, the oldest first. ``known``: what is known, by key.
    """
    left = [n for n, key in enumerate(keys) if key not in known]
    for end in (len(keys) - 1, 0):
        if end in left:
            return end
    gaps = [*_gaps(keys, known)] or [*_stretches(left)]
    return _middle(max(gaps, key=len)) if gaps else None


def _gaps(keys: Sequence[str], known: Mapping[str, Signature]) -> Iterator[list[int]]:
    """The commits to judge between each two that differ. Those of which nothing can be said do not count."""
    before: Signature = None
    between: list[int] = []
    for n, key in enumerate(keys):
        if key not in known:
            between.append(n)
        elif known[key] is not None:
            if between and before is not None and before != known[key]:
                yield between
            before, between = known[key], []


def _stretches(left: Sequence[int]) -> Iterator[list[int]]:
    """The numbers, as runs without a gap."""
    run: list[int] = []
    for n in left:
        if run and n != run[-1] + 1:
            yield run
            run = []
        run.append(n)
    if run:
        yield run


def _middle(numbers: Sequence[int]) -> int:
    return numbers[len(numbers) // 2]
