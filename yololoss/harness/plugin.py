"""The pytest plugin: options, the fixture ``subject``, and the report of a broken law.

No entry point loads it: its options have short names, which other plugins and conftest files may have too. A run that
wants it names it, by ``pytest -p yololoss.harness.plugin``, or in ``pytest_plugins`` of its conftest.py. It imports
nothing heavy until a test uses ``subject`` or one of its options is given.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from yololoss.harness.errors import USAGE, UsageError, printable
from yololoss.harness.findings.rows import NOTHING, PROPERTY, nothing_judged, reason
from yololoss.harness.subjects.project import find_settings

if TYPE_CHECKING:
    from yololoss.harness.engine.gate import Gate, Show
    from yololoss.harness.engine.session import Session
    from yololoss.harness.findings.verdict import Verdict
    from yololoss.harness.laws.exam import Law
    from yololoss.harness.subjects.family import LossUnderTest

GATE: "pytest.StashKey[Gate]" = pytest.StashKey()
JUDGED: "pytest.StashKey[dict[str, Verdict]]" = pytest.StashKey()  # by device
SHARED = "yololoss_folder"  # in the input of xdist's workers: the folder in which they share results
FOLDER: "pytest.StashKey[Path]" = pytest.StashKey()  # the same, in the process that starts them
WRONG = "wrong"  # the file in it that says why a worker could not run
STEP = 0.1  # seconds between two looks into that folder


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
    group.addoption("--cases", type=int, metavar="N", help="how many cases (default: 30 for each law, at least 100)")
    group.addoption("--no-shrink", action="store_true", help="do not minimise or draw failing cases")
    group.addoption(
        "--findings",
        default=".yololoss/findings",
        metavar="DIR",
        help="where failing cases are saved (default: %(default)s)",
    )
    group.addoption(
        "--vectors",
        action="append",
        default=[],
        metavar="FILE",
        help="for pytest golden: a file of recorded values, to which the reference is held, in the dialect that the "
        "file or --dialect names (may be repeated)",
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
    """Look up everything that options and settings name, before tests are collected and workers start."""
    config.addinivalue_line("markers", "law(law): this test examines a subject by a law")
    given = ("loss", "device", "dialect", "baseline", "replay", "corpus", "cases")
    with _told(config):
        options = any(getattr(config.option, name) not in (None, []) for name in given)
        if options or find_settings(config.invocation_params.dir) is not None:
            _gate(config).prepare()


@contextmanager
def _told(config: pytest.Config) -> Iterator[None]:
    """End the run with one line if a UsageError is raised; in a worker of xdist, by way of the process that prints."""
    try:
        yield
    except UsageError as error:
        if (folder := _shared_folder(config)) is not None:
            (folder / WRONG).write_text(printable(str(error)), encoding="utf-8")
        pytest.exit(printable(str(error)), returncode=USAGE)


def _shared_folder(config: pytest.Config) -> Path | None:
    """In a worker of xdist, the folder that all workers share."""
    folder = getattr(config, "workerinput", {}).get(SHARED)
    return None if folder is None else Path(folder)


def _gate(config: pytest.Config) -> "Gate":
    from yololoss.harness.engine.gate import Gate, Options  # noqa: PLC0415

    if GATE not in config.stash:
        given = {name: getattr(config.option, name) for name in Options.__dataclass_fields__}
        config.stash[GATE] = Gate(Options(**given), config.invocation_params.dir)
    return config.stash[GATE]


def _subjects(config: pytest.Config) -> "dict[str, LossUnderTest]":
    with _told(config):
        return _gate(config).subjects


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of a subject on every device. If there are several, the tests' names contain them."""
    if "subject" in metafunc.fixturenames and len(_subjects(metafunc.config)) > 1:
        names = _gate(metafunc.config).devices(_law(metafunc.definition))
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
    return mark.args[0] if mark is not None else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the laws, check the waivers, and keep the laws of the loss's family; with --laws or --replay, only some."""
    laws = {item: law for item in items if (law := _law(item)) is not None}
    if not (laws or config.option.laws or config.option.replay):
        return
    from yololoss.harness.laws.law import find_laws  # noqa: PLC0415

    with _told(config):
        gate = _gate(config)
        # Python's sort is stable: the devices of a law stay in order.
        items.sort(key=lambda item: (item not in laws, item in laws and laws[item].place(gate.family)))
        if laws:
            gate.check_waivers()
        laws = _of_the_family(config, items, laws)
        if config.option.laws:
            wanted = find_laws(gate.family, config.option.laws)
            _keep(config, items, [item for item, law in laws.items() if law.id in wanted])
        if config.option.replay:
            _keep(config, items, _replayed(config, laws))


def _of_the_family(
    config: pytest.Config, items: list[pytest.Item], laws: "dict[pytest.Item, Law]"
) -> "dict[pytest.Item, Law]":
    """Leave out the laws of other families, beside those of the loss's own: two families may have laws of one name."""
    own = {item: law for item, law in laws.items() if law.family in (None, _gate(config).family)}
    if not own or len(own) == len(laws):
        return laws
    _keep(config, items, [item for item in items if item in own or item not in laws])
    return own


def _replayed(config: pytest.Config, laws: "dict[pytest.Item, Law]") -> list[pytest.Item]:
    wanted = {vector.law for vector in _gate(config).replayed}
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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Report what the session found about a law."""
    law = _law(pyfuncitem)
    if law is None:
        return None
    with _told(pyfuncitem.config):
        row, texts = _result(pyfuncitem, law)
    if row["word"] == "waived":
        pytest.xfail(reason(row))
    if texts:
        pytest.fail(printable("\n\n".join(texts), keep="\n"), pytrace=False)
    if row["word"] in ("explained", "not applicable") and row["why"]:
        pytest.skip(reason(row))
    return True


def _result(item: pytest.Item, law: "Law") -> "tuple[dict[str, Any], list[str]]":
    """The row of a law, and what to say if its test fails. The first law's test also tells what no test is about."""
    device = _device(item)
    judged = _judged(item, device)
    tested = _laws(item.session, device)
    first = next(iter(tested), None) == law.id
    findings = [f for f in judged.faults if f.law == law.id or (first and f.law not in tested)]
    row = next((row for row in judged.laws if row["id"] == law.id), None)
    if row is None:
        pytest.fail("the process that ran the session for all workers ended", pytrace=False)
    named = {**row, "id": " ".join((law.id, *_params(item)))}
    item.user_properties.append((PROPERTY, json.dumps(named)))
    failed = [_gate(item.config).holds_again(law.id)] if row["word"] == "failed" else []
    return row, [*map(str, findings), *failed]


def _laws(session: pytest.Session, device: str) -> "dict[str, Law]":
    """The laws of all tests of a device, in their order."""
    laws = [law for item in session.items if (law := _law(item)) is not None and _device(item) == device]
    return {law.id: law for law in laws}


def _judged(item: pytest.Item, device: str) -> "Verdict":
    """The result of the session on a device. The first test runs it; with xdist, of one worker for all."""
    known = item.config.stash.setdefault(JUDGED, {})
    if device not in known:
        folder = _shared_folder(item.config)
        known[device] = _run(item, device) if folder is None else _shared(item, device, folder)
    return known[device]


def _run(item: pytest.Item, device: str, workers: int = 1) -> "Verdict":
    """Judge the loss by the laws of all tests of a device."""
    judged = _gate(item.config).judge(device, _laws(item.session, device), workers, _shown(item.config))
    if judged.problem:  # it was interrupted
        raise KeyboardInterrupt
    if judged.stopped:
        _say(item.config, f"stopped-{device}", judged.stopped)
    return judged


def _say(config: pytest.Config, name: str, line: str) -> None:
    """Print a line while a session runs. ``name``: of the file through which a worker of xdist is heard."""
    folder, reporter = _shared_folder(config), config.pluginmanager.get_plugin("terminalreporter")
    if folder is not None:  # such a worker's own reporter is not heard
        (folder / f"{name}.line").write_text(line, encoding="utf-8")
    elif reporter is not None:
        reporter.write_line(f"\n{line}")


def _shown(config: pytest.Config) -> "Show":
    """A function that shows findings while a session runs, and ends it after as many as ``--maxfail`` says."""
    most, known = config.option.maxfail, set[str]()

    def show(session: "Session") -> bool:
        for kind in session.findings.keys() - known:
            known.add(kind)
            finding = session.findings[kind]
            _say(config, kind, f"{finding.law} broke after {session.used:.0f} s: {finding.path}")
        return bool(most and len(known) >= most)

    return show


def _shared(item: pytest.Item, device: str, folder: Path) -> "Verdict":
    """Of xdist's workers one runs the session, with as many processes; the others wait for the result."""
    import psutil  # noqa: PLC0415

    from yololoss.harness.cases.files import write_whole  # noqa: PLC0415
    from yololoss.harness.findings.verdict import Verdict  # noqa: PLC0415

    result, lock = folder / f"{device}.json", folder / f"{device}.lock"
    try:
        with lock.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        while not result.exists() and psutil.pid_exists(int(lock.read_text(encoding="utf-8") or os.getpid())):
            time.sleep(STEP)
        return Verdict.model_validate_json(result.read_bytes()) if result.exists() else Verdict(status=0)
    judged = Verdict(status=0)
    try:
        judged = _run(item, device, int(item.config.workerinput["workercount"]))  # type: ignore[attr-defined]
    finally:
        write_whole(result, judged.model_dump_json())
    return judged


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give xdist's workers a folder to share results in, and show what they find while they wait."""
    if FOLDER not in node.config.stash:
        node.config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="yololoss-"))
        Thread(target=_tell, args=(node.config, node.config.stash[FOLDER]), daemon=True).start()
    node.workerinput[SHARED] = str(node.config.stash[FOLDER])


def _tell(config: pytest.Config, folder: Path) -> None:
    """Print the lines that a worker writes into the shared folder, until that is deleted."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    while folder.exists():
        for path in sorted(folder.glob("*.line")):
            if reporter is not None:
                reporter.write_line(f"\n{path.read_text(encoding='utf-8')}")
            path.unlink()
        time.sleep(STEP)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the shared folder."""
    if FOLDER in config.stash:
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show a finding without a line of the harness before it."""
    report = yield
    if _law(item) is not None and report.failed and isinstance(call.excinfo, pytest.ExceptionInfo):
        said = call.excinfo.value
        if isinstance(said, pytest.fail.Exception):
            report.longrepr = str(said.msg)
    return report


def _rows(reporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    """The rows of the table of laws, from the test reports."""
    reports = [r for outcome in ("passed", "failed", "xfailed", "skipped") for r in reporter.getreports(outcome)]
    return [json.loads(text) for report in reports for name, text in report.user_properties if name == PROPERTY]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End with status 2 if a worker could not run, or no law judged anything: that does not show a correct loss."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    nothing = reporter is not None and session.exitstatus == 0 and _nothing_judged(reporter)
    if nothing or _wrong(session.config):
        session.exitstatus = USAGE


def _wrong(config: pytest.Config) -> str:
    """Why a worker of xdist could not run; "" if all could."""
    path = config.stash[FOLDER] / WRONG if FOLDER in config.stash else None
    return path.read_text(encoding="utf-8") if path is not None and path.exists() else ""


def _nothing_judged(reporter: pytest.TerminalReporter) -> bool:
    # after the loss is fixed, a replayed case may have nothing to judge
    return not reporter.config.option.replay and nothing_judged(_rows(reporter))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of laws, with -q without those that held; or why a worker could not run."""
    if wrong := _wrong(terminalreporter.config):
        terminalreporter.write_line(wrong)
    rows = _rows(terminalreporter)
    if rows:
        from yololoss.harness.findings.summary import table  # noqa: PLC0415

        config = terminalreporter.config
        width = config.get_terminal_writer().fullwidth
        terminalreporter.write_line(printable(table(rows, width, quiet=config.option.verbose < 0), keep="\n"))
        for absent in config.stash[GATE].absent if GATE in config.stash else ():
            terminalreporter.write_line(f"device {absent}: skipped")
        if _nothing_judged(terminalreporter):
            terminalreporter.write_line(NOTHING)
