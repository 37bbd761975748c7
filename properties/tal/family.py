"""The family of task-aligned losses: the object through which the harness knows it."""

from collections.abc import Iterator
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar

from typing_extensions import override

from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.dialect import Recognised
from yololoss.harness.subjects.family import Family, LossUnderTest
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Make

from . import describing, drawing, exporting, forms, golden, recorded, strategies
from .budget import Budget
from .case import Case
from .dialects import DIALECTS, Dialect
from .recognise import recognise
from .recorded import Expected
from .reference import Reference, most_anchors
from .steps import STEPS
from .training import Training

# What a law cannot judge if something earlier is wrong. The scores follow from the assignment, and all terms are
# weighted by them. A law that compares a loss with itself says nothing about values that are wrong in the same way
# twice. A loss that writes to its inputs may give anything after that.
INPUTS = "state.inputs-unchanged"
FINITE = ("totals.finite", "gradients.finite")
SCORES = ("assign", "scores")
VALUES = (*SCORES, "totals.value", "gradients.value")
ANSWERS = ("run.no-exception", "run.time-limit", "run.no-exit")
SAME_TWICE = (*FINITE, *ANSWERS, "state.rng-unchanged")
_GIVEN: dict[str, tuple[str, ...]] = {
    "assign": ("assign",),
    "scores": SCORES,
    **dict.fromkeys(("totals.sum", "totals.shape", "totals.items-detached"), ()),
    "classes": ("totals.sum", *SCORES, "classes"),
    "boxes": ("totals.sum", *SCORES, "boxes"),
    "third": ("totals.sum", *SCORES, "boxes", "third"),
    "totals.two-heads": (*VALUES, "totals.sum"),
    "totals.finite": ("totals.shape", "assign"),
    "gradients.finite": ("assign", "totals.finite"),
    "input": (),
    "devices.result-device": (),
    "run": ANSWERS,
    "run.no-output-by-descriptor": (*ANSWERS, "run.no-output"),
    **dict.fromkeys(("state", "form", "devices"), SAME_TWICE),
    "state.keeps-caller-settings": (*SAME_TWICE, "state.global-settings-unchanged"),
    # what is printed is kept until the run ends
    "state.keeps-nothing": (*SAME_TWICE, "state.global-settings-unchanged", "run.no-output"),
    "state.default-dtype": (*SAME_TWICE, *VALUES),
}
GIVEN = {law: (INPUTS, *earlier) for law, earlier in _GIVEN.items()}


class TaskAligned(Family):
    """YOLOv8 to 26: no anchor boxes, targets assigned by score and overlap, three items."""

    name = "tal"
    package = __name__.rpartition(".")[0]
    bundled = "yololoss:TaskAlignedLoss"
    numbers = (0.5, 1.0, 2.0, 4.0, 6.0, 7.5, 1.5, 0.01, 10.0, 13.0, 1e-7, 1e-9)
    case = Case
    expected = Expected
    reference = Reference
    budget = Budget
    items = ("box", "cls", "third")
    # In the order in which the loss works: the assignment, the scores that follow from it, the terms weighted by them.
    parts = (
        "assign",
        "scores",
        "classes",
        "boxes",
        "third",
        "totals",
        "gradients",
        "input",
        "devices",
        "run",
        "state",
        "form",
        "symmetry",
        "baseline",
    )
    first = (INPUTS, "totals.shape", "totals.sum")
    given = GIVEN
    never_known = FINITE
    follows = MappingProxyType(
        {
            **{f"{part}.gradient": f"{part}.item" for part in ("classes", "boxes", "third")},
            "assign.ties": "assign.anchors",
            "scores.ties": "scores.value",
            "scores.value": "assign.anchors",  # a score may also be wrong where its target has other anchors
        }
    )
    given_to = (
        "a model like YOLOv8's (args with box, cls and dfl, a head model[-1] with stride, nc and reg_max), "
        "then predictions and a batch"
    )
    # where an item or a gradient of a part is wrong, so are the total and the whole gradient
    of_right_values = frozenset(("totals.value", "gradients.value", "gradients.ties"))
    seen_in_gradients = frozenset(("assign", "scores"))
    dialects = DIALECTS
    usual_dialect = "upstream"
    own_dialect = "yololoss"
    shared_cases: ClassVar[Any] = {
        "any": strategies.ANY,
        "every kind": strategies.EVERY_KIND,
        "with targets": strategies.WITH_TARGETS,
        "crowded": strategies.CROWD,
        "a few": (strategies.USUAL,),
    }
    steps = STEPS
    standard = strategies.STANDARD

    @override
    def adapt(self, found: Any, module: ModuleType) -> Make:
        return forms.adapt(found, module)

    @override
    def write_down(self, outcome: Outcome) -> Expected:
        return recorded.write_down(outcome)

    @override
    def comparisons(self, case: Any, expected: Any, outcome: Outcome) -> Iterator[Comparison]:
        return recorded.comparisons(case, expected, outcome)

    @override
    def draw(self, case: Any, title: str, outcome: Outcome | None, dialect: Dialect) -> Any:
        return drawing.draw(case, title, outcome, dialect)

    @override
    def worked_out(self, case: Any, outcome: Outcome | None, dialect: Dialect) -> Iterator[str]:
        return describing.worked_out(case, dialect)

    @override
    def exported(self, law: Any, case: Any, title: str, under_test: LossUnderTest) -> str:
        return exporting.exported(law, case, title, under_test)

    @override
    def training(self, loss: Any, model: Any | None) -> Training:
        return Training(loss, model)

    @override
    def recognise(self, subject: LossUnderTest, named: Dialect | None) -> Recognised:
        return recognise(subject, named)

    @override
    def golden(self) -> dict[str, Any]:
        return golden.golden()

    @override
    def proofs(self, task: Any, **asked: Any) -> Iterator[Any]:
        from .prove.proofs import proofs  # noqa: PLC0415  # needed by one command only

        return proofs(task, **asked)

    @override
    def excludes(self, dialect: Dialect, case: Any) -> str | None:
        """Excludes what the dialect has no answer to: it is an error, or another loss, in every loss of it."""
        if dialect.heads != "one" and (case.topk or case.topk2):
            return "a top-k, which losses of two heads have by themselves"
        if dialect.heads == "one" and case.head is not None:
            return "predictions of one of two heads"
        if dialect.few_anchors == "error" and case.anchors < most_anchors(case, dialect):
            return f"{case.anchors} anchors: losses of this dialect need as many as their top-k"
        images = [target[0] for target in case.targets]
        if dialect.row_order == "by image" and images != sorted(images):
            return "rows that are not in the order of images, which losses of this dialect do not take"
        if dialect.target_dtypes == "float32" and case.targets_dtype != "float32":
            return f"{case.targets_dtype} targets, which losses of this dialect do not take"
        return None


FAMILY = TaskAligned()
