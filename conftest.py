"""This repository's own choices for pytest; the options and the subject are the plugin's."""

import importlib.util

import pytest
import torch

# The cases are tiny: a second thread costs more than it brings, and xdist fills the cores.
torch.set_num_threads(1)

if importlib.util.find_spec("beartype") is not None:  # in the extra "dev"; not needed to test a loss
    from jaxtyping import install_import_hook

    # Shapes and dtypes in signatures are checked in every call of every test; loss.py checks its inputs itself.
    install_import_hook([f"yololoss.{m}" for m in ("assign", "boxes", "criteria")], "beartype.beartype")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many recorded numbers the golden tests compared."""
    reports = terminalreporter.getreports("passed")
    numbers = [value for r in reports for name, value in r.user_properties if name == "numbers compared"]
    if numbers:
        terminalreporter.write_line(f"golden: {sum(numbers)} recorded numbers compared")
