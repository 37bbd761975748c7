"""A corpus: a folder of case files in the format of findings. Its cases are judged before new ones are made."""

from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

from yololoss.harness.cases.vectors import Vector, name_of, read_corpus, read_vectors, write_vectors


def add(folder: Path, vectors: Iterable[Vector[Any, Any]], source: dict[str, str]) -> list[Path]:
    """Save the cases that the folder does not have, each in a file with that source. Returns the new files."""
    known = read_corpus(folder) if folder.is_dir() else {}
    added = []
    for vector in vectors:
        name = name_of(vector)
        if name not in known:
            known[name] = vector
            added.append(folder / f"{name}.json")
            write_vectors(added[-1], source, [vector.model_copy(update={"id": name})])
    return added


def minimised(folder: Path, reached: Callable[[Vector[Any, Any]], Hashable]) -> tuple[int, int]:
    """Keep the smallest of the cases for which ``reached`` is equal, and delete the others.

    Returns how many cases were kept, and how many were deleted.
    """
    best: dict[Hashable, Vector[Any, Any]] = {}
    found = read_corpus(folder)
    for vector in found.values():
        what = reached(vector)
        if what not in best or vector.case.size < best[what].case.size:
            best[what] = vector
    kept = {name_of(vector) for vector in best.values()}
    for path in sorted(folder.rglob("*.json")):
        file = read_vectors(path)
        left = [vector for vector in file.vectors if name_of(vector) in kept]
        kept -= {name_of(vector) for vector in left}  # not again from another file
        if not left:
            path.unlink()
            path.with_suffix(".png").unlink(missing_ok=True)
        elif len(left) < len(file.vectors):
            write_vectors(path, file.source, left)
    return len(best), len(found) - len(best)
