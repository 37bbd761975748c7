"""The loss keeps all laws: ``yololoss check``, with the settings in pyproject.toml, as a test."""

import subprocess
import sys
from pathlib import Path

CHECK = [sys.executable, "-m", "yololoss", "check"]


def test_the_loss_keeps_all_laws():
    """What the check says is the test's message."""
    done = subprocess.run(CHECK, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
