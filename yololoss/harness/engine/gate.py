"""The gate: a session of fixed cases on each device, with waivers, baseline and corpus, and its verdict."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from yololoss import _suite
from yololoss.harness.cases.vectors import Vector, VectorFile, read_corpus, read_vectors
from yololoss.harness.config import Config, Settings, read_config, settle
from yololoss.harness.devices.mirror import NAME as MIRROR
from yololoss.harness.engine import state
from yololoss.harness.engine.judge import MEMORY, Task, usual_limit
from yololoss.harness.engine.session import Session, begin
from yololoss.harness.engine.session_summary import rows
from yololoss.harness.errors import USAGE, BadFile, UsageError
from yololoss.harness.findings.finding import Finding
from yololoss.harness.findings.rows import NOTHING, nothing_judged
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.laws.law import SEED, Law, find_laws
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


@dataclass
class Judged:
    """The result of a gate on one device."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # by law: waivers that are not needed
    interrupted: bool = False


class Gate:
    """The loss on each device, its record, corpus and waivers. Raises UsageError for what does not exist."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
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
    def _baseline(self) -> VectorFile[Any, Any] | None:
        return None if self.chosen.baseline is None else self._read(self.chosen.baseline, "--baseline")

    @cached_property
    def _devices(self) -> tuple[list[str], list[str]]:
        found, absent = find_devices(self.chosen.device)
        return list(found), absent

    @property
    def absent(self) -> list[str]:
        """Devices of auto that are not available, and why."""
        return self._devices[1]

    @cached_property
    def _losses(self) -> dict[str, LossUnderTest]:
        chosen = self.chosen
        return {name: Task(chosen.loss, name, chosen.dialect).under_test() for name in self._devices[0]}

    @cached_property
    def subjects(self) -> dict[str, LossUnderTest]:
        """The loss by device, with the baseline's record if there is one."""
        recorded = {} if self._baseline is None else self._baseline.recorded
        return {name: replace(loss, recorded=recorded) for name, loss in self._losses.items()}

    @property
    def family(self) -> Family:
        """The family of the loss."""
        return next(iter(self._losses.values())).family

    @cached_property
    def corpus(self) -> tuple[Vector[Any, Any], ...]:
        """The family's cases of the corpus given, else of the project's, if any."""
        folder, name = self.options.corpus or self.config.corpus, self.family.name
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
        """Look up everything that an option names, so that a typing error costs no run."""
        options = self.options
        if options.loss or options.device or options.dialect or options.baseline:
            _ = self.subjects
        _ = self.replayed
        if options.corpus:
            _ = self.corpus
        if options.cases is not None and options.cases < 1:
            raise UsageError(f"--cases {options.cases}: expected 1 or more")

    def judge(self, device: str, laws: dict[str, Law], workers: int, show: Show) -> Judged:
        """Judge the loss on a device by these laws. Raises UsageError."""
        subject = self.subjects[device]
        apply = tuple(id for id, law in laws.items() if law.assumes(subject) is None)
        judged = Judged()
        counted: dict[str, dict[str, Any]] = {}
        if apply:
            folder = Path(tempfile.mkdtemp(prefix="yololoss-"))
            try:
                modules = _own_modules(subject.family, (laws[id] for id in apply))
                session = begin(folder, self._settings(device, apply, modules, workers), self._first(apply))
                session.run(show)
                counted = {row["id"]: row for row in rows(session)}
                judged.findings = list(session.findings.values())
                judged.interrupted = session.interrupted
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        order = list(find_laws(subject.family))
        judged.findings.sort(key=lambda finding: order.index(finding.law))
        for id, law in laws.items():
            judged.rows.append(self._row(id, law.assumes(subject), counted.get(id), judged))
        return judged

    def _settings(self, device: str, laws: tuple[str, ...], modules: tuple[str, ...], workers: int) -> state.Settings:
        chosen, options = self.chosen, self.options
        usual = usual_cases(len(laws)) * (MIRROR_SHARE if device.startswith(MIRROR) else 1)
        waived = () if options.replay else (*self._broken_before, *(waiver.law for waiver in self.config.waivers))
        return state.Settings(
            loss=chosen.loss,
            device=device,
            dialect=chosen.dialect,
            baseline=chosen.baseline,
            modules=modules,
            laws=laws,
            waived=waived,
            gate=True,
            shrink=not options.no_shrink,
            findings=options.findings,
            workers=workers,
            memory=MEMORY,
            limit=usual_limit(device),
            seed=SEED,
            cases=0 if options.replay else options.cases or int(usual),
            options={"loss": options.loss, "device": device if options.device else None, "dialect": options.dialect},
        )

    def _first(self, laws: tuple[str, ...]) -> tuple[str, ...]:
        vectors = self.replayed or self.corpus
        return tuple(vector.model_dump_json() for vector in vectors if vector.law in laws)

    @property
    def _broken_before(self) -> tuple[str, ...]:
        """The laws that were broken when the baseline was recorded."""
        return () if self._baseline is None else self._baseline.broken

    def _row(self, id: str, otherwise: str | None, row: dict[str, Any] | None, judged: Judged) -> dict[str, Any]:
        """The row of a law: with waivers, and why it does not apply."""
        if row is None:
            empty = {"tried": 0, "judged": 0, "not_applicable": {}, "notes": {}}
            return {"id": id, "word": "not applicable", "why": otherwise, **empty}
        waiver = None if self.options.replay else self.config.waiver(id)
        broke = row["word"] == "BROKE"
        if waiver is not None and not broke:
            judged.failures[id] = f"{id} is waived ({waiver.reason}), but it holds again: remove the waiver"
            return {**row, "word": "failed"}
        if waiver is not None:
            return {**row, "word": "waived", "why": waiver.reason}
        if broke and id in self._broken_before and not self.options.replay:
            return {**row, "word": "waived", "why": KNOWN}
        return row

    def verdict(self, laws: dict[str, Law], workers: int, show: Show) -> Verdict:
        """Judge the loss by these laws on every device."""
        several = len(self.subjects) > 1
        found = Verdict(status=0, absent=tuple(self.absent))
        for device, subject in self.subjects.items():
            about = laws if not several else {i: law for i, law in laws.items() if _is_about(law, subject)}
            judged = self.judge(device, about, workers, show)
            named = [{**row, "id": f"{row['id']} {device}" if several else row["id"]} for row in judged.rows]
            found = found.model_copy(
                update={
                    "laws": (*found.laws, *named),
                    "findings": (*found.findings, *judged.findings),
                    "failures": (*found.failures, *judged.failures.values()),
                    "problem": "interrupted" if judged.interrupted else None,
                }
            )
            if judged.interrupted:
                break
        nothing = not (found.findings or found.failures or found.problem) and nothing_judged(found.laws)
        problem = NOTHING if nothing else found.problem
        status = USAGE if problem else int(bool(found.findings or found.failures))
        return found.model_copy(update={"status": status, "problem": problem})


def _is_about(law: Law, subject: LossUnderTest) -> bool:
    """Whether a law is listed for a device: those about compilation for it alone, and no others."""
    return (COMPILE in law.on) == subject.compile


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
