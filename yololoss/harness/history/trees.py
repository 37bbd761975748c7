"""A commit's files in a folder of their own, which is removed afterwards."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from yololoss.harness.history.commits import Entry, Repository

LARGEST = 16 * 2**20  # bytes of a file, such as weights; larger ones are left out
ALL = 512 * 2**20  # bytes of all files; those of Python come first
SETTINGS = "yololoss.toml"


@contextmanager
def laid_out(repository: Repository, commit: str, home: Path) -> Iterator[Path]:
    """The folder of the repository as it was at a commit: plain files of bounded size, in a new folder below ``home``.

    Settings of the project are not used, so that all commits are judged alike: empty ones lie in their place.
    """
    home.mkdir(parents=True, exist_ok=True)
    top = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home.resolve()))
    try:
        for entry in _bounded(repository.files(commit)):
            path = top / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(repository.read(entry.blob))
        folder = top / repository.prefix
        folder.mkdir(parents=True, exist_ok=True)
        for place in (top, folder):
            (place / SETTINGS).write_text("", encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _bounded(entries: Iterator[Entry]) -> Iterator[Entry]:
    room = ALL
    for entry in sorted(entries, key=lambda entry: (not entry.path.endswith(".py"), entry.path)):
        if entry.blob.size <= min(room, LARGEST):
            room -= entry.blob.size
            yield entry


def clear(home: Path) -> None:
    """Remove what runs have left that were killed."""
    for folder in home.iterdir() if home.is_dir() else ():
        pid = folder.name.partition("-")[0]
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)
