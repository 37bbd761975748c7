"""Baselines: what a loss does with a fixed set of cases, recorded for later comparison."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from yololoss._suite import VERSION
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import Vector, as_name, make_vector, name_of, read_vectors, write_vectors
from yololoss.harness.errors import BadFile, UsageError
from yololoss.harness.laws.law import drawn
from yololoss.harness.subjects.execute import execute
from yololoss.harness.subjects.family import Family, LossUnderTest
from yololoss.harness.subjects.subject import Unsupported

DRAWN = 40  # cases drawn from a strategy, besides the golden ones


def baseline_cases(family: Family, files: Iterable[Path] = ()) -> dict[str, Case]:
    """The cases of a baseline, by id: the family's golden cases, drawn cases, and the cases of some files."""
    cases = family.golden()
    cases |= {f"made-{n}": case for n, case in enumerate(drawn(family.standard, DRAWN))}
    for path in files:
        cases |= {as_name(f"{path.stem}-{vector.id}"): vector.case for vector in read_vectors(path).vectors}
    return cases


def record_cases(subject: LossUnderTest, cases: dict[str, Case], done: Callable[[], None]) -> list[Vector[Any, Any]]:
    """Record what the loss does with each case, the smallest first. Skips cases with an option that the loss lacks."""
    vectors = []
    for id, case in sorted(cases.items(), key=lambda entry: (*entry[1].size[:2], entry[0])):
        with suppress(Unsupported):
            expected = subject.family.write_down(execute(subject, case))
            vectors.append(make_vector(case, id=id, expected=expected))
        done()
    return vectors


def promote(vector: Vector[Any, Any], output: Path, subject: LossUnderTest) -> None:
    """Add the case, with what the loss does with it, to a file of vectors. Raises UsageError if the file has it."""
    there = read_vectors(output) if output.exists() else None
    name = name_of(vector)
    if there is not None and any(other.id == name for other in there.vectors):
        raise UsageError(f"{output}: already has {name}")
    expected = subject.family.write_down(execute(subject, vector.case))
    made = vector.model_copy(update={"id": name, "flags": ("PROMOTED",), "expected": expected})
    source = {"project": f"yololoss {VERSION}", "loss": subject.spec} if there is None else there.source
    broken = None if there is None else there.broken
    write_vectors(output, source, [*(there.vectors if there else ()), made], broken)


def write_baseline(
    path: Path, loss: str, vectors: list[Vector[Any, Any]], broken: tuple[str, ...], may_overwrite: Callable[[], bool]
) -> bool:
    """Write the file unless it already has this content. Returns whether it was written."""
    if path.exists():
        with suppress(BadFile):  # an invalid file has other content
            there = read_vectors(path)
            if (there.broken, list(there.vectors)) == (broken, vectors):
                return False
        if not may_overwrite():
            return False
    write_vectors(path, {"project": f"yololoss {VERSION}", "loss": loss}, vectors, broken)
    return True
