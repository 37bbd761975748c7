"""Every law, registered once, before a run inside a test could register them anew."""

from yololoss import _suite

ROOT = _suite.FOLDER
LAWS = _suite.laws()

__all__ = ["LAWS", "ROOT"]
