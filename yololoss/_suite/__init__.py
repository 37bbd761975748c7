"""The package's version, and where its suite is.

In a wheel, ``properties/`` and ``golden/`` are in this folder, in a clone beside the package.
"""

from importlib import import_module
from pathlib import Path

VERSION = "0.1.0"  # of the package
HERE = Path(__file__).parent
FOLDER = HERE if (HERE / "properties").is_dir() else HERE.parents[1]
PACKAGE = f"{__name__}.properties" if FOLDER == HERE else "properties"
FAMILIES = ("v5", "tal")
SHARED = f"{PACKAGE}.shared"  # laws of all families


def load_families() -> None:
    """Import the families of losses that come with the package; each registers itself."""
    for name in FAMILIES:
        import_module(f"{PACKAGE}.{name}")
