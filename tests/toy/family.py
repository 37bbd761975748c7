"""The toy family: mean cross-entropy of logits (N, C) and labels (N,)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from yololoss.harness.cases.case import Case, Count, Data, Index, Number
from yololoss.harness.cases.domain import Choices, Domain, strategy
from yololoss.harness.subjects.comparison import Comparison
from yololoss.harness.subjects.family import Family
from yololoss.harness.subjects.outcome import Outcome
from yololoss.harness.subjects.subject import Subject

SCALES = (1.0, 0.0, 20.0, 300.0)


class ToyCase(Case):
    """Labels of N examples, and a seed for their logits (N, C)."""

    family: ClassVar[str] = "toy"
    classes: Count
    labels: Annotated[tuple[Index, ...], Field(min_length=1)]
    seed: Index = 0
    scale: Number = 1.0

    @cached_property
    def logits(self) -> np.ndarray:
        """(N, C), float32 values."""
        shape = len(self.labels), self.classes
        return np.float32(self.scale) * np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)

    def inputs(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        logits = torch.from_numpy(self.logits).to(device, copy=True).requires_grad_()
        return [logits.clone()], torch.tensor(self.labels, device=device)

    def __str__(self) -> str:
        return f"{len(self.labels)} example(s), {self.classes} class(es), scale {self.scale:g}\nlabels {self.labels}"


@dataclass(frozen=True)
class ToyDomain(Domain):
    """All cases of up to ``least`` + 3 examples."""

    least: int = 1

    @property
    def size(self) -> int:
        return 4 + self.least + 3

    def case(self, data: bytes) -> ToyCase:
        choose = Choices(data)
        classes, count = 2 + choose.index(4), self.least + choose.index(4)
        seed, scale = choose.index(256), choose.of(SCALES)
        return ToyCase(
            classes=classes, labels=tuple(choose.index(classes) for _ in range(count)), seed=seed, scale=scale
        )

    def holds(self, case: Case) -> bool:
        return isinstance(case, ToyCase) and len(case.labels) >= self.least


FEW = ToyCase(classes=3, labels=(0, 2, 1), seed=1, scale=SCALES[0])


class Reference:
    """Cross-entropy and its gradient in float64."""

    def __init__(self, case: ToyCase) -> None:
        logits = case.logits.astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        hit = np.arange(case.classes) == np.array(case.labels)[:, None]
        self.total = float(-log_p[hit].mean())
        self.gradient = (np.exp(log_p) - hit) / len(case.labels)


class Budget:
    """16 roundings to float32 of numbers of the size of the largest logit."""

    because = "16 roundings to float32"

    def __init__(self, case: ToyCase, dialect: Any) -> None:
        off = 16 * 2.0**-24
        size = 1 + 2 * float(np.abs(case.logits).max())
        self.totals = (off * size,)
        self.items = (np.array([off * size]),)
        self.gradients = (np.full(case.logits.shape, off * size),)


class Expected(Data):
    """What is recorded of an outcome."""

    totals: tuple[Number, ...]
    gradient: tuple[tuple[Number, ...], ...]


class ToySubject(Subject):
    """Derive from it, with ``cross_entropy``, to test a loss of this family."""

    family = "toy"

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy, a number."""
        raise NotImplementedError

    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        total = self.cross_entropy(p[0], targets)
        return total, total.detach().reshape(1)


class Plain(Data):
    """The only dialect: it has no choice."""


class Toy(Family):
    """Plain classification."""

    name = "toy"
    package = "tests.toy"
    bundled = "tests.toy.loss:CrossEntropy"
    case = ToyCase
    expected = Expected
    reference = Reference
    budget = Budget
    items = ("cross_entropy",)
    parts = ("totals", "gradients", "symmetry")
    dialects: ClassVar[Any] = {"plain": Plain()}
    usual_dialect = own_dialect = "plain"
    standard = strategy(ToyDomain())
    shared_cases: ClassVar[Any] = {
        **dict.fromkeys(("any", "every kind", "with targets", "crowded"), standard),
        "a few": (FEW,),
    }

    def adapt(self, found, module):
        raise TypeError("expected a class derived from tests.toy.family.ToySubject")

    def write_down(self, outcome: Outcome) -> Expected:
        (gradient,) = outcome.gradients
        rows = tuple(map(tuple, gradient.tolist()))
        return Expected(totals=tuple(call.total for call in outcome.calls), gradient=rows)

    def comparisons(self, case: Any, expected: Any, outcome: Outcome) -> Iterator[Comparison]:
        budget = Budget(case, Plain())
        totals = np.array([call.total for call in outcome.calls])
        yield Comparison("values", "total", np.array(expected.totals), totals, 2 * budget.totals[0], budget.because)
        gradient = np.array(expected.gradient)
        pair = gradient, outcome.gradients[0]
        yield Comparison("gradients", "gradient", *pair, 2 * budget.gradients[0], budget.because)

    def draw(self, case: Any, title: str, outcome: Outcome | None, dialect: Any) -> Any:
        from matplotlib.figure import Figure  # noqa: PLC0415

        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.imshow(case.logits)
        axes.plot(case.labels, range(len(case.labels)), "rx")
        axes.set(title=title[:60], xlabel="class", ylabel="example")
        return figure


FAMILY = Toy()
