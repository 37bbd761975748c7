"""The search for what mends one fault: which edits are tried, in which order, and what their answers mean."""

import difflib
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from yololoss.harness.findings.finding import CURES_ALL, CURES_THIS, POSSIBLY, Finding, Mend
from yololoss.harness.mend.bench import Bench, shown_path
from yololoss.harness.mend.edits import KINDS, ROUNDS, edits
from yololoss.harness.mend.source import Edit
from yololoss.harness.mend.trial import RAISED, Answer, Ask, Look, Question, Seen, Sweep, Swept, Try

SCOUTED = 60  # cases of a gate that the loss, as it is, is run on: a second, and some fail for every common fault
SCOUTING = 0.15  # share of the time that this may take
FAILING = 6  # of them, those that fail are this many for each fault: an edit that cures these mostly cures all
SWEPT, PART = 600, 25  # cases of a gate that what mends is judged on, by all laws, if there is time
ENOUGH = 300  # of them: with fewer it is not said to cure everything
LONGER = 10.0  # seconds that the last edit may take beyond the time, so that it is told what it is
# An edit that mends the fault's own case says so much more of its line than one that changes what is wrong there.
CURED = 3
FEW = 4  # a line with fewer edits than these is not named for one of them
PLACES = 3  # lines that are named where nothing mends
RANK = {kind: n for n, kind in enumerate(KINDS)}
Place: TypeAlias = tuple[str, int]  # file and line
Show = Callable[[int], object]  # called with the number of edits that were tried


class Candidate(NamedTuple):
    """An edit of one of the files."""

    path: str
    edit: Edit

    @property
    def place(self) -> Place:
        """Its line."""
        return self.path, self.edit.line

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What is changed, whatever kind of edit it is."""
        return self.path, *self.edit[:3]


@dataclass
class Scout:
    """What the loss, as it is, does on the findings' cases and on some others."""

    bench: Bench
    seen: dict[int, Seen] = field(default_factory=dict)

    def look(self, until: float) -> "Scout":
        """Look at them."""
        cases = range(len(self.bench.given) + SCOUTED)
        for asked, answer in self.bench.answers(map(Look, cases), until):
            if answer is not None:
                self.seen[asked.case] = answer
        return self

    def of(self, n: int, fault: Finding) -> Seen:
        """What the loss does on the case of a fault; where it ends its process, only that its law broke."""
        return self.seen.get(n, Seen((fault.law,), (), frozenset()))

    def questions(
        self, n: int, fault: Finding, others: frozenset[str], waived: frozenset[str] = frozenset()
    ) -> list[Question]:
        """What must hold once this fault is mended: on its own case, then on others that fail, then on the rest.

        Not laws of other faults, even where they hold: this fault may hide another one there. Nor what breaks where a
        waived law breaks too: it may break for that.
        """
        own = self.of(n, fault)
        always = () if RAISED in others else (RAISED,)  # where the loss raises, no other law says anything
        found = [Question(n, (fault.law, *always, *(law for law in own.held if law not in {fault.law, *others})))]
        wanted = frozenset(fault.laws) - others
        failing: list[Question] = []
        passing: list[Question] = []
        for case, seen in sorted(self.seen.items()):
            broke = tuple(law for law in seen.broke if law in wanted and waived.isdisjoint(seen.broke))
            held = tuple(law for law in seen.held if law not in others)
            if case != n and (broke or held):
                (failing if broke else passing).append(Question(case, (*broke, *always, *held)))
        return [*found, *failing[:FAILING], *passing, *failing[FAILING:]]


@dataclass
class Search:
    """The search for what mends one fault."""

    bench: Bench
    fault: Finding
    lines: frozenset[Place]  # that run in its case
    questions: list[Question]
    others: frozenset[str]  # laws that may break: those that are waived, and those of other faults
    known: frozenset[str] = frozenset()  # those that are waived
    observed: str = ""  # what its law observes in its case
    numbers: Sequence[float] = ()
    found: Candidate | None = None  # what mends the fault
    everything: bool = False  # whether no law breaks with it, but for those that are waived
    tried: int = 0
    reached: dict[Candidate, Answer] = field(default_factory=dict)  # edits that mend the fault's own case
    _of_line: Counter[Place] = field(default_factory=Counter)  # edits tried
    _only: Counter[Place] = field(default_factory=Counter)  # edits that changed what is wrong, and nothing else
    _cured: Counter[Place] = field(default_factory=Counter)  # edits that mended the fault's own case
    _next: deque[Candidate] = field(default_factory=deque)
    _survivors: deque[Candidate] = field(default_factory=deque)  # not judged as a gate does yet
    _complete: bool = False  # whether the last edit was judged on enough cases of a gate
    _known: set[tuple[str, int, int, str]] = field(default_factory=set)

    def run(self, until: float, show: Show = lambda _: None, first: Collection[Candidate] = ()) -> None:
        """Search for what mends the fault, or go on with it. ``first``: edits that are tried before others."""
        self._next.extendleft(first)  # tried already, they are left out
        while self.found is None and time.monotonic() < until:
            found = self._survivor(self._candidates(), until, show)
            if found is None:
                return
            self.found = found if self._holds_everywhere(found, until) else None

    @property
    def mends(self) -> tuple[Mend, ...]:
        """What mends the fault; where nothing does, the lines at which it probably is."""
        return self._probably() if self.found is None else (self._told(self.found),)

    def cures_everything(self, until: float) -> bool:
        """Whether no law breaks with what mends the fault, but for those that are waived."""
        self.others = self.known
        return self.found is not None and not self._swept(self.found, until).law and self._complete

    @cached_property
    def _rest(self) -> Iterator[Candidate]:
        """The edits of all lines, in rounds: in the first by kind, then of one line after another.

        Lines that run when a module is imported come later: to import all again takes a hundred times as long.
        """
        slow = self.lines & self.bench.files.at_import
        first, *others = ROUNDS
        return chain(self._of(self.lines - slow, first), self._of(slow, first), *map(self._by_line, others))

    def _survivor(self, waiting: Iterator[Candidate], until: float, show: Show) -> Candidate | None:
        """The next edit with which all questions hold."""
        self.bench.asks = Ask(tuple(self.questions), self.observed)
        for asked, answer in self.bench.answers(self._messages(waiting), until):
            found = Candidate(asked.path, asked.edit)
            self.tried += 1
            self._of_line[found.place] += 1
            self._only[found.place] += answer is not None and answer.alone
            show(self.tried)
            if answer is not None and answer.held:
                self._next.extend(self._of([found.place]) if self._is_new_place(found) else ())
                self.reached[found] = answer
                self._cured[found.place] += 1
                if not answer.law:
                    self._survivors.append(found)
        return self._survivors.popleft() if self._survivors else None

    def _messages(self, waiting: Iterator[Candidate]) -> Iterator[Try]:
        """What to ask, until an edit is found with which all questions hold."""
        while not self._survivors and (each := next(waiting, None)) is not None:
            yield Try(*each)

    def _is_new_place(self, found: Candidate) -> bool:
        return not self._cured[found.place]

    def _candidates(self) -> Iterator[Candidate]:
        """Edits that were not tried yet. Every second one is of a line where another mended the fault's own case."""
        turn = True
        while True:
            turn = not turn
            each = self._next.popleft() if self._next and turn else next(self._rest, None)
            if each is None and not self._next:
                return
            each = each or self._next.popleft()
            if each.key not in self._known:
                self._known.add(each.key)
                yield each

    def _by_line(self, kinds: Collection[str]) -> Iterator[Candidate]:
        """Edits of one line after another: the line at which the fault most probably is comes first."""
        for place in sorted(self.lines, key=lambda place: (-self._score(place), place)):
            yield from self._of([place], kinds)

    def _of(self, lines: Collection[Place], kinds: Collection[str] | None = None) -> Iterator[Candidate]:
        """The edits of these lines in all files, by kind."""

        def of(path: str, text: str) -> Iterator[Candidate]:
            mine = {line for file, line in lines if file == path}
            return (Candidate(path, each) for each in (edits(text, mine, self.numbers, kinds) if mine else ()))

        files = self.bench.files.texts.items()
        return merge(*(of(*file) for file in files), key=lambda each: RANK[each.edit.kind])

    def _holds_everywhere(self, found: Candidate, until: float) -> bool:
        """Judge it as a gate does. Where a law breaks, its case is a question for the next edits."""
        while (broke := self._swept(found, until)).law:
            if broke.case < 0:
                return False
            if broke.law in self.fault.laws or not self._broke_before(found.path, broke, until):
                self.questions.insert(1, Question(broke.case, (broke.law,)))
                return False
            self.others |= {broke.law}
        self.everything = self._complete and self.others <= self.known
        return True

    def _swept(self, found: Candidate, until: float) -> Swept:
        """The first law that breaks on the cases of a gate. If time runs out, only this fault is known to be mended."""
        broke: list[Swept] = []
        parts = [range(first, first + PART) for first in range(0, SWEPT, PART)]
        messages = (Sweep(*found, part, self.others, self.known) for part in parts if not broke)
        for n, (_, answer) in enumerate(self.bench.answers(messages, until + LONGER)):
            swept = answer or Swept(-1, RAISED)  # it ended its process
            broke += [swept] if swept.law else []
            self._complete = (n + 1) * PART >= min(ENOUGH, SWEPT)
        return broke[0] if broke else Swept()

    def _broke_before(self, path: str, broke: Swept, until: float) -> bool:
        """Whether the law breaks on that case without any edit."""
        self.bench.asks = Ask((Question(broke.case, (broke.law,)),))
        nothing = [Try(path, Edit(0, 0, "", 1))]
        return any(answer is None or answer.law for _, answer in self.bench.answers(nothing, until + LONGER))

    def _told(self, found: Candidate) -> Mend:
        text = self.bench.files.texts[found.path]
        return told(found, text, CURES_ALL if self.everything else CURES_THIS, self.fault.laws)

    def _probably(self) -> tuple[Mend, ...]:
        """The lines whose edits most often mended the fault's case, or changed what is wrong there and nothing else."""
        best = sorted((place for place in self._of_line if self._score(place)), key=lambda place: -self._score(place))
        return tuple(self._place(*place) for place in best[:PLACES])

    def _score(self, place: Place) -> float:
        """How probably the fault is at a line, by its edits."""
        return (CURED * self._cured[place] + self._only[place]) / (self._of_line[place] + FEW)

    def _place(self, path: str, line: int) -> Mend:
        was = self.bench.files.texts[path].splitlines()[line - 1].strip()
        return Mend(file=shown_path(path), line=line, was=was, would_be="", sure=POSSIBLY, laws=(), diff="")


def told(found: Candidate, text: str, sure: str, laws: Sequence[str]) -> Mend:
    """What mends a fault, as it is told: the lines that change, and the difference as a file that can be applied."""
    file, edited = shown_path(found.path), found.edit.applied(text)
    old, new = text.splitlines(), edited.splitlines()
    changes = [c for c in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if c[0] != "equal"]
    (_, start, _, first, _), (_, _, end, _, last) = changes[0], changes[-1]
    was, now = ("\n".join(line.strip() for line in lines) for lines in (old[start:end], new[first:last]))
    return Mend(
        file=file,
        line=start + 1,
        was=was,
        would_be=now,
        sure=sure,
        laws=tuple(laws),
        diff=_difference(file, text, edited),
    )


def _difference(file: str, old: str, new: str) -> str:
    """The difference of two texts in unified form, as git apply and patch -p1 take it."""
    names = (file, file) if Path(file).is_absolute() else (f"a/{file}", f"b/{file}")
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), *names)
    end = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + end for line in lines)
