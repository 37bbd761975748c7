"""The pytest plugin: options, the subject, and what a broken law looks like.

Found by every pytest run of an environment that has yololoss, so it imports nothing heavy until a test asks for a
subject or an option of ours is given.
"""

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.families import FAMILIES

if TYPE_CHECKING:
    from yololoss.harness.case import Case
    from yololoss.harness.config import Config, Settings
    from yololoss.harness.finding import Finding
    from yololoss.harness.fuzz.judge import Judge
    from yololoss.harness.law import Law, LawBroken
    from yololoss.harness.subject import LossUnderTest
    from yololoss.harness.vectors import Expected, Vector, VectorFile

USAGE = 2  # exit status where the harness could not run
SUBJECTS: "pytest.StashKey[dict[str, LossUnderTest]]" = pytest.StashKey()  # by device
ABSENT: "pytest.StashKey[list[str]]" = pytest.StashKey()  # devices that are not there, and why
CONFIG: "pytest.StashKey[Config]" = pytest.StashKey()
CORPUS: "pytest.StashKey[tuple[Vector, ...]]" = pytest.StashKey()
JUDGES: "pytest.StashKey[dict[str, Judge]]" = pytest.StashKey()  # by device: processes that the corpus may end
BROKEN: "pytest.StashKey[tuple[str, ...]]" = pytest.StashKey()  # laws that were broken when the baseline was recorded
# What a test report carries: a line of the table of laws at the end, and a finding. Both JSON.
NOTHING = "nothing was judged: none of these laws applies to this loss and these cases"
PROPERTY, FINDING = "yololoss law", "yololoss finding"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options, in a group of their own."""
    group = parser.getgroup("yololoss", "YOLOv5-style losses under test")
    group.addoption("--loss", help="the loss to test: path/to/file.py:Name or package.module:Name")
    group.addoption(
        "--device",
        help="the devices to test it on: cpu, cuda, cuda:N, mps, mirror (a pretend accelerator), compile (the CPU, "
        "under torch.compile, by laws of its own), several with commas between; or auto: all devices that are there "
        "(default: cpu)",
    )
    group.addoption(
        "--family",
        help="the family it belongs to, whose choices are no faults (default: upstream, of the bundled loss yololoss; "
        f"known: {', '.join(FAMILIES)})",
    )
    group.addoption(
        "--profile",
        choices=["gate", "explorer"],
        default="gate",
        help="gate: the same cases every time; explorer: other cases every time (default: %(default)s)",
    )
    group.addoption(
        "--laws",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only the laws of this id, or whose ids it begins or matches: assign, boxes.gradient, 'totals.*-gain' "
        "(may be repeated)",
    )
    group.addoption(
        "--baseline",
        metavar="FILE",
        help="what the loss did when it was recorded, by yololoss record: it must do the same, and the laws that it "
        "broke then may break",
    )
    group.addoption("--cases", type=int, metavar="N", help="cases a law (default: that of the gate)")
    group.addoption(
        "--no-shrink",
        action="store_true",
        help="only whether a law breaks: cases are neither made small nor drawn",
    )
    group.addoption(
        "--findings",
        default=".yololoss/findings",
        metavar="DIR",
        help="where cases that broke a law are saved (default: %(default)s)",
    )
    group.addoption("--corpus", help="a folder of case files: each law is judged first on those saved under it")
    group.addoption(
        "--replay",
        action="append",
        default=[],
        metavar="FILE",
        help="judge the cases of this file by the laws they are saved under, in place of new cases",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find what was asked for by name at once, so that a typing error costs no test run."""
    config.addinivalue_line("markers", "law(law): this test examines a subject by a law")
    if any(getattr(config.option, name) for name in ("loss", "device", "family", "baseline")):
        _subjects(config)
    for path in config.option.replay:
        _replayed(path)
    if config.option.corpus:
        _corpus(config)
    if config.option.cases is not None and config.option.cases < 1:
        pytest.exit(f"--cases {config.option.cases}: expected 1 or more", returncode=USAGE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a subject runs on every device; they are in the tests' names where there are several."""
    if "subject" in metafunc.fixturenames and len(_subjects(metafunc.config)) > 1:
        mark = metafunc.definition.get_closest_marker("law")
        about_compile = mark is not None and "compile" in mark.args[0].on
        names = [name for name in _subjects(metafunc.config) if (name == "compile") == about_compile]
        metafunc.parametrize("subject", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> "LossUnderTest":
    """The loss under test: that of --loss, else of the project's configuration, else the bundled one."""
    subjects = _subjects(pytestconfig)
    return subjects[getattr(request, "param", next(iter(subjects)))]


def _subject(item: pytest.Item) -> "LossUnderTest":
    """The loss on the device that the test is for."""
    subjects = _subjects(item.config)
    return subjects[next(iter((*_params(item), *subjects)))]


def _params(item: pytest.Item) -> tuple[str, ...]:
    """The device that the test's name says, where there are several."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return (params["subject"],) if "subject" in params else ()


def _chosen(config: pytest.Config) -> "Settings":
    from yololoss.harness.config import settle  # noqa: PLC0415

    names = ("loss", "device", "family", "baseline")
    return settle(_config(config), **{name: getattr(config.option, name) for name in names})


def _subjects(config: pytest.Config) -> "dict[str, LossUnderTest]":
    from yololoss.harness.load import find_devices, load_loss  # noqa: PLC0415

    if SUBJECTS not in config.stash:
        chosen = _chosen(config)
        try:
            devices, config.stash[ABSENT] = find_devices(chosen.device, _worker(config))
            recorded = _baseline(config, chosen.baseline)
            config.stash[SUBJECTS] = {
                name: replace(
                    load_loss(chosen.loss, device, chosen.family, compiled=name == "compile"), recorded=recorded
                )
                for name, device in devices.items()
            }
            _one_thread_a_worker()
        except UsageError as error:
            pytest.exit(str(error), returncode=USAGE)
    return config.stash[SUBJECTS]


def _baseline(config: pytest.Config, path: str | None) -> "dict[Case, Expected]":
    """The recorded cases, the smallest first; the laws that were broken then are kept as well."""
    if path is None:
        config.stash[BROKEN] = ()
        return {}
    file = _read(path, "--baseline")
    config.stash[BROKEN] = file.broken
    return {vector.case: vector.expected for vector in file.vectors if vector.expected is not None}


def _worker(config: pytest.Config) -> int:
    """Which of xdist's workers this is; 0 where there are none."""
    return int(getattr(config, "workerinput", {"workerid": "gw0"})["workerid"].removeprefix("gw"))


def _one_thread_a_worker() -> None:
    import torch  # noqa: PLC0415

    # Cases are small: a second thread costs more than it brings, and xdist's workers fill the cores.
    torch.set_num_threads(1)


def _config(config: pytest.Config) -> "Config":
    from yololoss.harness.config import read_config  # noqa: PLC0415

    if CONFIG not in config.stash:
        try:
            config.stash[CONFIG] = read_config(config.invocation_params.dir)
        except UsageError as error:
            pytest.exit(str(error), returncode=USAGE)
    return config.stash[CONFIG]


def _corpus(config: pytest.Config) -> "tuple[Vector, ...]":
    """The cases of the corpus that is given, else of the project's, if any."""
    from yololoss.harness.vectors import read_corpus  # noqa: PLC0415

    if CORPUS not in config.stash:
        folder = config.option.corpus or _config(config).corpus
        try:
            config.stash[CORPUS] = tuple(read_corpus(Path(folder)).values()) if folder else ()
        except UsageError as error:
            pytest.exit(f"--corpus {error}", returncode=USAGE)
    return config.stash[CORPUS]


def _replayed(path: str) -> "tuple[Vector, ...]":
    return _read(path, "--replay").vectors


def _read(path: str, option: str) -> "VectorFile":
    from yololoss.harness.vectors import read_vectors  # noqa: PLC0415

    try:
        return read_vectors(Path(path))
    except BadFile as error:
        pytest.exit(f"{option} {error}", returncode=USAGE)


def _law(item: pytest.Item) -> "Law | None":
    mark = item.get_closest_marker("law")
    law: Law | None = mark.args[0] if mark is not None else None
    return law


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Laws in reading order; check waivers against them; with --replay keep only those the cases were saved under."""
    laws = {item: law for item in items if (law := _law(item)) is not None}
    items.sort(key=lambda item: (item not in laws, item in laws and laws[item].place))  # stable: devices in order
    if laws and _config(config).waivers:
        _check_waivers(config)
    if config.option.laws:
        _keep(config, items, [item for item, law in laws.items() if law.id in _wanted(config)])
    if not config.option.replay:
        return
    wanted = {vector.law for path in config.option.replay for vector in _replayed(path)}
    kept = [item for item, law in laws.items() if law.id in wanted]
    if wanted and not kept:
        files = " ".join(map(str, config.option.replay))
        pytest.exit(
            f"--replay {files}: saved under {', '.join(sorted(map(str, wanted)))}, which is no law of the tests given; "
            "to look in all of them, give the folder properties",
            returncode=USAGE,
        )
    _keep(config, items, kept)


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _wanted(config: pytest.Config) -> list[str]:
    from yololoss._suite import find  # noqa: PLC0415

    try:
        return list(find(config.option.laws))
    except UsageError as error:
        pytest.exit(str(error), returncode=USAGE)


def _check_waivers(config: pytest.Config) -> None:
    from datetime import datetime, timezone  # noqa: PLC0415

    from yololoss import _suite  # noqa: PLC0415
    from yololoss.harness.config import check_waivers  # noqa: PLC0415

    try:  # a waiver may name a law of a module that this run does not collect
        check_waivers(_config(config), _suite.laws(), datetime.now(tz=timezone.utc).date())
    except UsageError as error:
        pytest.exit(str(error), returncode=USAGE)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Examine the subject by a law: on the replayed cases, else by a search with the profile's settings."""
    law = _law(pyfuncitem)
    if law is None:
        return None
    law.tally.clear()
    under_test = _subject(pyfuncitem)
    otherwise = law.assumes(under_test)
    if otherwise:
        pytest.skip(otherwise)
    from yololoss.harness.devices import DeviceLost  # noqa: PLC0415
    from yololoss.harness.law import LawBroken  # noqa: PLC0415

    try:
        _examine(law, under_test, pyfuncitem)
    except DeviceLost as lost:
        broken = LawBroken(law, lost.case, "the device, after this case", "an answer", lost.detail, "none: it is lost")
        broken.lost = True
        raise broken from None
    return True


def _examine(law: "Law", under_test: "LossUnderTest", item: pytest.Item) -> None:
    from yololoss.harness.law import LawBroken  # noqa: PLC0415
    from yololoss.harness.subject import with_record  # noqa: PLC0415

    config = item.config
    if config.option.replay:
        for path in config.option.replay:
            for vector in _replayed(path):
                if vector.law == law.id:
                    law.examine(with_record(under_test, vector), vector.case)
        return
    waiver = _config(config).waiver(law.id)
    if waiver is not None:
        _search_waived(law, under_test, config, waiver.reason)
    known = law.id in config.stash[BROKEN]
    try:
        for vector in _corpus(config):
            if vector.law == law.id:
                _outlive(law, vector, item)
                law.examine(with_record(under_test, vector), vector.case)
        _search(law, under_test, config, shrink=not (known or config.option.no_shrink))
    except LawBroken:
        if not known:
            raise
        pytest.xfail("it was broken when the baseline was recorded")


def _outlive(law: "Law", vector: "Vector", item: pytest.Item) -> None:
    """Raise LawBroken if the loss ends a process by this case: fuzz sessions save such cases as well."""
    from yololoss import _suite  # noqa: PLC0415
    from yololoss.harness.fuzz.judge import MEMORY, Judge, Task, usual_limit  # noqa: PLC0415

    if law.id not in _suite.laws():  # one of the user's own: a process of ours does not know it
        return
    judges = item.config.stash.setdefault(JUDGES, {})
    device = next(iter((*_params(item), *_subjects(item.config))))
    if device not in judges:
        chosen = _chosen(item.config)
        judges[device] = Judge(Task(chosen.loss, device, chosen.family, MEMORY, usual_limit(device)))
    told = judges[device].ask(vector).told
    if told is not None and told.died:
        law.tally.tried += 1
        law.tally.broke_at = law.tally.tried
        raise told.broken(law, vector.case)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the processes that judged the corpus."""
    for judge in config.stash.get(JUDGES, {}).values():
        judge.close()


def _search(law: "Law", under_test: "LossUnderTest", config: pytest.Config, *, shrink: bool) -> None:
    import hypothesis  # noqa: PLC0415

    from yololoss.harness.law import GATE, GATE_SEED  # noqa: PLC0415

    phases = [hypothesis.Phase.generate, hypothesis.Phase.target, *([hypothesis.Phase.shrink] if shrink else [])]
    settings = hypothesis.settings(GATE, max_examples=config.option.cases or GATE.max_examples, phases=phases)
    law.search(under_test, settings, GATE_SEED if config.option.profile == "gate" else None)


def _search_waived(law: "Law", under_test: "LossUnderTest", config: pytest.Config, reason: str) -> NoReturn:
    from yololoss.harness.law import LawBroken  # noqa: PLC0415

    try:
        _search(law, under_test, config, shrink=False)
    except LawBroken:
        pytest.xfail(reason)
    pytest.fail(f"{law.id} is waived ({reason}), but it holds again: remove the waiver", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A broken law is reported as a finding: saved, and told without a traceback."""
    report = yield
    law = _law(item)
    if law is None or call.when != "call":
        return report
    from yololoss.harness.law import LawBroken  # noqa: PLC0415

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
    """Nothing can be run on a lost device in this process: xdist replaces a worker that is gone, and goes on."""
    if hasattr(item.config, "workerinput"):  # pragma: no cover  # a process that leaves so saves no coverage
        _farewell(item.config, item.nodeid).write_text(finding.model_dump_json(), encoding="utf-8")
        os._exit(1)
    item.session.shouldstop = "the device is lost; with -n 1 the run goes on in another process"


def _farewell(config: pytest.Config, test: str) -> Path:
    """Where a worker leaves the finding that was its last."""
    return Path(config.option.findings) / f"lost-{sha256(test.encode()).hexdigest()[:8]}.tmp"


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    """A worker that left with a lost device left its finding as well."""
    farewell = _farewell(sched.config, crashitem)
    if farewell.exists():
        from yololoss.harness.finding import Finding  # noqa: PLC0415

        text = farewell.read_text(encoding="utf-8")
        report.longrepr = str(Finding.model_validate_json(text))
        report.user_properties.append((FINDING, text))
        farewell.unlink()


def _skipped_because(report: pytest.TestReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""


def _word(report: pytest.TestReport, law: "Law") -> str:
    """The outcome, in the words of the table at the end."""
    if hasattr(report, "wasxfail"):
        return "waived"
    if report.skipped or (report.passed and law.tally.vacuous):
        return "not applicable"
    if report.passed:
        return "held"
    return "BROKE" if law.tally.broke_at else "failed"  # a waiver that is not needed, an error of the harness


def _finding(broken: "LawBroken", item: pytest.Item) -> "Finding":
    from yololoss.harness.finding import keep  # noqa: PLC0415

    given = item.config.option
    device = next(iter(_params(item)), given.device)
    return keep(
        broken,
        _subject(item),
        Path(given.findings),
        {"loss": given.loss, "device": device, "family": given.family},
        drawn=not given.no_shrink,
    )


def _rows(reporter: pytest.TerminalReporter) -> list[dict[str, Any]]:
    """What the reports carry of their laws."""
    reports = [r for outcome in ("passed", "failed", "xfailed", "skipped") for r in reporter.getreports(outcome)]
    return [json.loads(text) for report in reports for name, text in report.user_properties if name == PROPERTY]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run in which no law judged anything has not shown that the loss is right."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and session.exitstatus == 0 and _nothing_judged(reporter):
        session.exitstatus = USAGE


def _nothing_judged(reporter: pytest.TerminalReporter) -> bool:
    rows = _rows(reporter)
    # a case that broke a law may, once the loss is mended, have nothing to judge
    return not reporter.config.option.replay and nothing_judged(rows)


def nothing_judged(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether no law of a run had anything to judge."""
    return bool(rows) and all(row["word"] == "not applicable" for row in rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of laws; with -q only those that did not simply hold."""
    rows = _rows(terminalreporter)
    if rows:
        from yololoss.harness.summary import table  # noqa: PLC0415

        quiet = terminalreporter.config.option.verbose < 0
        terminalreporter.write_line(table(rows, terminalreporter.config.get_terminal_writer().fullwidth, quiet=quiet))
        for absent in terminalreporter.config.stash.get(ABSENT, ()):
            terminalreporter.write_line(f"device {absent}: skipped")
        if _nothing_judged(terminalreporter):
            terminalreporter.write_line(NOTHING)
