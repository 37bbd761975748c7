"""The package itself: what importing it costs, what it exports, and what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yololoss

ROOT = Path(__file__).parents[1]


def test_importing_the_package_or_the_plugin_is_cheap():
    """Neither imports torch, hypothesis or numpy: a run that names the plugin may have no test of a loss."""
    heavy = ("torch", "hypothesis", "numpy", "pydantic", "matplotlib")
    code = f"import sys, yololoss, yololoss.harness.plugin; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_is_there():
    """Each name of __all__ loads; another is an AttributeError."""
    assert all(getattr(yololoss, name) is not None for name in yololoss.__all__)
    assert set(yololoss.__all__) < set(dir(yololoss))
    with pytest.raises(AttributeError, match="module 'yololoss' has no attribute 'Nothing'"):
        _ = yololoss.Nothing


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return found | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


def test_the_loss_never_imports_the_harness():
    """Data flows one way: no module of a loss knows of harness or properties. The package hands on one name of it."""
    folders = (ROOT / "yololoss" / name for name in ("v5", "tal"))
    for path in (path for folder in folders for path in folder.glob("*.py")):
        assert not [name for name in imports(path) if "harness" in name or "properties" in name], path
    handed_on = {name for name in imports(ROOT / "yololoss" / "__init__.py") if "harness" in name}
    assert handed_on == {"yololoss.harness.training.watch"}


def test_the_reference_never_imports_the_loss():
    """A check that shares code with what it checks proves nothing. Case and hyperparameters are data."""
    allowed = {"yololoss.harness.cases.case", "yololoss.harness.subjects.outcome"}
    for part in ("reference", "formulas", "budget"):
        found = imports(ROOT / "properties" / "v5" / f"{part}.py")
        assert {name for name in found if name.startswith("yololoss")} <= allowed, part
        assert "torch" not in found, part
