"""Compilation: under torch.compile the loss gives the same results as without.

Compiling takes from seconds to a minute for each shape. So these laws run on a few fixed cases, and only with
``--device compile``.
"""

from yololoss.harness.devices.devices import Around
from yololoss.harness.laws.exam import Exam
from yololoss.harness.laws.law import law
from yololoss.harness.subjects.compiled import graph_breaks
from yololoss.harness.subjects.subject import Subject

from ..shared.comparing import close
from .case import Case, SeededLogits
from .strategies import USUAL

COMPILED = Around(compiled=True)
ONE_LAYER = Case(
    batch=1,
    classes=1,
    grids=((5, 7),),
    strides=(16.0,),
    anchors=(((1.0, 1.0), (2.0, 2.0), (4.0, 3.0)),),
    targets=((0, 0, 1.0, 0.99, 0.3, 0.4), (0, 0, 0.98, 0.99, 0.3, 0.4)),
    predictions=SeededLogits(seed=2, scale=12.0),
)
CASES = (USUAL, ONE_LAYER, USUAL.changed(targets=()))


@law("compile.values", title="The compiled loss gives other results", source="DESIGN", cases=CASES, on=("compile",))
def test_values_and_gradients_are_those_without_compilation(exam: Exam) -> str:
    """The compiled loss gives the same totals and gradients as without compilation, up to rounding.

    The note says where its graph breaks.
    """
    close(exam, exam.on(exam.case, around=COMPILED), "compiled")
    device = exam.subject.device
    breaks = graph_breaks(exam.subject.make(exam.case, device), *exam.case.inputs(device))
    return f"{len(breaks)} places where the graph breaks{': ' * bool(breaks)}{', '.join(breaks)}"


@law(
    "compile.changed-target-count",
    title="The compiled loss gives other results after a call with more targets",
    source="DESIGN",
    cases=(USUAL,),
    on=("compile",),
)
def test_other_inputs_before_change_nothing(exam: Exam) -> None:
    """After a call with more targets, the compiled loss still gives the results of the loss without compilation."""
    more = exam.case.changed(targets=(*exam.case.targets, *exam.case.targets[:2]))

    def called(subject: Subject) -> None:
        subject.loss(*more.inputs(subject.device))

    close(exam, exam.on(exam.case, called, around=COMPILED), "compiled, after a call with more targets")
