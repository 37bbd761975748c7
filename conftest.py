"""This repository's own settings for pytest. The options and the fixture ``subject`` are in the plugin."""

import pytest

pytest_plugins = ["yololoss.harness.plugin"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many recorded numbers the golden tests compared."""
    reports = terminalreporter.getreports("passed")
    numbers = [value for r in reports for name, value in r.user_properties if name == "numbers compared"]
    if numbers:
        terminalreporter.write_line(f"golden: {sum(numbers)} recorded numbers compared")
