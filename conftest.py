"""This repository's own choices for pytest; the options and the subject are the plugin's."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many recorded numbers the golden tests compared."""
    reports = terminalreporter.getreports("passed")
    numbers = [value for r in reports for name, value in r.user_properties if name == "numbers compared"]
    if numbers:
        terminalreporter.write_line(f"golden: {sum(numbers)} recorded numbers compared")
