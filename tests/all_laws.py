"""Every law, registered once, before a run inside a test could register them anew."""

from importlib import import_module
from pathlib import Path

from yololoss.harness.law import LAWS

ROOT = Path(__file__).parents[1]

for module in sorted((ROOT / "properties").glob("test_*.py")):
    import_module(f"properties.{module.stem}")

__all__ = ["LAWS", "ROOT"]
