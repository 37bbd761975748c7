"""The family of YOLOv5 losses: the object through which the harness knows it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from yololoss.harness.cases.case import Case as AnyCase
from yololoss.harness.cases.vectors import read_vectors
from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.dialect import Recognised
from yololoss.harness.subjects.family import Family, LossUnderTest, Wrong
from yololoss.harness.subjects.outcome import Outcome, Trouble
from yololoss.harness.subjects.subject import Make

from . import causes, describing, drawing, exporting, forms, kinds, pools, recorded, regions, strategies
from .budget import Budget
from .case import Case
from .dialects import DIALECTS, Dialect
from .own import measure, not_measured
from .recognise import recognise
from .recorded import Expected
from .reference import Measured, Reference
from .steps import STEPS
from .training import Training

UPSTREAM = Path(__file__).parents[2] / "golden" / "v5" / "upstream-5081342f04fb.json"

# What a law cannot judge if something earlier is wrong. Rows come from targets alone; terms come from rows. Objectness
# also takes the overlap, and classes have the same criterion. An item is right even if the total is not their sum. A
# law that compares a loss with itself, or only looks at how it answers, says nothing about values that are wrong in the
# same way twice. A loss that writes to its inputs may give anything after that.
INPUTS, LEFT = "state.inputs-unchanged", "state.nothing-left-in-inputs"
FINITE = ("totals.finite", "gradients.finite")
ROWS = ("assign", "gather")
VALUES = (*ROWS, "totals.value", "gradients.value")
ANSWERS = ("run.no-exception", "run.time-limit", "run.no-exit")
SAME_TWICE = (*FINITE, *ANSWERS, "state.rng-unchanged", "state.repeated-calls")  # without these no two runs compare
_GIVEN: dict[str, tuple[str, ...]] = {
    "assign": ("assign",),
    **dict.fromkeys(("totals.sum", "totals.shape-and-dtype", "totals.items-detached"), ()),
    "gather": ("assign",),
    "boxes": ("totals.sum", *ROWS, "boxes"),
    "boxes.item": ROWS,
    "boxes.perfect-fit": ("totals.sum", "totals.finite", *ROWS, "boxes"),
    "objectness": ("totals.sum", *ROWS, "boxes", "objectness"),
    "objectness.item": (*ROWS, "boxes"),
    "classes": ("totals.sum", *ROWS, "objectness", "classes"),
    "classes.item": (*ROWS, "objectness"),
    "classes.gradient": ("totals.sum", *ROWS, "boxes.gradient", "objectness", "classes", LEFT),
    # a hook that is left in predictions may change their gradient
    "boxes.gradient": ("totals.sum", *ROWS, "boxes", LEFT),
    "objectness.gradient": ("totals.sum", *ROWS, "boxes", "objectness", LEFT),
    "totals.total-has-gradient": ("objectness",),
    "totals.finite": ("totals.shape-and-dtype", "assign"),
    "totals.layers-independent": FINITE,
    "totals.autobalance-first-call": FINITE,
    "gradients.finite": ("assign", "totals.finite"),
    "gradients.loss-scaling": (*FINITE, "run"),
    "input": (),
    "devices.result-device": (),
    "run": ("assign.clamped-indices", "totals.total-has-gradient", *ANSWERS),
    "run.no-output-by-descriptor": (*ANSWERS, "run.no-output"),
    **dict.fromkeys(("state", "form", "devices"), SAME_TWICE),
    "state.repeated-calls": (*SAME_TWICE, *VALUES),
    "state.keeps-caller-settings": (*SAME_TWICE, "state.global-settings-unchanged"),
    # what is printed is kept until the run ends
    "state.keeps-nothing": (*SAME_TWICE, "state.global-settings-unchanged", "run.no-output"),
    # two runs that round differently, by the budget of right values
    **dict.fromkeys(("state.default-dtype", "state.non-contiguous"), (*SAME_TWICE, *VALUES)),
    **dict.fromkeys(
        ("state.many-calls", "input.spoils-nothing"),
        (*SAME_TWICE, "run", "boxes", "objectness", "classes", "totals.value"),
    ),
    "state.target-dtype": (*SAME_TWICE, "assign"),
    "form.set-balance": (*SAME_TWICE, "objectness.item"),
}
GIVEN = {law: (INPUTS, *earlier) for law, earlier in _GIVEN.items()}


def _beyond(case: Case) -> bool:
    """Whether a centre reaches the end of a grid, in float32."""
    centres = case.target_rows.float().numpy()[:, 2:4]
    ends = np.array([grid[::-1] for grid in case.grids], np.float32)[:, None]
    return bool((centres * ends >= ends).any())


class V5(Family):
    """YOLOv5 and its forks: anchors, build_targets, three items."""

    name = "v5"
    package = __name__.rpartition(".")[0]
    bundled = "yololoss:ComputeLoss"
    numbers = (0.5, 1.0, 2.0, 4.0, 0.4, 0.25, 0.06, 0.02, 3.0, 5.0, 1.4, 1e-7, 1e-9, 1e-16, 0.0001, 0.9999, 8, 16, 32)
    case = Case
    expected = Expected
    reference = Reference
    budget = Budget
    items = ("box", "obj", "cls")
    # Laws run in the order in which the loss works. The first to break matters most: everything that is computed from a
    # wrong assignment is wrong too. Laws that run a loss more than once come later.
    parts = (
        "assign",
        "gather",
        "boxes",
        "objectness",
        "classes",
        "totals",
        "gradients",
        "input",
        "devices",
        "run",
        "state",
        "form",
        "symmetry",
        "compile",
        "baseline",
    )
    # What the loss does to its inputs, since all that follows may be wrong then; the total itself, before its parts.
    first = (INPUTS, LEFT, "totals.shape-and-dtype", "totals.sum")
    given = GIVEN
    never_known = FINITE
    follows = MappingProxyType(
        {
            **{f"{part}.gradient": f"{part}.item" for part in ("boxes", "objectness", "classes")},
            "assign.matched-pairs": "assign.anchor-sides",
            "objectness.item": "assign.no-targets",  # the items in another order
            "state.call-before-backward": "gradients.loss-scaling",  # both calls are in one total
            "state.keeps-caller-settings": "input.settings-restored",  # gradients are switched on, whatever they were
        }
    )
    # A small error of its values looks like float32's. A layer without rows may lose its gradient, or all of them.
    of_right_values = frozenset(("gradients.double-precision", "totals.total-has-gradient"))
    half_seen = frozenset(("gather",))
    seen_in_gradients = frozenset(("gather.own-cell", "gradients.assignment"))
    shown = ("assign",)
    given_to = "a model like YOLOv5's (a dict hyp, gr, nc, a head model[-1]), then predictions and targets"
    shows = "the rows that it built"
    dialects = DIALECTS
    usual_dialect = "upstream"
    own_dialect = "yololoss"
    regions = regions.REGIONS
    shared_cases: ClassVar[Any] = {
        "any": strategies.ANY,
        "every kind": strategies.EVERY_KIND,
        "with targets": strategies.WITH_TARGETS,
        "crowded": strategies.CROWDED,
        "a few": (strategies.USUAL,),
    }
    # No box fits exactly: there the gradient jumps, and two correct losses may be on different sides.
    steps = STEPS
    standard = strategies.cases(spots=False, options=pools.ALL_OPTIONS)

    @override
    def adapt(self, found: Any, module: ModuleType) -> Make:
        return forms.adapt(found, module)

    @override
    def without(self, part: str, law: str, case: Any) -> Case | None:
        return causes.without(part, law, case)

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
    def title(self, wrong: Wrong, case: Any, outcome: Outcome | None, dialect: Dialect) -> str:
        return describing.title(wrong, case, outcome, dialect, super().title(wrong, case, outcome, dialect))

    @override
    def worked_out(self, case: Any, outcome: Outcome | None, dialect: Dialect) -> Iterator[str]:
        return describing.worked_out(case, outcome, dialect)

    @override
    def exported(self, law: Any, case: Any, title: str, under_test: LossUnderTest) -> str:
        return exporting.exported(law, case, title, under_test)

    @override
    def regions_of(self, case: Any) -> Sequence[str]:
        return regions.regions(case)

    @override
    def golden(self) -> dict[str, AnyCase]:
        return {vector.id: vector.case for vector in read_vectors(UPSTREAM).vectors}

    @override
    def in_order(self, dialect: Dialect, items: tuple[float, ...]) -> tuple[float, ...]:
        return items[2::-1] + items[3:] if dialect.item_order == "classes first" else items

    @override
    def resized(self, dialect: Dialect, case: Any) -> Case:
        classes = dialect.only_classes or case.classes
        targets = tuple((image, cls % classes, *rest) for image, cls, *rest in case.targets)
        return case if classes == case.classes else case.changed(classes=classes, targets=targets)  # type: ignore[no-any-return]

    @override
    def excludes(self, dialect: Dialect, case: Any) -> str | None:
        """Excludes what the dialect has no answer to: it is an error in every loss of it."""
        if dialect.cell == "none" and _beyond(case):
            return "a centre on the far edge, which this dialect leaves outside the grid"
        if len(dialect.balance_of(case.layers)) < case.layers:
            return f"{case.layers} layers: this dialect has a balance for fewer"
        tied = (("classes", case.classes, dialect.only_classes), ("layers", case.layers, dialect.layers))
        for what, count, only in tied:
            if only not in (0, count):
                return f"{count} {what}: losses of this dialect take {only}"
        if dialect.taken and (why := not_measured(case)) is not None:
            return why
        if dialect.target_dtype == "own" and case.targets_dtype == "float64":
            return "float64 targets, which losses of this dialect need not assign in float32"
        return None

    @override
    def budget_of(self, subject: LossUnderTest, case: Any) -> Budget:
        return Budget(case, subject.dialect, measure(subject, case, subject.dialect))

    @override
    def budget_as_shown(self, subject: LossUnderTest, case: Any, outcome: Outcome) -> Budget | None:
        rows, dialect = outcome.rows, subject.dialect
        if rows is None or dialect.taken or dialect.added_term != "none":
            return None
        indices = (each for i, mine in enumerate(rows) for each in mine.ranges(case, i))
        inside = all(((values >= 0) & (values < end)).all() for _, values, end in indices)
        return Budget(case, dialect, Measured(rows=rows)) if inside else None

    @override
    def recognise(self, subject: LossUnderTest, named: Dialect | None) -> Recognised:
        return recognise(subject, list(self.golden().values()), named)

    @override
    def other_kind(self, subject: LossUnderTest, raised: Trouble | None) -> str | None:
        return kinds.by_what_it_does(subject, raised)

    @override
    def training(self, loss: Any, model: Any | None) -> Training:
        return Training(loss, model)

    @override
    def proofs(self, task: Any, **asked: Any) -> Iterator[Any]:
        from .prove.proofs import proofs  # noqa: PLC0415  # heavy, and needed by one command only

        return proofs(task, **asked)


FAMILY = V5()
