"""Baselines: what a loss does with a fixed set of cases, written down for later."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from yololoss import __version__, _suite
from yololoss.harness.case import Case
from yololoss.harness.errors import BadFile
from yololoss.harness.execute import execute
from yololoss.harness.law import drawn
from yololoss.harness.record import write_down
from yololoss.harness.subject import LossUnderTest, Unsupported
from yololoss.harness.vectors import Vector, read_vectors, write_vectors

DRAWN = 40  # cases that strategies make, beside the golden ones


def baseline_cases(files: Iterable[Path] = ()) -> dict[str, Case]:
    """The cases that every baseline has, by id, and those of some files: golden ones, made ones.

    None has a box that fits exactly: there the gradient jumps, and rounding on another machine chooses the side.
    """
    strategies = _suite.module("strategies")
    golden = read_vectors(_suite.FOLDER / "golden" / "upstream-5081342f04fb.json").vectors
    cases = {vector.id: vector.case for vector in golden}
    made = drawn(strategies.cases(spots=False, options=strategies.ALL_OPTIONS), DRAWN)
    cases |= {f"made-{n}": case for n, case in enumerate(made)}
    for path in files:
        cases |= {f"{path.stem}-{vector.id}": vector.case for vector in read_vectors(path).vectors}
    return cases


def record_cases(subject: LossUnderTest, cases: dict[str, Case], done: Callable[[], None]) -> list[Vector]:
    """What the loss does with each, the smallest case first; without those that use an option it does not have."""
    vectors = []
    for id, case in sorted(cases.items(), key=lambda entry: (len(entry[1].targets), len(entry[1].key), entry[0])):
        with suppress(Unsupported):
            vectors.append(Vector(id=id, case=case, expected=write_down(execute(subject, case))))
        done()
    return vectors


def write_baseline(
    path: Path, loss: str, vectors: list[Vector], broken: tuple[str, ...], may_overwrite: Callable[[], bool]
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
