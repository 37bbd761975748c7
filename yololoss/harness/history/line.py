"""The commits that touched a loss, each with where the loss is at it. Renames of its file are followed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from yololoss.harness.errors import UsageError, closest
from yololoss.harness.history.commits import Commit, Repository
from yololoss.harness.history.sources import Place, Sources, place

TELLS = "expected REV..REV=SPEC, such as v1.0..v2.0=old/loss.py:OldLoss"


class Step(NamedTuple):
    """A commit that touched the loss."""

    commit: Commit
    loss: Place
    key: str  # the same as another's: so is the loss
    parents: tuple[str, ...]  # the nearest commits before it that touched the loss
    open: bool  # whether there are commits before it that are not looked at


class Asked(NamedTuple):
    """What is asked of a history."""

    loss: str
    since: str | None = None
    to: str | None = None
    ranges: tuple[str, ...] = ()  # REV..REV=SPEC: what the loss is called there


def read_line(repository: Repository, asked: Asked) -> list[Step]:
    """The commits that touched the loss, each after its parents. Raises UsageError."""
    to = repository.resolve(asked.to or "HEAD", "--to")
    since = None if asked.since is None else repository.resolve(asked.since, "--since")
    if since is not None and not repository.is_ancestor(since, to):
        raise UsageError(f"--since {asked.since}: not in the history of --to {asked.to or 'HEAD'}")
    commits = repository.commits(to, since)
    losses = _losses(repository, commits, place(asked.loss, "LOSS", repository, to), _ranges(repository, asked, to))
    sources = Sources(repository)
    keys = {commit.id: sources.key(commit.id, losses[commit.id]) for commit in commits}
    if not any(keys.values()):
        raise UsageError(
            f"LOSS {asked.loss}: its file is in no commit up to {asked.to or 'HEAD'}{_near(repository, asked, to)}"
        )
    return _touching(commits, losses, keys, repository.shallow)


def _near(repository: Repository, asked: Asked, to: str) -> str:
    known = [entry.path for entry in repository.files(to) if entry.path.endswith(".py")]
    return closest(asked.loss.rpartition(":")[0], known)


def _ranges(repository: Repository, asked: Asked, to: str) -> dict[str, Place]:
    """The losses that are given for ranges, by commit. The first that is given for a commit counts."""
    found: dict[str, Place] = {}
    for text in reversed(asked.ranges):
        where, equals, spec = text.partition("=")
        old, dots, new = where.partition("..")
        if not equals or not dots or not (old or new):
            raise UsageError(f"--loss {text}: {TELLS}")
        first = repository.resolve(old, "--loss") if old else None
        last = repository.resolve(new, "--loss") if new else to
        loss = place(spec, "--loss", repository, last)
        found |= dict.fromkeys(repository.within(first, last), loss)
    return found


def _losses(
    repository: Repository, commits: Sequence[Commit], newest: Place, given: Mapping[str, Place]
) -> dict[str, Place]:
    """Where the loss is at each commit. A commit's file is followed to its parents, if it was renamed there too."""
    found: dict[str, Place] = {}
    paths: dict[str, str] = {}
    known = {commit.id for commit in commits}
    for commit in reversed(commits):
        loss = given.get(commit.id) or Place(paths.get(commit.id, newest.path), newest.name)
        found[commit.id] = loss
        for parent in commit.parents:
            if parent in known and parent not in paths:
                before = _before(repository, parent, commit.id, loss.path)
                lost = commit.id in given and not repository.find(parent, before)
                paths[parent] = newest.path if lost else before
    return found


def _before(repository: Repository, parent: str, commit: str, path: str) -> str:
    """The path of the file in a parent."""
    if repository.find(parent, path) or not repository.find(commit, path):
        return path
    return repository.renamed(parent, commit, path) or path


def _touching(
    commits: Sequence[Commit], losses: Mapping[str, Place], keys: Mapping[str, str], shallow: bool
) -> list[Step]:
    """The commits whose loss is that of none of their parents."""
    found: list[Step] = []
    last: dict[str, str | None] = {}  # by commit: the last one that touched the loss, itself or before it
    for commit in commits:
        key = keys[commit.id]
        same = next((parent for parent in commit.parents if keys.get(parent) == key), None)
        if same is not None or not key:
            last[commit.id] = None if same is None else last[same]
            continue
        before = dict.fromkeys(last[parent] for parent in commit.parents if parent in last)
        unknown = any(parent not in last for parent in commit.parents) or (shallow and not commit.parents)
        parents = tuple(parent for parent in before if parent is not None)
        found.append(Step(commit, losses[commit.id], key, parents, unknown))
        last[commit.id] = commit.id
    return found
