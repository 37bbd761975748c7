"""Hypothesis's databases as a cache of cases: a folder, Redis, GitHub artifacts, combined as Hypothesis documents.

A database holds what sessions found, each case under its law. A session judges these cases first. The durable record is
the files of a corpus. A database that cannot be reached raises UsageError.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    GitHubArtifactDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)

from yololoss.harness.cases.files import parse
from yololoss.harness.cases.vectors import Vector, kind
from yololoss.harness.errors import BadFile, UsageError

GITHUB = "github:"
REDIS = ("redis://", "rediss://")


def open_database(places: Sequence[str]) -> ExampleDatabase | None:
    """All of these places as one database; None if there are none. Raises UsageError for an invalid place."""
    found = [_open(place) for place in places]
    return MultiplexedDatabase(*found) if found else None


def _open(place: str) -> ExampleDatabase:
    if place.startswith(REDIS):
        try:
            from hypothesis.extra.redis import RedisExampleDatabase  # noqa: PLC0415
            from redis import Redis  # noqa: PLC0415
        except ImportError as error:  # pragma: no cover  # the tests' environment has it
            raise UsageError(f"--database {place}: needs the package redis: pip install 'yololoss[fleet]'") from error
        return RedisExampleDatabase(Redis.from_url(place, socket_timeout=5.0))
    if place.startswith(GITHUB):
        owner, slash, repository = place.removeprefix(GITHUB).partition("/")
        if not owner or not slash or not repository:
            raise UsageError(f"--database {place}: expected github:owner/repository")
        return ReadOnlyDatabase(GitHubArtifactDatabase(owner, repository))
    if "://" in place:
        raise UsageError(f"--database {place}: expected a folder, redis://host:port/number or github:owner/repository")
    return DirectoryBasedExampleDatabase(place)


def key(family: str, law: str) -> bytes:
    """The key under which a database keeps the cases of a law."""
    return f"yololoss 1 {family} {law}".encode()


def fetch(database: ExampleDatabase, family: str, laws: Iterable[str]) -> list[Vector[Any, Any]]:
    """The cases that the database has for these laws of a family. Raises UsageError if it cannot be reached."""
    found = []
    for law in laws:
        try:
            kept = sorted(database.fetch(key(family, law)))
        except Exception as error:  # each kind of database has its own errors
            raise UsageError(f"--database: {type(error).__name__}: {error}") from error
        for text in kept:
            try:
                found.append(parse(text, kind(family).vector, "--database"))
            except BadFile:  # written by another version or another program
                continue
    return found


def save(database: ExampleDatabase, vectors: Iterable[Vector[Any, Any]]) -> None:
    """Save cases in the database. Raises UsageError if it cannot be reached."""
    for vector in vectors:
        try:
            database.save(key(vector.case.family, str(vector.law)), vector.model_dump_json(exclude_none=True).encode())
        except Exception as error:
            raise UsageError(f"--database: {type(error).__name__}: {error}") from error
