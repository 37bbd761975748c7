"""The family of task-aligned losses: YOLOv8 to 26 and their forks.

Here live its case, its strategies, its reference with the error budget, its dialects, and its laws (``test_*.py``).
Nothing here is part of the bundled loss, and the reference imports nothing of it.
"""

from .family import FAMILY

__all__ = ["FAMILY"]
