"""A certificate: which values were tried on which loss, how many so far, and the result. Written after every part.

The certificate of an interrupted proof says where to continue. A complete one says what holds.
"""

import json
import platform
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch

from yololoss.harness.cases.case import Data
from yololoss.harness.cases.files import write_whole
from yololoss.harness.engine.judge import Task
from yololoss.harness.findings.about import about, sources

NAMES = ("python", "torch", "numpy", "yololoss")


class Enumerated(Data):
    """All values of one kind."""

    what: str
    count: int


class Claim(Data):
    """What is to be proven, of which loss and where. A proof continues only if all of this is unchanged."""

    part: str
    statement: str
    grids: tuple[tuple[int, int], ...] = ()  # rows, columns
    bits: tuple[int, int] | None = None  # bits of the first centre, a float32, and of the one after the last
    laws: tuple[str, ...] = ()
    enumerated: tuple[Enumerated, ...]
    loss: str
    dialect: str
    sources: dict[str, str]  # SHA-256 of the files of the loss's own modules
    versions: dict[str, str]
    device: str
    machine: str

    @property
    def name(self) -> str:
        """A name for its file, different for every claim."""
        columns = "-".join(str(columns) for _, columns in self.grids)
        digest = sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
        return "-".join(filter(None, (self.part, columns, digest)))


class Certificate(Data):
    """A claim, and how far it is proven."""

    format: Literal["yololoss-certificate"] = "yololoss-certificate"
    version: Literal[1] = 1
    claim: Claim
    parts: int  # how many parts the proof has
    done: int = 0  # parts done
    tried: int = 0  # values tried
    verdict: Literal["incomplete", "holds", "refuted"] = "incomplete"
    odd: str | None = None  # the value that refutes it
    finding: str | None = None  # the file of its case
    seconds: float = 0.0
    date: str = ""

    def after(self, tried: int, seconds: float) -> "Certificate":
        """The certificate after one more part."""
        done = self.done + 1
        return self._changed(
            done=done,
            tried=self.tried + tried,
            seconds=round(self.seconds + seconds, 3),
            verdict="holds" if done == self.parts else "incomplete",
        )

    def refuted(self, odd: str, finding: str) -> "Certificate":
        """The certificate of a claim that this value refutes."""
        return self._changed(verdict="refuted", odd=odd, finding=finding)

    def _changed(self, **fields: object) -> "Certificate":
        now = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return self.model_copy(update={**fields, "date": now})


def claimed(task: Task, part: str, statement: str, **what: object) -> Claim:
    """A claim about this loss on this machine."""
    run = about(task.under_test(), task.device, "")
    fields = {
        "part": part,
        "statement": statement,
        "loss": task.loss,
        "dialect": run.dialect,
        "sources": sources(task.loss),
        "versions": {name: run.versions[name] for name in NAMES},
        "device": task.device,
        "machine": _machine(task.device),
        **what,
    }
    return Claim(**fields)  # type: ignore[arg-type]  # checked when it is made


def _machine(device: str) -> str:
    """What computes: for a CPU, the instruction set that torch uses; for a GPU, its name."""
    if device.startswith("cuda"):  # pragma: no cover  # needs a CUDA device
        return torch.cuda.get_device_name(device)
    return f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Write a certificate. Raises OSError."""
    write_whole(path, certificate.model_dump_json(indent=1) + "\n")
