"""A trial: what a run of pytest judges, and how it tries a law."""

from argparse import Namespace
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
import torch

from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import Vector, VectorFile, read_corpus, read_vectors
from yololoss.harness.config import Config, Settings, read_config, settle
from yololoss.harness.devices.devices import DeviceLost
from yololoss.harness.engine.judge import MEMORY, Judge, Task, usual_limit
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.laws.exam import LawBroken
from yololoss.harness.laws.law import GATE, GATE_SEED, Law, find_laws
from yololoss.harness.subjects.family import Family, LossUnderTest, with_record
from yololoss.harness.subjects.load import find_devices, load_loss


class Trial:
    """The loss on each device, its record, corpus and waivers. Raises UsageError for what does not exist."""

    def __init__(self, options: Namespace, folder: Path, worker: int) -> None:
        self.options = options
        self._folder = folder
        self._worker = worker  # number of this xdist worker; 0 without xdist
        self._judges: dict[str, Judge] = {}  # by device: processes that a case of the corpus may end

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
    def _devices(self) -> tuple[dict[str, torch.device], list[str]]:
        return find_devices(self.chosen.device, self._worker)

    @property
    def absent(self) -> list[str]:
        """Devices of auto that are not available, and why."""
        return self._devices[1]

    @cached_property
    def _losses(self) -> dict[str, LossUnderTest]:
        chosen, devices = self.chosen, self._devices[0]
        return {
            name: load_loss(chosen.loss, device, chosen.dialect, compiled=name == "compile")
            for name, device in devices.items()
        }

    @property
    def family(self) -> Family:
        """The family of the loss."""
        return next(iter(self._losses.values())).family

    @cached_property
    def subjects(self) -> dict[str, LossUnderTest]:
        """The loss by device, with the baseline's record if there is one."""
        found = {name: replace(loss, recorded=self._recorded) for name, loss in self._losses.items()}
        # Cases are small: a second thread costs more time than it saves, and xdist's workers use all cores.
        torch.set_num_threads(1)
        return found

    @cached_property
    def _recorded(self) -> dict[Case, Any]:
        vectors = () if self._baseline is None else self._baseline.vectors
        return {vector.case: vector.expected for vector in vectors if vector.expected is not None}

    def _was_broken(self, law: Law) -> bool:
        """Whether the law was broken when the baseline was recorded."""
        return self._baseline is not None and law.id in self._baseline.broken

    @cached_property
    def _corpus(self) -> tuple[Vector[Any, Any], ...]:
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
        """Look up everything that an option names, so that a typing error costs no test run."""
        options = self.options
        if options.loss or options.device or options.dialect or options.baseline:
            _ = self.subjects
        _ = self.replayed
        if options.corpus:
            _ = self._corpus
        if options.cases is not None and options.cases < 1:
            raise UsageError(f"--cases {options.cases}: expected 1 or more")

    def examine(self, law: Law, device: str) -> None:
        """Judge the loss on a device by a law: on the replayed cases, else on the corpus and then by a search.

        Raises LawBroken.
        """
        loss = self.subjects[device]
        try:
            if self.options.replay:
                for vector in self.replayed:
                    if vector.law == law.id:
                        law.examine(with_record(loss, vector), vector.case)
            elif (waiver := self.config.waiver(law.id)) is not None:
                self._search_waived(law, loss, waiver.reason)
            else:
                self._search_known(law, loss, device)
        except DeviceLost as lost:
            what = "the device, after this case"
            broken = LawBroken(law, lost.case, what, "a response", lost.detail, "none: the device is lost")
            broken.lost = True
            raise broken from None

    def _search_known(self, law: Law, loss: LossUnderTest, device: str) -> None:
        known = self._was_broken(law)
        try:
            for vector in self._corpus:
                if vector.law == law.id:
                    self._outlive(law, vector, device)
                    law.examine(with_record(loss, vector), vector.case)
            self._search(law, loss, shrink=not (known or self.options.no_shrink))
        except LawBroken:
            if not known:
                raise
            pytest.xfail("it was broken when the baseline was recorded")

    def _search(self, law: Law, loss: LossUnderTest, *, shrink: bool) -> None:
        phases = [hypothesis.Phase.generate, hypothesis.Phase.target, *([hypothesis.Phase.shrink] if shrink else [])]
        settings = hypothesis.settings(GATE, max_examples=self.options.cases or GATE.max_examples, phases=phases)
        law.search(loss, settings, GATE_SEED if self.options.profile == "gate" else None)

    def _search_waived(self, law: Law, loss: LossUnderTest, reason: str) -> NoReturn:
        try:
            self._search(law, loss, shrink=False)
        except LawBroken:
            pytest.xfail(reason)
        pytest.fail(f"{law.id} is waived ({reason}), but it holds again: remove the waiver", pytrace=False)

    def _outlive(self, law: Law, vector: Vector[Any, Any], device: str) -> None:
        """Raise LawBroken if this case ends the process of the loss: fuzz sessions save such cases too."""
        if find_laws(self.family).get(law.id) is not law:
            return  # a user's own law: a process of the harness does not know it
        if device not in self._judges:
            chosen = self.chosen
            self._judges[device] = Judge(Task(chosen.loss, device, chosen.dialect, MEMORY, usual_limit(device)))
        told = self._judges[device].ask(vector).told
        if told is not None and told.died:
            law.tally.tried += 1
            law.tally.broke_at = law.tally.tried
            raise told.broken(law, vector.case)

    def close(self) -> None:
        """End the processes that judged the corpus."""
        for judge in self._judges.values():
            judge.close()
