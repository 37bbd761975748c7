"""The pytest plugin: options, the fixture ``subject``, and the report of a broken law.

Every pytest run in an environment with yololoss loads it. So it imports nothing heavy until a test uses ``subject`` or
one of its options is given.
"""

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from yololoss.harness.errors import USAGE, UsageError
from yololoss.harness.findings.rows import ABSENT, FINDING, NOTHING, PROPERTY, nothing_judged

if TYPE_CHECKING:
    from yololoss.harness.engine.trial import Trial
    from yololoss.harness.findings.finding import Finding
    from yololoss.harness.laws.exam import LawBroken
    from yololoss.harness.laws.law import Law
    from yololoss.harness.subjects.family import Family, LossUnderTest

TRIAL: "pytest.StashKey[Trial]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, in their own group."""
    group = parser.getgroup("yololoss", "YOLOv5-style losses under test")
    group.addoption("--loss", help="the loss to test: path/to/file.py:Name or package.module:Name")
    group.addoption(
        "--device",
        help="the devices to test it on: cpu, cuda, cuda:N, mps, mirror (a simulated accelerator), compile (the CPU "
        "with torch.compile, with its own laws), several separated by commas; or auto: all available devices "
        "(default: cpu)",
    )
    group.addoption(
        "--dialect",
        help="the dialect of the loss, such as yolov5-4.0: its choices are no faults (default: upstream; for the "
        "bundled loss: yololoss; an unknown name lists all dialects)",
    )
    group.addoption(
        "--profile",
        choices=["gate", "explorer"],
        default="gate",
        help="gate: the same cases in every run; explorer: other cases in every run (default: %(default)s)",
    )
    group.addoption(
        "--laws",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only laws with this id, a prefix of it, or a pattern that it matches: boxes.gradient, assign, "
        "'totals.*-gain' (may be repeated)",
    )
    group.addoption(
        "--baseline",
        metavar="FILE",
        help="a baseline written by yololoss record: the loss must still do the same, and laws that it broke then may "
        "break",
    )
    group.addoption("--cases", type=int, metavar="N", help="cases per law (default: as in the gate)")
    group.addoption(
        "--no-shrink",
        action="store_true",
        help="do not minimise or draw failing cases",
    )
    group.addoption(
        "--findings",
        default=".yololoss/findings",
        metavar="DIR",
        help="where failing cases are saved (default: %(default)s)",
    )
    group.addoption("--corpus", help="a folder of case files: each law first judges the cases saved under it")
    group.addoption(
        "--replay",
        action="append",
        default=[],
        metavar="FILE",
        help="judge the cases of this file by the laws that they are saved under, instead of new cases",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look up everything that an option names, before tests are collected."""
    config.addinivalue_line("markers", "law(law): this test examines a subject by a law")
    given = ("loss", "device", "dialect", "baseline", "replay", "corpus", "cases")
    if any(getattr(config.option, name) not in (None, []) for name in given):
        with _told():
            _trial(config).prepare()


@contextmanager
def _told() -> Iterator[None]:
    """End the run with one line if a UsageError is raised."""
    try:
        yield
    except UsageError as error:
        pytest.exit(str(error), returncode=USAGE)


def _trial(config: pytest.Config) -> "Trial":
    from yololoss.harness.engine.trial import Trial  # noqa: PLC0415

    if TRIAL not in config.stash:
        worker = int(getattr(config, "workerinput", {"workerid": "gw0"})["workerid"].removeprefix("gw"))
        config.stash[TRIAL] = Trial(config.option, config.invocation_params.dir, worker)
    return config.stash[TRIAL]


def _subjects(config: pytest.Config) -> "dict[str, LossUnderTest]":
    with _told():
        config.stash[ABSENT] = _trial(config).absent
        return _trial(config).subjects


def _family(config: pytest.Config) -> "Family":
    with _told():
        return _trial(config).family


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of a subject on every device. If there are several, the tests' names contain them."""
    if "subject" in metafunc.fixturenames and len(_subjects(metafunc.config)) > 1:
        mark = metafunc.definition.get_closest_marker("law")
        about_compile = mark is not None and "compile" in mark.args[0].on
        names = [name for name in _subjects(metafunc.config) if (name == "compile") == about_compile]
        metafunc.parametrize("subject", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> "LossUnderTest":
    """The loss under test: from --loss, else from the project's settings, else the bundled loss."""
    subjects = _subjects(pytestconfig)
    return subjects[getattr(request, "param", next(iter(subjects)))]


def _device(item: pytest.Item) -> str:
    """The device that the test runs on."""
    return next(iter((*_params(item), *_subjects(item.config))))


def _params(item: pytest.Item) -> tuple[str, ...]:
    """The device in the test's name, if there are several devices."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return (params["subject"],) if "subject" in params else ()


def _law(item: pytest.Item) -> "Law | None":
    mark = item.get_closest_marker("law")
    law: Law | None = mark.args[0] if mark is not None else None
    return law


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the laws, and check the waivers. With --laws or --replay, keep only the laws that these name."""
    laws = {item: law for item in items if (law := _law(item)) is not None}
    family = _family(config) if laws else None
    # Python's sort is stable: the devices of a law stay in order.
    items.sort(key=lambda item: (item not in laws, item in laws and family is not None and laws[item].place(family)))
    with _told():
        if laws:
            _check_waivers(config)
        if config.option.laws:
            wanted = _wanted(config)
            _keep(config, items, [item for item, law in laws.items() if law.id in wanted])
        if config.option.replay:
            _keep(config, items, _replayed(config, laws))


def _replayed(config: pytest.Config, laws: "dict[pytest.Item, Law]") -> list[pytest.Item]:
    wanted = {vector.law for vector in _trial(config).replayed}
    kept = [item for item, law in laws.items() if law.id in wanted]
    if wanted and not kept:
        files = " ".join(map(str, config.option.replay))
        raise UsageError(
            f"--replay {files}: saved under {', '.join(sorted(map(str, wanted)))}, which is no law of these tests; "
            "to search all laws, run the folder properties"
        )
    return kept


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _wanted(config: pytest.Config) -> "dict[str, Law]":
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    return find_laws(_family(config), config.option.laws)


def _check_waivers(config: pytest.Config) -> None:
    if not _trial(config).config.waivers:
        return
    from datetime import datetime, timezone  # noqa: PLC0415

    from yololoss.harness.config import check_waivers  # noqa: PLC0415
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    # a waiver may name a law of a module that this run does not collect
    known = find_laws(_family(config))
    check_waivers(_trial(config).config, known, datetime.now(tz=timezone.utc).date())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Judge the subject by a law."""
    law = _law(pyfuncitem)
    if law is None:
        return None
    law.tally.clear()
    device = _device(pyfuncitem)
    otherwise = law.assumes(_subjects(pyfuncitem.config)[device])
    if otherwise:
        pytest.skip(otherwise)
    with _told():
        _trial(pyfuncitem.config).examine(law, device)
    return True


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes of the run."""
    if TRIAL in config.stash:
        config.stash[TRIAL].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a broken law as a finding: save it, and show it without a traceback."""
    report = yield
    law = _law(item)
    if law is None or call.when != "call":
        return report
    from yololoss.harness.laws.exam import LawBroken  # noqa: PLC0415

    if call.excinfo is not None and isinstance(call.excinfo.value, LawBroken):
        finding = _finding(call.excinfo.value, item)
        report.longrepr = str(finding)
        report.user_properties.append((FINDING, finding.model_dump_json()))
        if call.excinfo.value.lost:
            _leave(item, finding)
    why = getattr(report, "wasxfail", None) or _skipped_because(report)
    row = {"id": " ".join((law.id, *_params(item))), "word": _word(report, law), "why": why, **vars(law.tally)}
    report.user_properties.append((PROPERTY, json.dumps(row)))
    return report


def _leave(item: pytest.Item, finding: "Finding") -> None:
    """End this process, which cannot use the lost device any more. xdist replaces the worker and continues."""
    if hasattr(item.config, "workerinput"):  # pragma: no cover  # a process that ends like this saves no coverage
        _farewell(item.config, item.nodeid).write_text(finding.model_dump_json(), encoding="utf-8")
        os._exit(1)
    item.session.shouldstop = "the device is lost; with -n 1 the run continues in another process"


def _farewell(config: pytest.Config, test: str) -> Path:
    """The file in which a worker saves its last finding."""
    return Path(config.option.findings) / f"lost-{sha256(test.encode()).hexdigest()[:8]}.tmp"


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """Report the finding of a worker that ended with a lost device."""
    farewell = _farewell(sched.config, crashitem)
    if farewell.exists():
        from yololoss.harness.findings.finding import Finding  # noqa: PLC0415

        text = farewell.read_text(encoding="utf-8")
        report.longrepr = str(Finding.model_validate_json(text))
        report.user_properties.append((FINDING, text))
        farewell.unlink()


def _skipped_because(report: pytest.TestReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""


def _word(report: pytest.TestReport, law: "Law") -> str:
    """The outcome, in the words of the table of laws."""
    if hasattr(report, "wasxfail"):
        return "waived"
    if report.skipped or (report.passed and law.tally.vacuous):
        return "not applicable"
    if report.passed:
        return "held"
    return "BROKE" if law.tally.broke_at else "failed"  # a waiver that is not needed, an error of the harness


def _finding(broken: "LawBroken", item: pytest.Item) -> "Finding":
    from yololoss.harness.findings.finding import keep  # noqa: PLC0415

    given = item.config.option
    device = next(iter(_params(item)), given.device)
    return keep(
        broken,
        _subjects(item.config)[_device(item)],
        Path(given.findings),
        {"loss": given.loss, "device": device, "dialect": given.dialect},
        drawn=not given.no_shrink,
    )


def _rows(reporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    """The rows of the table of laws, from the test reports."""
    reports = [r for outcome in ("passed", "failed", "xfailed", "skipped") for r in reporter.getreports(outcome)]
    return [json.loads(text) for report in reports for name, text in report.user_properties if name == PROPERTY]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End with status 2 if no law judged anything: such a run does not show that the loss is correct."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.exitstatus == 0 and _nothing_judged(reporter):
        session.exitstatus = USAGE


def _nothing_judged(reporter: pytest.TerminalReporter) -> bool:
    # after the loss is fixed, a replayed case may have nothing to judge
    return not reporter.config.option.replay and nothing_judged(_rows(reporter))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of laws; with -q without those that held."""
    rows = _rows(terminalreporter)
    if rows:
        from yololoss.harness.findings.summary import table  # noqa: PLC0415

        config = terminalreporter.config
        width = config.get_terminal_writer().fullwidth
        terminalreporter.write_line(table(rows, width, quiet=config.option.verbose < 0))
        for absent in config.stash.get(ABSENT, ()):
            terminalreporter.write_line(f"device {absent}: skipped")
        if _nothing_judged(terminalreporter):
            terminalreporter.write_line(NOTHING)
