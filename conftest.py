"""This repository's own settings for pytest. The options and the fixture ``subject`` are in the plugin."""

import pytest

pytest_plugins = ["yololoss.harness.plugin"]
QUICK = 1500  # cases of the bundled loss: a third of the usual ones


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep the loop of work fast. `.ci/run` judges the bundled loss on all cases: it runs `yololoss check` as well."""
    given = config.option
    if given.loss is None and given.cases is None and not given.replay:
        given.cases = QUICK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many recorded numbers the golden tests compared."""
    reports = terminalreporter.getreports("passed")
    numbers = [value for r in reports for name, value in r.user_properties if name == "numbers compared"]
    if numbers:
        terminalreporter.write_line(f"golden: {sum(numbers)} recorded numbers compared")
