"""One run of the suite on a loss by pytest, and its verdict."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from yololoss import _suite
from yololoss.harness.errors import USAGE
from yololoss.harness.findings.finding import Finding
from yololoss.harness.findings.rows import ABSENT, FINDING, NOTHING, PROPERTY, nothing_judged
from yololoss.harness.findings.verdict import Verdict
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import Family

# The fork's own pytest settings, plugins and conftest files are for its own tests. The laws need only these.
PLUGINS = ("xdist.plugin", "yololoss.harness.plugin")
APART = ("-c", os.devnull, "--noconftest", "-p", "no:cacheprovider", "-p", "no:terminal")
Progress = Callable[[int, int], None]  # laws judged, laws in all


def run_suite(family: Family, options: list[str], workers: int, progress: Progress) -> Verdict:
    """Run the laws of a family with the plugin's options, in this process or in workers, and collect the results."""
    collector = _Collector(progress)
    arguments = [*APART, *(x for name in PLUGINS for x in ("-p", name)), f"--rootdir={_suite.FOLDER}", *options]
    arguments += ["-n", str(workers if workers > 1 else 0)]
    arguments += [import_module(package).__path__[0] for package in (_suite.SHARED, family.package)]
    start = time.perf_counter()
    with _alone(), redirect_stderr(io.StringIO()) as told:
        status = int(pytest.main(arguments, plugins=[collector]))
    if status == USAGE or status > 2:
        lines = [line for line in told.getvalue().splitlines() if line.strip()] or ["no law was run"]
        problem = collector.problem or lines[-1].removeprefix("ERROR: ")
        return Verdict(status=USAGE, problem=problem, laws=tuple(collector.rows), absent=tuple(collector.absent))
    nothing = status == 0 and nothing_judged(collector.rows)
    order = list(find_laws(family))
    findings = sorted(collector.findings, key=lambda f: order.index(f.law))
    return Verdict(
        status=USAGE if nothing else status,
        problem=NOTHING if nothing else None,
        seconds=time.perf_counter() - start,
        laws=tuple(collector.rows),
        findings=tuple(findings),
        failures=tuple(collector.failures),
        absent=tuple(collector.absent),
    )


def survey(loss: str, options: Iterable[str] = ()) -> Verdict:
    """Find which laws break, in another process: two losses may have modules of the same name."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "yololoss", "check", loss, "--json", "--no-shrink", "--findings", folder]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        return Verdict.model_validate_json(done.stdout)
    except ValidationError:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        return Verdict(status=USAGE, problem=f"{loss}: its process printed {lines[-1]!r}")


@contextmanager
def _alone() -> Iterator[None]:
    """Hide environment variables that are meant for the fork's own test runs. Workers inherit this."""
    theirs = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    with patch.dict(os.environ, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}):
        for name in theirs:
            os.environ.pop(name, None)
        yield


class _Collector:
    """Collects the rows and findings of the test reports, instead of pytest's own terminal output."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.total = self.done = 0
        self.rows: list[dict[str, Any]] = []
        self.findings: list[Finding] = []
        self.failures: list[str] = []
        self.absent: list[str] = []
        self.problem: str | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._expect(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._expect(len(ids))

    def _expect(self, total: int) -> None:
        self.total = total
        self.progress(self.done, self.total)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.problem = str(excinfo.value) or "interrupted"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        carried = [(name, text) for name, text in report.user_properties if name in (PROPERTY, FINDING)]
        mine = {name: str(text) for name, text in carried} if report.when == "call" or report.failed else {}
        if PROPERTY in mine:
            self.rows.append(json.loads(mine[PROPERTY]))
        if FINDING in mine:
            self.findings.append(Finding.model_validate_json(mine[FINDING]))
        elif report.failed:
            self.failures.append(f"{report.nodeid.rpartition('::')[2]}: {report.longreprtext}")
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.done += 1
            self.progress(self.done, self.total)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problem = report.longreprtext.strip().splitlines()[-1]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.absent = session.config.stash.get(ABSENT, [])
