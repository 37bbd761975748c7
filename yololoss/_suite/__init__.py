"""The suite: in a wheel ``properties/`` and ``golden/`` lie in this folder, in a clone beside the package."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yololoss.harness.errors import UsageError, closest

if TYPE_CHECKING:
    from yololoss.harness.law import Law

HERE = Path(__file__).parent
FOLDER = HERE if (HERE / "properties").is_dir() else HERE.parents[1]


def _package() -> str:
    """The package of laws: the one that a test run has loaded already, else the one that came with yololoss."""
    from yololoss.harness.law import LAWS  # noqa: PLC0415  # imports torch

    loaded = next((law.judge.__module__.rpartition(".")[0] for law in LAWS.values()), None)
    return loaded or (f"{__name__}.properties" if FOLDER == HERE else "properties")


def laws() -> "dict[str, Law]":
    """Every law by its id, in the order in which they are run."""
    from yololoss.harness.law import LAWS  # noqa: PLC0415  # imports torch

    package = import_module(_package())
    for path in sorted(Path(package.__path__[0]).glob("test_*.py")):
        import_module(f"{package.__name__}.{path.stem}")
    return dict(sorted(LAWS.items(), key=lambda entry: entry[1].place))


def find(patterns: Iterable[str]) -> "dict[str, Law]":
    """The laws of these ids, or whose ids they begin or match; all where there are none.

    Raises UsageError, one line with the closest match, for a pattern that fits no law.
    """
    known, wanted = laws(), list(patterns)
    found: set[str] = set()
    for pattern in wanted:
        fits = {id for id in known if id == pattern or id.startswith(f"{pattern}.") or fnmatchcase(id, pattern)}
        if not fits:
            parts = {id.partition(".")[0] for id in known}
            hint = closest(pattern, (*known, *parts)) or "; yololoss laws lists them"
            raise UsageError(f"--laws {pattern}: no such law{hint}")
        found |= fits
    return {id: law for id, law in known.items() if not wanted or id in found}


def module(name: str) -> Any:
    """A module of the suite, such as the reference."""
    return import_module(f"{_package()}.{name}")
