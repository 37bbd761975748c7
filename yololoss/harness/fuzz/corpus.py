"""A corpus: a folder of case files, as findings are saved. Its cases are judged before new ones are made."""

from collections.abc import Iterable
from pathlib import Path

from yololoss import __version__, _suite
from yololoss.harness.errors import UsageError
from yololoss.harness.execute import execute
from yololoss.harness.fuzz.judge import Judge
from yololoss.harness.fuzz.raw import plain
from yololoss.harness.record import write_down
from yololoss.harness.subject import LossUnderTest
from yololoss.harness.vectors import Vector, name_of, read_corpus, read_vectors, write_vectors


def add(folder: Path, vectors: Iterable[Vector]) -> list[Path]:
    """Save cases that the folder does not have; the files that are new."""
    known = read_corpus(folder) if folder.is_dir() else {}
    added = []
    for vector in vectors:
        name = name_of(vector)
        if name not in known:
            known[name] = vector
            added.append(folder / f"{name}.json")
            source = {"project": f"yololoss {__version__}"}
            write_vectors(added[-1], source, [vector.model_copy(update={"id": name})])
    return added


def minimised(folder: Path) -> tuple[int, int]:
    """Keep of cases that reach the same the smallest, delete the others; how many of each."""
    regions = _suite.module("regions").regions
    best: dict[tuple[object, ...], Vector] = {}
    found = read_corpus(folder)
    for vector in found.values():
        reached = (vector.law, plain(vector.comment), *regions(vector.case))
        if reached not in best or _size(vector) < _size(best[reached]):
            best[reached] = vector
    kept = {name_of(vector) for vector in best.values()}
    for path in sorted(folder.rglob("*.json")):
        file = read_vectors(path)
        left = [vector for vector in file.vectors if name_of(vector) in kept]
        kept -= {name_of(vector) for vector in left}  # and not once more, from another file
        if not left:
            path.unlink()
            path.with_suffix(".png").unlink(missing_ok=True)
        elif len(left) < len(file.vectors):
            write_vectors(path, file.source, left)
    return len(best), len(found) - len(best)


def _size(vector: Vector) -> tuple[int, int, str]:
    return len(vector.case.targets), len(vector.case.key), vector.case.key


def promoted(vector: Vector, output: Path, subject: LossUnderTest, judge: Judge) -> None:
    """Add the case to a file of vectors, with what the loss does with it. Raises UsageError where it breaks the law."""
    there = read_vectors(output) if output.exists() else None
    name = name_of(vector)
    if there is not None and any(other.id == name for other in there.vectors):
        raise UsageError(f"{output}: it has {name} already")
    broke, _ = judge.ask(vector)
    if broke is not None:
        raise UsageError(f"{name}: {subject.spec} breaks {broke.law} on it: {broke.observed}; mend that first")
    expected = write_down(execute(subject, vector.case))
    made = vector.model_copy(update={"id": name, "flags": ("PROMOTED",), "expected": expected})
    source = {"project": f"yololoss {__version__}", "loss": subject.spec} if there is None else there.source
    broken = None if there is None else there.broken
    write_vectors(output, source, [*(there.vectors if there else ()), made], broken)
