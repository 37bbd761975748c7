"""A subject: the loss under test behind one small interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.case import Case, Dtype
from yololoss.harness.outcome import Rows
from yololoss.harness.vectors import Expected, Vector


class Unsupported(Exception):
    """The loss has no such option, so a case that uses it says nothing about it; the message names it."""


class UnknownForm(Exception):
    """The loss returned something that the harness cannot read; the message says what, and what it can."""


class Subject(ABC):
    """A loss built for one case. Derive from it to adapt a loss of a form that the harness does not know.

    Give the derived class to ``--loss``. Its constructor builds the loss from what the case says: grids,
    strides, anchors (cells), classes, hyp, options. Raise `Unsupported` there for options it does not have.
    """

    any_size = True  # takes inputs of other batches and grids than its case's, as training at several scales gives it

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device

    @abstractmethod
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        """The total, with gradient, and the items (box, obj, cls, ...), or None where there are none.

        ``p``: (B, A, H, W, 5 + C) a layer; ``targets``: (N, 6) image, class, x, y, w, h. They are the
        subject's own copies, but a loss that writes to them is reported.
        """

    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        """The rows of each layer, or None where the loss does not show them."""
        return None

    def balance(self) -> Sequence[float] | None:
        """The balance table as it is now, or None where the loss does not show it."""
        return None

    def put_through(self, copy: Callable[[Any], Any]) -> None:
        """Replace the loss object by a copy of it (deep copy, pickle). Raises Unsupported where there is none."""
        raise Unsupported("object to copy")

    def rebuild(self, change: Callable[[Any], nn.Module]) -> None:
        """Build the loss anew, from what ``change`` makes of its model. Raises Unsupported where it takes none."""
        raise Unsupported("model to be built from")

    def set_option(self, name: str, value: Any) -> None:
        """Set an attribute of the loss, as a trainer does between calls. Raises Unsupported where it cannot be set."""
        raise Unsupported(name)


class Wrapped(Subject):
    """Another subject, whose loss a derived class calls in its own way."""

    def __init__(self, inner: Subject) -> None:
        super().__init__(inner.case, inner.device)
        self.inner = inner
        self.any_size = inner.any_size

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Rows] | None:
        return self.inner.rows(p, targets)

    @override
    def balance(self) -> Sequence[float] | None:
        return self.inner.balance()


Calling = Callable[[Subject, list[Tensor], Tensor], tuple[Tensor, Any]]


class CalledSo(Wrapped):
    """A subject whose loss is called as a function says, with something before or after it, say."""

    def __init__(self, inner: Subject, calling: Calling) -> None:
        super().__init__(inner)
        self._calling = calling

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return self._calling(self.inner, p, targets)


@dataclass(frozen=True)
class Around:
    """What surrounds a run of a case, beside the device."""

    chance: int = 0  # the seed of what the mirror does by chance; on real devices another run
    autocast: Dtype | None = None  # to this dtype
    deterministic: bool = False  # torch.use_deterministic_algorithms
    targets_on_host: bool = False  # as a data loader hands them over
    watched: bool = False  # note what is made on another device
    compiled: bool = False  # under torch.compile


@dataclass(frozen=True)
class LossUnderTest:
    """Makes a fresh subject for every case."""

    spec: str
    make: Callable[[Case, torch.device], Subject]
    device: torch.device
    family: str = "upstream"  # a key of families.FAMILIES
    around: Around = Around()
    compile: bool = False  # judged by the laws of compilation, and by no others
    limit: float | None = None  # seconds that a case may take, if not the usual
    # What it did with some cases when that was recorded, the smallest first (`--baseline`).
    recorded: Mapping[Case, Expected] = field(default_factory=dict, compare=False)


def with_record(under_test: LossUnderTest, vector: Vector) -> LossUnderTest:
    """The loss, held to what is recorded with a saved case, if anything is."""
    return under_test if vector.expected is None else replace(under_test, recorded={vector.case: vector.expected})
