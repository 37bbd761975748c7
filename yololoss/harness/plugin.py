"""The pytest plugin: options, the subject, and what a broken law looks like.

Found by every pytest run of an environment that has yololoss, so it imports nothing heavy until a test
asks for a subject or an option of ours is given.
"""

from collections.abc import Generator
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from yololoss.harness.law import LawBroken
    from yololoss.harness.subject import LossUnderTest

USAGE = 2  # exit status where the harness could not run
SUBJECT: "pytest.StashKey[LossUnderTest]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options, in a group of their own."""
    group = parser.getgroup("yololoss", "YOLOv5-style losses under test")
    group.addoption("--loss", help="the loss to test: path/to/file.py:Class or package.module:Class")
    group.addoption("--device", help="the device to test it on (default: cpu)")
    group.addoption(
        "--findings",
        default=".yololoss/findings",
        metavar="DIR",
        help="where cases that broke a law are saved (default: %(default)s)",
    )
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
    if config.option.loss or config.option.device:
        _subject(config)
    for path in config.option.replay:
        _replayed(path)


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> "LossUnderTest":
    """The loss under test: that of --loss, else the bundled one."""
    return _subject(pytestconfig)


def _subject(config: pytest.Config) -> "LossUnderTest":
    from yololoss.harness.load import BUNDLED, UsageError, find_device, load_loss  # noqa: PLC0415

    if SUBJECT not in config.stash:
        try:
            device = find_device(config.option.device or "cpu")
            config.stash[SUBJECT] = load_loss(config.option.loss or BUNDLED, device)
        except UsageError as error:
            pytest.exit(str(error), returncode=USAGE)
    return config.stash[SUBJECT]


def _replayed(path: str) -> Any:
    from yololoss.harness.vectors import BadFile, read_vectors  # noqa: PLC0415

    try:
        return read_vectors(Path(path)).vectors
    except BadFile as error:
        pytest.exit(f"--replay {error}", returncode=USAGE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --replay, only the laws that a replayed case was saved under."""
    if not config.option.replay:
        return
    wanted = {vector.law for path in config.option.replay for vector in _replayed(path)}
    marks = {item: item.get_closest_marker("law") for item in items}
    kept = [item for item, mark in marks.items() if mark is not None and mark.args[0].id in wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """With --replay, a law's test judges the replayed cases."""
    mark = pyfuncitem.get_closest_marker("law")
    if mark is None or not pyfuncitem.config.option.replay:
        return None
    for path in pyfuncitem.config.option.replay:
        for vector in _replayed(path):
            if vector.law == mark.args[0].id:
                mark.args[0].examine(pyfuncitem.funcargs["subject"], vector.case)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A broken law is reported as a finding: saved, and told without a traceback."""
    report = yield
    if call.excinfo is not None and item.get_closest_marker("law") is not None:
        broken = _broken_law(call.excinfo.value)
        if broken is not None:
            report.longrepr = _finding(broken, item)
    return report


def _broken_law(error: BaseException) -> "LawBroken | None":
    from yololoss.harness.law import LawBroken  # noqa: PLC0415

    if isinstance(error, LawBroken):
        return error
    # Hypothesis groups what it saw when a failure does not repeat.
    return next(filter(None, map(_broken_law, getattr(error, "exceptions", ()))), None)


def _finding(broken: "LawBroken", item: pytest.Item) -> str:
    from yololoss.harness.finding import save  # noqa: PLC0415

    config = item.config
    path = save(broken, Path(config.option.findings), config.option.loss)
    chosen = f" --loss {config.option.loss}" if config.option.loss else ""
    device = f" --device {config.option.device}" if config.option.device else ""
    replay = f"python -m pytest {relpath(item.path)}{chosen}{device} --replay {path}"
    return f"{broken}\n  saved as   {path}\n  replay     {replay}"
