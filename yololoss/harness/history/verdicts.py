"""Judges one commit by the command that users run, ``yololoss check``, in a process of its own. Keeps each result."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import IO, NamedTuple

import psutil
from pydantic import ValidationError

from yololoss._suite import VERSION
from yololoss.harness.cases.case import Data, Finite
from yololoss.harness.cases.files import LARGEST, read_bytes, read_file, write_whole
from yololoss.harness.errors import BadFile, short
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.history.line import Step

# A case that is not minimised has settings that its fault does not need
SETTINGS = re.compile(r", with \w+ = .+$")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")  # of an object in memory: another one in every run


GONE = 10.0  # seconds in which a process that was killed is gone, on a busy machine


class Broken(Data):
    """A law that a loss breaks, and what is wrong, in a sentence."""

    law: str
    title: str


class Result(Data):
    """What is known of the loss at a commit. Laws that are not named here say nothing."""

    why: str = ""  # nothing can be said, and the reason
    limit: Finite = 0.0  # seconds after which the check was ended, if it was
    dialect: str = ""  # that the loss was held to
    faults: tuple[Broken, ...] = ()
    held: tuple[str, ...] = ()

    @property
    def signature(self) -> object:
        """What changes between two commits; None if nothing can be said."""
        return None if self.why else (frozenset(fault.law for fault in self.faults), self.dialect)


class How(NamedTuple):
    """How commits are judged."""

    limit: float  # seconds that one may take
    options: tuple[str, ...] = ()  # of check, which change its result
    more: tuple[str, ...] = ()  # others

    @property
    def key(self) -> str:
        """What results depend on, besides the loss and the limit of time."""
        return json.dumps([self.options, *(f"{name} {version(name)}" for name in ("torch", "numpy"))])


class Kept:
    """Results in a folder, a file for each loss and way to judge it. So a run that was killed continues."""

    def __init__(self, folder: Path, how: How) -> None:
        self._folder, self._how = folder, how

    def _path(self, key: str) -> Path:
        name = sha256(json.dumps([key, self._how.key, VERSION]).encode()).hexdigest()
        return self._folder / f"{name[:32]}.json"

    def get(self, key: str) -> Result | None:
        """The result of a loss; None if there is none that can be read, or if it may have more time now."""
        try:
            found = read_file(self._path(key), Result)
        except BadFile:
            return None
        return None if 0 < found.limit < self._how.limit else found

    def put(self, key: str, result: Result) -> None:
        """Keep the result of a loss."""
        write_whole(self._path(key), result.model_dump_json(indent=1))


Judge = Callable[[Step, Path], Result]  # the loss of a commit, whose files are in a folder


def judge_by(how: How, prefix: str) -> Judge:
    """How a commit is judged: no code of it runs in this process. ``prefix``: of the folder in the repository."""

    def judge(step: Step, folder: Path) -> Result:
        path = Path(os.path.relpath(step.loss.path, prefix or ".")).as_posix()
        return check(f"{path}:{step.loss.name}", folder, how)

    return judge


def check(spec: str, folder: Path, how: How) -> Result:
    """What ``yololoss check`` says of a loss, in a folder."""
    with tempfile.TemporaryDirectory(prefix="yololoss-history-", ignore_cleanup_errors=True) as away:
        out, errors = Path(away, "out"), Path(away, "errors")
        command = [sys.executable, "-m", "yololoss", "check", spec, "--json", "--no-shrink", f"--findings={away}"]
        with out.open("wb") as to, errors.open("wb") as other:
            ended = _run([*command, *how.options, *how.more], folder, how.limit, to, other)
        if not ended:
            return Result(why=f"it took longer than {how.limit:g} s", limit=how.limit)
        said = _said(out, errors)
    if isinstance(said, str):
        return Result(why=_plain(said, folder))
    return _result(said, folder)


def _run(command: list[str], folder: Path, limit: float, out: IO[bytes], errors: IO[bytes]) -> bool:
    """Run a command; its output goes to files. Returns whether it ended in time. Whatever happens, it has ended."""
    # A commit's own yololoss.py, or a module named as one of the standard library, must not stand in for ours
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        return False
    finally:
        _end(process)
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it has started, if it still runs."""
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for each in started:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        psutil.wait_procs(started, GONE)


def _said(out: Path, errors: Path) -> Verdict | str:
    """The verdict that a check printed, among whatever the loss printed; else why there is none."""
    try:
        text = read_bytes(out).decode("utf-8", "replace")
    except BadFile:
        return f"its process printed more than {LARGEST} bytes"
    document = text[max(text.rfind("\n{\n"), 0) :].partition("\n}\n")[0]
    try:
        verdict = Verdict.model_validate_json(f"{document}\n}}")
    except ValidationError:
        with errors.open("rb") as file:
            file.seek(max(errors.stat().st_size - LARGEST, 0))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return (lines or ["its process printed nothing"])[-1].removeprefix("yololoss: ")
    return verdict.problem or verdict


def _result(verdict: Verdict, folder: Path) -> Result:
    """What a verdict says. A choice that the named dialect contradicts is no fault, but another dialect."""
    faults = [fault for fault in verdict.faults if not fault.choice]
    choices = [fault.choice for fault in verdict.faults if fault.choice]
    return Result(
        dialect="; ".join([verdict.about.dialect if verdict.about else "", *choices]),
        faults=tuple(Broken(law=fault.law, title=_plain(SETTINGS.sub("", fault.title), folder)) for fault in faults),
        held=tuple(row["id"] for row in verdict.laws if row["word"] == "held"),
    )


def _plain(text: str, folder: Path) -> str:
    """The text without what differs from run to run: the temporary folder, addresses in memory."""
    return short(ADDRESS.sub("0x...", text.replace(f"{folder}{os.sep}", "")))
