"""Limits of a process that runs edited code: where it may write, and how much memory it may take.

An edit may turn any line into another one. So a trial may write only in a folder of its own, starts no process, opens
no connection, and sends no signal. What it tries of this raises PermissionError, as on a machine that forbids it.
"""

import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import psutil
import torch

from yololoss.harness.subjects.watching import BEYOND, PATHS, writes

try:
    import resource
except ImportError:  # pragma: no cover  # not on Windows
    resource = None  # type: ignore[assignment]

LARGEST_FILE = 64  # MiB


class Fence:
    """Refuses what reaches outside the process, while it stands. A folder is the one in which files may be written."""

    __cantrace__ = True  # else Python hides what it does from coverage and debuggers

    def __init__(self) -> None:
        self.folder: str | None = None  # None: all is allowed
        self._set = False

    def put_up(self, folder: str) -> None:
        """From now on refuse it."""
        if not self._set:
            sys.addaudithook(self)
            self._set = True
        self.folder = os.path.realpath(folder)

    def take_down(self) -> None:
        """From now on allow it."""
        self.folder = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Called by Python before what it announces: raises PermissionError if that is not allowed."""
        if self.folder is None:
            return
        if event in PATHS or (event == "open" and writes(arguments)):
            paths = arguments[:1] if event == "open" else arguments[:2]
            # a number is a file that was opened before
            if not all(self._inside(each) for each in paths if isinstance(each, str | bytes)):
                _refuse(f"{event} {arguments[0]!r}")
        elif event in BEYOND or event == "ctypes.dlopen":  # a library can do all of this past Python
            _refuse(event)

    def _inside(self, path: str | bytes) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or os.path.commonpath((real, str(self.folder))) == self.folder


FENCE = Fence()


def _refuse(what: str) -> NoReturn:
    raise PermissionError(f"a trial may not do this: {what}")


def limit(memory: int) -> None:
    """Limit the memory that this process may still take, in MiB, and the files that it writes past Python."""
    torch.save = _save
    if resource is None:  # pragma: no cover
        return
    bounds = ((resource.RLIMIT_AS, psutil.Process().memory_info().vms + memory * 2**20),)
    for kind, most in (*bounds, (resource.RLIMIT_FSIZE, LARGEST_FILE * 2**20)):
        with suppress(ValueError, OSError):  # a system may refuse it; the process is watched as well
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _save(*_: Any, **__: Any) -> NoReturn:
    """In place of torch.save, which opens its file where Python does not see it."""
    _refuse("torch.save")
