"""What the server of processes imports once: torch, and all laws."""

from yololoss import _suite
from yololoss.harness.fuzz import judge, worker

SUITE = _suite.laws()
__all__ = ["SUITE", "judge", "worker"]
