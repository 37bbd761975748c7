"""The modules that the fork server imports once: torch, and all laws."""

from yololoss import _suite
from yololoss.harness.engine import judge, worker
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import find_family

SUITE = [find_laws(find_family(name)) for name in _suite.FAMILIES]
__all__ = ["SUITE", "judge", "worker"]
