"""Baselines: what a loss does with a fixed set of cases, written down for later."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from yololoss import __version__
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import Vector, make_vector, name_of, read_vectors, write_vectors
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.laws.law import drawn
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import Family, LossUnderTest
from yololoss.harness.subjects.subject import Unsupported

DRAWN = 40  # cases that strategies make, beside the golden ones


def baseline_cases(family: Family, files: Iterable[Path] = ()) -> dict[str, Case]:
    """The cases that every baseline of the family has, by id, and those of some files: golden ones, drawn ones."""
    cases = family.golden()
    cases |= {f"made-{n}": case for n, case in enumerate(drawn(family.standard, DRAWN))}
    for path in files:
        cases |= {f"{path.stem}-{vector.id}": vector.case for vector in read_vectors(path).vectors}
    return cases


def record_cases(subject: LossUnderTest, cases: dict[str, Case], done: Callable[[], None]) -> list[Vector[Any, Any]]:
    """What the loss does with each, the smallest case first; without those that use an option that it lacks."""
    vectors = []
    for id, case in sorted(cases.items(), key=lambda entry: (*entry[1].size[:2], entry[0])):
        with suppress(Unsupported):
            expected = subject.family.write_down(execute(subject, case))
            vectors.append(make_vector(case, id=id, expected=expected))
        done()
    return vectors


def promote(vector: Vector[Any, Any], output: Path, subject: LossUnderTest) -> None:
    """Add the case to a file of vectors, with what the loss does with it. Raises UsageError if it is there already."""
    there = read_vectors(output) if output.exists() else None
    name = name_of(vector)
    if there is not None and any(other.id == name for other in there.vectors):
        raise UsageError(f"{output}: it has {name} already")
    expected = subject.family.write_down(execute(subject, vector.case))
    made = vector.model_copy(update={"id": name, "flags": ("PROMOTED",), "expected": expected})
    source = {"project": f"yololoss {__version__}", "loss": subject.spec} if there is None else there.source
    broken = None if there is None else there.broken
    write_vectors(output, source, [*(there.vectors if there else ()), made], broken)


def write_baseline(
    path: Path, loss: str, vectors: list[Vector[Any, Any]], broken: tuple[str, ...], may_overwrite: Callable[[], bool]
) -> bool:
    """Write the file unless it says the same already; whether it was written."""
    if path.exists():
        with suppress(BadFile):  # then it says otherwise
            there = read_vectors(path)
            if (there.broken, list(there.vectors)) == (broken, vectors):
                return False
        if not may_overwrite():
            return False
    write_vectors(path, {"project": f"yololoss {__version__}", "loss": loss}, vectors, broken)
    return True
