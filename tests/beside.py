"""Whether yololoss goes along with other plugins of pytest: ``python -m tests.beside``, where they are installed.

They are pytest-asyncio, -cov, -profiling, -randomly and -timeout. A project that uses them all, and has options of its
own, runs its tests beside an installed yololoss; then the laws run beside them, with the plugin named.
"""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

MODULES = ("pytest_asyncio", "pytest_cov", "pytest_profiling", "pytest_randomly", "pytest_timeout")
OPTIONS = ("--asyncio-mode=auto", "--cov=.", "--profile", "-p", "randomly", "--timeout=300")
NAMES = ("--device", "--loss", "--laws", "--cases", "--dialect", "--baseline", "--corpus", "--findings", "--replay")
CONFTEST = f"""
def pytest_addoption(parser):
    for name in {NAMES}:
        parser.addoption(name, default="theirs")
"""
THEIRS = f"""
import subprocess
import sys

def test_options(request):
    assert {{request.config.getoption(name) for name in {NAMES}}} == {{"theirs"}}
    assert not [name for name in sys.modules if name.startswith("yololoss")]

def test_check():
    command = [sys.executable, "-m", "yololoss", "check", "--laws", "totals", "--cases", "20"]
    assert subprocess.run(command, capture_output=True).returncode == 0

async def test_asynchronous():
    pass
"""


def passed(folder: Path, *arguments: str) -> bool:
    """Whether pytest runs there, and all passes; what it says is printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OPTIONS, *arguments]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def installed(folder: Path) -> Path:
    """Where the suite lies that is installed, for a process that does not run in a clone."""
    command = [sys.executable, "-c", "from yololoss import _suite; print(_suite.FOLDER)"]
    return Path(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip())


def main() -> int:
    """Run both. Exit status 2 if a plugin is not installed."""
    lacking = [name for name in MODULES if find_spec(name) is None]
    if lacking:
        print(f"not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        (Path(theirs) / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        (Path(theirs) / "test_theirs.py").write_text(THEIRS, encoding="utf-8")
        alone = ("-c", "/dev/null", "--rootdir", ours, "-p", "yololoss.harness.plugin", "--cases", "60")
        laws = installed(Path(ours)) / "properties" / "v5" / "test_totals.py"
        return 0 if passed(Path(theirs)) and passed(Path(ours), *alone, str(laws)) else 1


if __name__ == "__main__":
    sys.exit(main())
