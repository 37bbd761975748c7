"""Every law of v5, registered once, before a run inside a test could register them again."""

from yololoss import _suite
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family

ROOT = _suite.FOLDER
V5 = find_family("v5")
LAWS = find_laws(V5)

__all__ = ["LAWS", "ROOT", "V5"]
