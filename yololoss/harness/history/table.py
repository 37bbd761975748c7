"""Faults over commits: since which commit each is there, and since which it is gone. As data, text and a page."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from yololoss.harness.cases.case import Data
from yololoss.harness.history.line import Step
from yololoss.harness.history.verdicts import Broken, Result

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
Word = Literal["bad", "good", ""]  # "": nothing can be said
Kind = TypeVar("Kind")


class Change(Data):
    """A commit at which a fault begins, or is gone."""

    word: Literal["first bad", "first good"]
    commit: str
    after: tuple[str, ...]  # the nearest commits before it that were judged; none: it was so from the beginning
    exact: bool  # whether no commit lies between them; without one before it, whether none was there before


class Trail(Data):
    """A fault, over all commits."""

    law: str
    fault: str  # the law, and where one law shows several faults the title
    title: str
    changes: tuple[Change, ...]
    words: tuple[Word, ...]  # for each commit


class Row(Data):
    """A commit that touched the loss."""

    commit: str
    date: str
    subject: str
    loss: str
    judged: bool
    why: str  # nothing can be said
    dialect: str
    faults: tuple[Broken, ...]
    marks: tuple[str, ...]  # what changed, besides faults

    @property
    def word(self) -> str:
        """What is known of it."""
        if not self.judged:
            return "not judged"
        count = len(self.faults)
        return "cannot say" if self.why else f"{count} fault{'' if count == 1 else 's'}" if count else "good"


class Table(Data):
    """The history of a loss. Commits and what is said of each: the oldest first."""

    loss: str
    rows: tuple[Row, ...]
    trails: tuple[Trail, ...]

    @property
    def status(self) -> int:
        """1 if a commit has a fault, else 0."""
        return int(bool(self.trails))


@dataclass(frozen=True)
class _Before(Generic[Kind]):
    """What is known of the commits before one."""

    known: dict[str, Kind]  # of the nearest ones
    exact: bool  # whether they are its parents, and all of them


def make_table(loss: str, steps: Sequence[Step], results: Mapping[str, Result]) -> Table:
    """The table of these commits. ``results`` are by key."""
    found = {step.commit.id: results[step.key] for step in steps if step.key in results}
    by_id = {step.commit.id: step for step in steps}
    dialects = {id: result.dialect for id, result in found.items() if not result.why}
    rows = tuple(
        _row(step, found.get(step.commit.id), (*_moved(step, by_id), *_other_dialect(step, by_id, dialects)))
        for step in steps
    )
    return Table(loss=loss, rows=rows, trails=tuple(_trails(steps, found)))


def _row(step: Step, result: Result | None, marks: tuple[str, ...]) -> Row:
    shown = result or Result()
    return Row(
        commit=step.commit.id,
        date=step.commit.date,
        subject=step.commit.subject,
        loss=":".join(step.loss),
        judged=result is not None,
        why=shown.why,
        dialect=shown.dialect,
        faults=shown.faults,
        marks=marks,
    )


def _moved(step: Step, steps: Mapping[str, Step]) -> Iterator[str]:
    before = {":".join(steps[parent].loss) for parent in step.parents}
    if before and ":".join(step.loss) not in before:
        yield f"renamed: {' or '.join(sorted(before))} before"


def _other_dialect(step: Step, steps: Mapping[str, Step], dialects: Mapping[str, str]) -> Iterator[str]:
    mine, before = dialects.get(step.commit.id), _before(step, steps, dialects)
    others = sorted({*before.known.values()})
    if mine is not None and others and mine not in others:
        since = "" if before.exact else f", somewhere after {' and '.join(map(brief, before.known))}"
        yield f"dialect: {mine}; {' or '.join(others)} before{since}"


def _trails(steps: Sequence[Step], found: Mapping[str, Result]) -> Iterator[Trail]:
    """The faults, in the order in which they begin."""
    several = {law for each in found.values() for law, n in Counter(f.law for f in each.faults).items() if n > 1}
    first: dict[str, Broken] = {}
    for step in steps:
        for fault in found[step.commit.id].faults if step.commit.id in found else ():
            first.setdefault(_name(fault, several), fault)
    for name, fault in first.items():
        words = {id: _word(result, name, fault.law, several) for id, result in found.items()}
        yield Trail(
            law=fault.law,
            fault=name,
            title=fault.title,
            changes=tuple(_changes(steps, {id: word for id, word in words.items() if word})),
            words=tuple(words.get(step.commit.id, "") for step in steps),
        )


def _name(fault: Broken, several: Iterable[str]) -> str:
    """What identifies a fault. Numbers of its title are those of one case."""
    return f"{fault.law}: {NUMBER.sub('N', fault.title)}" if fault.law in several else fault.law


def _word(result: Result, name: str, law: str, several: Iterable[str]) -> Word:
    """Whether a commit has a fault. A law that another fault explains, or that does not apply, says nothing."""
    if name in {_name(fault, several) for fault in result.faults}:
        return "bad"
    return "good" if law in result.held else ""


def _changes(steps: Sequence[Step], words: Mapping[str, Word]) -> Iterator[Change]:
    by_id = {step.commit.id: step for step in steps}
    for step in steps:
        mine = words.get(step.commit.id)
        before = _before(step, by_id, words)
        if mine is None or mine in before.known.values() or (mine == "good" and not before.known):
            continue
        yield Change(
            word="first bad" if mine == "bad" else "first good",
            commit=step.commit.id,
            after=tuple(before.known),
            exact=before.exact,
        )


def _before(step: Step, steps: Mapping[str, Step], known: Mapping[str, Kind]) -> _Before[Kind]:
    """What is known before a commit: of its parents, and in place of each that is not known, of that one's parents."""
    found: dict[str, Kind] = {}
    todo, seen, exact = [*step.parents], {*step.parents}, not step.open
    while todo:
        each = todo.pop(0)
        if each in known:
            found[each] = known[each]
            continue
        exact = False
        more = [parent for parent in steps[each].parents if parent not in seen]
        todo += more
        seen.update(more)
    return _Before(found, exact)


def brief(commit: str) -> str:
    """The beginning of a commit's id, which identifies it."""
    return commit[:10]


def told(change: Change, rows: Mapping[str, Row]) -> str:
    """Where a fault begins or ends, in words. It is exact only where the commit before was judged."""
    row = rows[change.commit]
    if change.exact:
        return f"{brief(row.commit)}  {row.date}  {row.subject}"
    if change.after:
        return f"between {' and '.join(map(brief, change.after))} and {brief(row.commit)}"
    return f"{brief(row.commit)} or before"


def lines(table: Table) -> Iterator[str]:
    """The table as lines of text, the newest commit first."""
    wide = max((len(row.word) for row in table.rows), default=0)
    for row in reversed(table.rows):
        yield f"{brief(row.commit)}  {row.date}  {row.word:{wide}}  {row.subject}"
        yield from (f"  {mark}" for mark in (*row.marks, *([f"cannot say: {row.why}"] if row.why else [])))
    rows = {row.commit: row for row in table.rows}
    for trail in table.trails:
        yield f"\n{trail.law}: {trail.title}"
        yield from (f"  {change.word:10}  {told(change, rows)}" for change in trail.changes)
