"""The gate: a session of fixed cases on each device, with waivers, baseline and corpus, and its verdict."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from yololoss import _suite
from yololoss.harness.cases.vectors import Vector, VectorFile, read_corpus, read_vectors
from yololoss.harness.config import Config, Settings, check_waivers, read_config, settle
from yololoss.harness.devices.mirror import NAME as MIRROR
from yololoss.harness.engine import state
from yololoss.harness.engine.choices import by_choice
from yololoss.harness.engine.held import Held, found_if_unnamed, held_to
from yololoss.harness.engine.judge import Task, usual_limit
from yololoss.harness.engine.session import Session, begin
from yololoss.harness.engine.session_summary import verdict_of
from yololoss.harness.errors import USAGE, BadFile, UsageError
from yololoss.harness.findings.verdict import Verdict, explained, settled
from yololoss.harness.laws.exam import Law
from yololoss.harness.laws.law import SEED, find_laws
from yololoss.harness.subjects.compiled import NAME as COMPILE
from yololoss.harness.subjects.family import Family, LossUnderTest
from yololoss.harness.subjects.load import find_devices

# Cases for each law that is judged, in all at least `LEAST`. Laws share them: each judges far more than these.
CASES, LEAST = 30, 100
MIRROR_SHARE = 0.77  # on the mirror a case takes three times as long; so a gate takes about twice as long there
KNOWN = "it was broken when the baseline was recorded"
Show = Callable[[Session], object]  # called while a session runs; a true result ends it


def usual_cases(laws: int) -> int:
    """How many cases a gate of so many laws has, unless it is told."""
    return max(LEAST, CASES * laws)


@dataclass(frozen=True)
class Options:
    """What may be asked of a gate: the options of ``yololoss check`` and of the pytest plugin."""

    loss: str | None = None
    device: str | None = None
    dialect: str | None = None
    baseline: str | None = None
    corpus: str | None = None
    cases: int | None = None
    findings: str = ".yololoss/findings"
    no_shrink: bool = False
    replay: Sequence[str] = ()  # files whose cases are judged, each by its law, instead of new ones


class Gate:
    """The loss on each device, its record, corpus and waivers. Raises UsageError for what does not exist.

    ``look``: whether to find out the dialect of the loss; of a named one, if a law breaks, what contradicts it.
    """

    def __init__(self, options: Options, folder: Path, *, look: bool = False) -> None:
        self.options, self._look = options, look
        self._folder = folder

    @cached_property
    def config(self) -> Config:
        """The settings of the project."""
        return read_config(self._folder)

    @cached_property
    def chosen(self) -> Settings:
        """The values given, else those of the project, else the defaults."""
        return settle(self.config, **{name: getattr(self.options, name) for name in Settings.model_fields})

    @cached_property
    def _baseline(self) -> VectorFile[Any, Any]:
        path = self.chosen.baseline
        return VectorFile(source={}, vectors=()) if path is None else self._read(path, "--baseline")

    @cached_property
    def _waived(self) -> dict[str, str]:
        """Why a law may break, by law. No law may break in a replay."""
        if self.options.replay:
            return {}
        waivers = reversed(self.config.waivers)  # the first of a law counts
        return dict.fromkeys(self._baseline.broken, KNOWN) | {waiver.law: waiver.reason for waiver in waivers}

    @cached_property
    def _devices(self) -> tuple[dict[str, torch.device], list[str]]:
        return find_devices(self.chosen.device)

    @property
    def absent(self) -> list[str]:
        """Devices of auto that are not available, and why."""
        return self._devices[1]

    @cached_property
    def held(self) -> Held:
        """The dialect that the loss is held to. The bundled loss has its own."""
        chosen, (device, *_) = self.chosen, self._devices[0]
        subject = Task(chosen.loss, device, chosen.dialect).under_test()
        return found_if_unnamed(chosen, subject) if self._look else Held(subject.dialect_text)

    @cached_property
    def _losses(self) -> dict[str, LossUnderTest]:
        return {name: Task(self.chosen.loss, name, self.held.dialect).under_test() for name in self._devices[0]}

    @cached_property
    def subjects(self) -> dict[str, LossUnderTest]:
        """The loss by device, with the baseline's record if there is one."""
        return {name: replace(loss, recorded=self._baseline.recorded) for name, loss in self._losses.items()}

    @property
    def family(self) -> Family:
        """The family of the loss."""
        return next(iter(self._losses.values())).family

    @cached_property
    def corpus(self) -> tuple[Vector[Any, Any], ...]:
        """The family's cases of the corpus given, else of the project's, if any."""
        folder, name = self.chosen.corpus, self.family.name
        try:
            vectors = read_corpus(Path(folder)).values() if folder else ()
            return tuple(vector for vector in vectors if vector.case.family == name)
        except UsageError as error:
            raise UsageError(f"--corpus {error}") from error

    @cached_property
    def replayed(self) -> tuple[Vector[Any, Any], ...]:
        """The cases of the files to replay."""
        return tuple(vector for path in self.options.replay for vector in self._read(path, "--replay").vectors)

    def _read(self, path: str, option: str) -> VectorFile[Any, Any]:
        own = self.family.name  # first: a file of that family can be read once the loss is there
        try:
            file = read_vectors(Path(path))
        except BadFile as error:
            raise UsageError(f"{option} {error}") from error
        if file.family != own:
            raise UsageError(f"{option} {path}: cases of the family {file.family}; the loss is of the family {own}")
        return file

    def prepare(self) -> None:
        """Look up everything that options and settings name, so that a typing error costs no run."""
        cases = self.options.cases
        if cases is not None and cases < 1:
            raise UsageError(f"--cases {cases}: expected 1 or more")
        with self.chosen.blamed():
            _ = self.subjects, self.corpus, self.replayed

    def check_waivers(self) -> None:
        """Raise UsageError for a waiver that has expired, or that names an unknown law."""
        if self.config.waivers:
            check_waivers(self.config, find_laws(self.family), datetime.now(tz=timezone.utc).date())

    def devices(self, law: Law | None) -> list[str]:
        """The devices that a law is listed for. Of several, one about compilation is for that alone; no other is."""
        about = law is not None and COMPILE in law.on
        several = len(self.subjects) > 1
        return [name for name, subject in self.subjects.items() if not several or subject.compile == about]

    def judge(self, device: str, laws: dict[str, Law], workers: int, show: Show) -> Verdict:
        """Judge the loss on a device by these laws: their rows and findings. Raises UsageError."""
        why = {id: law.assumes(self.subjects[device]) for id, law in laws.items()}
        apply = {id: law for id, law in laws.items() if why[id] is None}
        found = Verdict(status=0)
        if apply:
            settings = self._settings(device, apply, workers)
            found = self._by_its_choices(self._run(settings, apply, show), settings, apply, show)
        counted = {row["id"]: row for row in explained(found).laws}
        rows = tuple(self._row(id, why[id], counted.get(id)) for id in laws)
        return found.model_copy(update={"laws": rows})

    def _run(self, settings: state.Settings, laws: Container[str | None], show: Show) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="yololoss-", ignore_cleanup_errors=True) as folder:
            session = begin(Path(folder), settings, self._first(laws))
            session.run(show)
            return verdict_of(session, problem="interrupted" if session.interrupted else None)

    def _by_its_choices(self, found: Verdict, settings: state.Settings, laws: dict[str, Law], show: Show) -> Verdict:
        """The verdict, with one fault for each choice of the named dialect that the loss contradicts.

        Then all laws that broke are judged again by what the loss has: those that broke for a choice may break for
        something else too, and the others may explain that. Choices say nothing if all their laws still break: the
        loss only comes near to another dialect.
        """
        if not found.faults or found.problem or self._contradicted is None:
            return found
        held, faults = self._contradicted, by_choice(found.faults, self._contradicted, settings)
        shown = {each.law for each in faults if not each.choice}
        broke = {law for each in faults for law in each.laws}
        own = replace(settings, dialect=held.dialect, options={**settings.options, "dialect": held.dialect})
        subject = own.under_test()
        again = {id: law for id, law in laws.items() if id in broke and law.assumes(subject) is None}
        own = replace(own, laws=tuple(again), cases=self._cases(settings.device, len(again)))
        more = self._run(own, again, show) if again and len(shown) < len(faults) else Verdict(status=0)
        others = [each for each in more.faults if each.law not in shown]
        if {each.law for each in faults if each.choice} <= {each.law for each in others}:
            return found.model_copy(update={"problem": more.problem})
        return found.model_copy(update={"faults": (*faults, *others), "problem": more.problem})

    def _settings(self, device: str, laws: dict[str, Law], workers: int) -> state.Settings:
        chosen, options = self.chosen, self.options
        return state.Settings(
            loss=chosen.loss,
            device=device,
            dialect=self.held.dialect,
            baseline=chosen.baseline,
            modules=_own_modules(self.family, laws.values()),
            laws=tuple(laws),
            waived=tuple(self._waived),
            gate=True,
            shrink=not options.no_shrink,
            findings=options.findings,
            workers=workers,
            limit=usual_limit(device),
            seed=SEED,
            cases=self._cases(device, len(laws)),
            options={
                "loss": options.loss,
                "device": device if options.device else None,
                "dialect": self.held.dialect if self.held.looked else options.dialect,
            },
        )

    def task(self, device: str) -> Task:
        """The loss on a device, for what else is to be found out about it."""
        return Task(self.chosen.loss, device, self.held.dialect, baseline=self.chosen.baseline)

    @property
    def may_break(self) -> frozenset[str]:
        """Laws that are waived."""
        return frozenset(self._waived)

    def _cases(self, device: str, laws: int) -> int:
        """How many cases are made for so many laws: as many as the options say, or as usual."""
        usual = usual_cases(laws) * (MIRROR_SHARE if device.startswith(MIRROR) else 1)
        return 0 if self.options.replay else self.options.cases or int(usual)

    def _first(self, laws: Container[str | None]) -> tuple[str, ...]:
        vectors = self.replayed or self.corpus
        return tuple(vector.model_dump_json() for vector in vectors if vector.law in laws)

    def _row(self, id: str, otherwise: str | None, row: dict[str, Any] | None) -> dict[str, Any]:
        """The row of a law: with waivers, and why it does not apply."""
        if row is None:
            empty = {"tried": 0, "judged": 0, "not_applicable": {}, "notes": {}}
            return {"id": id, "word": "not applicable", "why": otherwise, **empty}
        why = self._waived.get(id)
        if why is not None and row["word"] in ("BROKE", "explained"):
            return {**row, "word": "waived", "why": why}
        needless = row["word"] == "held" and why not in (None, KNOWN)
        return {**row, "word": "failed"} if needless else row

    @cached_property
    def _contradicted(self) -> Held | None:
        """What the loss has in place of choices of the named dialect, if it contradicts some."""
        if not self._look or self.chosen.dialect is None:
            return None
        held = held_to(self.chosen, next(iter(self._losses.values())))
        return held if held.contradicted else None

    def holds_again(self, law: str) -> str:
        """What to say of a law whose row says "failed": its waiver is not needed."""
        return f"{law} is waived ({self._waived[law]}), but it holds again: remove the waiver"

    def verdict(self, laws: dict[str, Law], workers: int, show: Show) -> Verdict:
        """Judge the loss by these laws on every device."""
        found: dict[str, Verdict] = {}
        for device in self.subjects:
            about = {id: law for id, law in laws.items() if device in self.devices(law)}
            found[device] = self.judge(device, about, workers, show)
            if found[device].problem:
                break
        several = len(self.subjects) > 1
        rows = [(device, row) for device, each in found.items() for row in each.laws]
        return settled(
            Verdict(
                status=0,
                problem=found[device].problem,
                laws=tuple({**row, "id": f"{row['id']} {device}"} if several else row for device, row in rows),
                faults=tuple(fault for each in found.values() for fault in each.faults),
                failures=tuple(self.holds_again(row["id"]) for _, row in rows if row["word"] == "failed"),
                absent=tuple(self.absent),
                stopped="; ".join(filter(None, (each.stopped for each in found.values()))),
            )
        )


def _own_modules(family: Family, laws: Iterable[Law]) -> tuple[str, ...]:
    """The files of the laws that are in no family's package."""
    modules = {law.judge.__module__ for law in laws}
    theirs = {name for name in modules if name.rpartition(".")[0] not in (_suite.SHARED, family.package)}
    return tuple(sorted(str(sys.modules[name].__file__) for name in theirs))


def survey(loss: str, options: Iterable[str] = ()) -> Verdict:
    """Find which laws break, in another process: two losses may have modules of the same name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "yololoss", "check", loss, "--json", "--no-shrink", "--findings", folder]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        return Verdict.model_validate_json(done.stdout)
    except ValidationError:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        return Verdict(status=USAGE, problem=f"{loss}: its process printed {lines[-1]!r}")
