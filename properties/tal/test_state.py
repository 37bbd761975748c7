"""State: a loss object gives the same for the same inputs, whatever it was called on before."""

from math import ceil
from typing import Any

from torch import Tensor

from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.subject import Subject

from ..shared.comparing import close
from .case import Case
from .strategies import STANDARD, WITH_TARGETS


def after(exam: Exam, *others: Any) -> Exam:
    """The case after calls of the same object on other cases."""

    def calling(subject: Subject, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        for other in others:
            subject.loss(*other.inputs(exam.subject.device))
        return subject.loss(p, targets)

    exam.also(*others)
    _ = exam.calls
    return exam.on(exam.case, calling=calling)


@law("state.after-other-targets", title="After a call with other targets the loss is another one", source="SPEC 10.13",
     cases=WITH_TARGETS, again=True)  # fmt: skip
def test_earlier_targets_do_not_matter(exam: Exam) -> None:
    """After a call on fewer targets, and one on none, the object gives the same numbers."""
    fewer = exam.case.changed(targets=exam.case.targets[:1])
    close(exam, after(exam, fewer, exam.case.changed(targets=())), "after calls with other targets")


@law("state.after-other-sizes", title="After a call with other grids the loss is another one", source="SPEC 9",
     cases=STANDARD, again=True)  # fmt: skip
def test_earlier_grids_do_not_matter(exam: Exam) -> None:
    """After calls on more, larger and turned images the object gives the same numbers, as with multi-scale training."""
    case = exam.case
    larger = case.changed(grids=_grids(case, 2, 2), batch=case.batch + 1)
    turned = case.changed(grids=tuple((columns, rows) for rows, columns in case.grids))
    taller = case.changed(grids=_grids(case, 2, 1))
    close(exam, after(exam, larger, turned, taller), "after calls with other grids")


def _grids(case: Case, taller: int, wider: int) -> tuple[tuple[int, int], ...]:
    """The grids of images that are so many times as high and as wide."""
    height, width = case.image_size
    return tuple((ceil(taller * height / stride), ceil(wider * width / stride)) for stride in case.strides)


@law("state.repeated-calls", title="A second call gives another loss", source="SPEC 10.13", cases=WITH_TARGETS,
     again=True)  # fmt: skip
def test_a_second_call_gives_the_same(exam: Exam) -> None:
    """The same object called twice on the same inputs gives the same numbers."""
    close(exam, after(exam, exam.case), "in a second call")
