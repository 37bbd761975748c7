"""The process that tries edits: it loads the loss once, and judges it with one edit after another."""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from yololoss.harness.cases.vectors import Vector, kind, make_vector
from yololoss.harness.engine.guard import UNWATCHED, is_watched
from yololoss.harness.engine.judge import WAITS, Task, Told, judged
from yololoss.harness.engine.plan import Plan
from yololoss.harness.laws.exam import Run
from yololoss.harness.laws.law import SEED
from yololoss.harness.mend import fence
from yololoss.harness.mend.program import Program, traced
from yololoss.harness.mend.source import Edit
from yololoss.harness.subjects.family import LossUnderTest, find_family, with_record

RAISED = "run.no-exception"


class Question(NamedTuple):
    """A case, and the laws that must hold on it. A case of a finding has its index; others follow, in their order."""

    case: int
    laws: tuple[str, ...]


class Look(NamedTuple):
    """Asks what the loss, as it is, does on a case."""

    case: int


class Seen(NamedTuple):
    """What it does there."""

    broke: tuple[str, ...]
    held: tuple[str, ...]
    lines: frozenset[tuple[str, int]]  # that run
    observed: str = ""  # of the law that the case is saved under


class Ask(NamedTuple):
    """What is asked of every edit that follows, in this order. It has no answer."""

    questions: tuple[Question, ...]
    observed: str = ""  # what the first law observes without an edit


NOTHING = Ask(())


class Try(NamedTuple):
    """Asks what the loss does with an edit: the first law that breaks."""

    path: str
    edit: Edit


class Answer(NamedTuple):
    """The first law that broke, and how."""

    held: int  # questions before it
    law: str = ""  # "": all laws held
    alone: bool = False  # whether an edit changed what the first law observes, and broke no other law there


class Sweep(NamedTuple):
    """Asks which law breaks with an edit on these cases of a gate."""

    path: str
    edit: Edit
    cases: range
    others: frozenset[str]  # laws of other faults, and waived ones, which may break
    waived: frozenset[str] = frozenset()  # of these, those that may also be why any other law breaks


class Swept(NamedTuple):
    """The first law that breaks, and on which case."""

    case: int = 0  # below 0: of no case
    law: str = ""  # "": all hold


class Files(NamedTuple):
    """The loss's own files, and the lines that run when they are imported."""

    texts: dict[str, str]
    at_import: frozenset[tuple[str, int]]


@dataclass
class Desk:
    """The loss in this process, and the cases that it is judged by."""

    task: Task
    given: Sequence[Vector[Any, Any]]
    asks: Ask = NOTHING

    @cached_property
    def program(self) -> Program:
        """The loss, loaded."""
        return Program(self.task)

    @cached_property
    def plan(self) -> Plan:
        """The laws, and what cases are made from."""
        return Plan(self.task.laws, self.program.subject)

    @property
    def files(self) -> Files:
        """The loss's own files."""
        return Files(self.program.texts, self.program.at_import)

    def vector(self, number: int) -> Vector[Any, Any]:
        """The case of that number: one of a finding, or one that a gate makes."""
        if number < len(self.given):
            return self.given[number]
        return make_vector(self.plan.case(self.plan.usual(number - len(self.given))), id="usual")

    def look(self, asked: Look) -> Seen:
        """What the loss does on a case. Of laws that run it again only the one that the case is saved under counts."""
        vector, subject = self.vector(asked.case), self.program.subject
        run = Run(with_record(subject, vector), vector.case)
        _, lines = traced(lambda: run.outcome)
        number = None if asked.case < len(self.given) else self.plan.usual(asked.case - len(self.given)).domain
        laws = self.plan.judges(vector.case, number, np.random.default_rng(SEED), str(vector.law))
        broke, held, observed = [], [], ""
        for law in laws:
            law.tally.clear()
            if not law.again or law.id == vector.law:
                told = judged(law, run)[0]
                if told is not None:
                    broke.append(law.id)
                    observed = _seen(told) if law.id == vector.law else observed
                elif law.tally.judged:
                    held.append(law.id)
        return Seen(tuple(broke), tuple(held), lines, observed)

    def attempt(self, asked: Try) -> Answer:
        """Judge the loss with an edit."""
        try:
            with self.program.patched(asked.path, asked.edit) as subject:
                return self._judged(subject)
        except Exception:  # it cannot be compiled or imported
            return Answer(0, RAISED)

    def _judged(self, subject: LossUnderTest) -> Answer:
        for n, question in enumerate(self.asks.questions):
            vector = self.vector(question.case)
            run = Run(with_record(subject, vector), vector.case)
            for id in question.laws:
                told = self._told(id, run)
                own = n == 0 and id == question.laws[0] and question.case < len(self.given)
                if own and told is None and self._says_nothing(id):  # as where all is NaN now
                    return Answer(0, id)
                if told is not None:
                    other = own and _seen(told) != self.asks.observed
                    return Answer(n, id, other and not any(self._told(each, run) for each in question.laws[1:]))
            if RAISED in question.laws and vector.case.invalid is None and not run.answered:
                return Answer(n, RAISED)
        return Answer(len(self.asks.questions))

    def _told(self, id: str, run: Run) -> Told | None:
        """How a law breaks, if it does, and applies to the loss at all."""
        law = self.plan.laws.get(id)
        if law is None:
            return None
        law.tally.clear()
        return judged(law, run)[0]

    def _says_nothing(self, id: str) -> bool:
        """Whether a law did not apply to the last run. To compare nothing, where nothing is expected, is to judge."""
        law = self.plan.laws.get(id)
        return law is not None and bool(law.tally.not_applicable)

    def sweep(self, asked: Sweep) -> Swept:
        """The law that breaks first on the cases of a gate, with the number of the case; not for a waived one."""
        try:
            with self.program.patched(asked.path, asked.edit, whole=True) as subject:
                return self._swept(subject, asked)
        except Exception:  # it cannot be imported
            return Swept(-1, RAISED)

    def _swept(self, subject: LossUnderTest, asked: Sweep) -> Swept:
        for number in asked.cases:
            origin = self.plan.usual(number)
            run = Run(subject, self.plan.case(origin))
            chance = np.random.default_rng((SEED, number))
            for law in self.plan.judges(run.case, origin.domain, chance):
                told = None if law.id in asked.others else judged(law, run, self.plan, asked.waived)[0]
                if told is not None and told.explained not in asked.waived:
                    return Swept(number + len(self.given), law.id)
        return Swept()

    def answer(self, asked: Any) -> Any:
        """The answer to any message."""
        if isinstance(asked, Look):
            return self.look(asked)
        return self.attempt(asked) if isinstance(asked, Try) else self.sweep(asked)


def serve(pipe: Connection, task: Task, family: str, given: Iterable[str], folder: str) -> None:
    """The process: loads the loss, sends its files, then answers one message after another."""
    sys.dont_write_bytecode = True
    find_family(family)
    desk = Desk(task, [kind(family).vector.model_validate_json(text) for text in given])
    pipe.send(desk.files)
    _ = desk.plan
    tempfile.tempdir = folder
    fence.limit(task.memory)
    fence.FENCE.put_up(folder)
    while is_watched(WAITS):
        try:
            asked = pipe.recv()
        except EOFError:
            return
        is_watched(UNWATCHED * task.limit)
        if isinstance(asked, Ask):
            desk.asks = asked
        else:
            pipe.send(desk.answer(asked))


def _seen(told: Told) -> str:
    """What a law observes, as a text that tells two results apart."""
    return f"{told.what} {told.observed}"
