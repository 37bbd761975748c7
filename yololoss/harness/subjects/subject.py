"""A subject: the loss under test, behind one small interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override


class Unsupported(Exception):
    """The loss lacks an option that the case uses, so laws do not apply. The message names the option."""


class UnknownForm(Exception):
    """The loss returned something that the harness cannot read. The message says what it got and what it expected."""


class Subject(ABC):
    """A loss built for one case. Derive from it to adapt a loss whose call form the harness does not know.

    Pass the derived class to ``--loss``. Its constructor builds the loss from the fields of the case (for v5: grids,
    strides, anchors in cells, classes, hyp, options). It raises `Unsupported` for options that the loss lacks.
    """

    family: ClassVar[str] = "v5"  # the name of the family that the loss belongs to
    any_size = True  # the loss takes inputs of other sizes than its case's, as in training at several scales

    def __init__(self, case: Any, device: torch.device) -> None:
        self.case = case
        self.device = device

    @abstractmethod
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        """The total, with gradient, and the items in the order of `Family.items`; None if the loss returns no items.

        For v5, ``p`` has one tensor (B, A, H, W, 5 + C) for each layer, and ``targets`` is (N, 6): image, class, x, y,
        w, h, the last four as shares of the image. They are the subject's own copies, but a loss that writes to them
        is reported.
        """

    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Any] | None:
        """The assignment, one dataclass of arrays for each layer; None if the loss does not show it."""
        return None

    def state(self) -> Sequence[float] | None:
        """The numbers that the loss keeps from call to call (for v5: the balance); None if it shows none."""
        return None

    def put_through(self, copy: Callable[[Any], Any]) -> None:
        """Replace the loss object by ``copy`` of it (deep copy, pickle). Raises Unsupported if there is no object."""
        raise Unsupported("object to copy")

    def rebuild(self, change: Callable[[Any], nn.Module]) -> None:
        """Build the loss again from the model that ``change`` returns. Raises Unsupported if it takes no model."""
        raise Unsupported("model to be built from")

    def set_option(self, name: str, value: Any) -> None:
        """Set an attribute of the loss, as a trainer does between calls. Raises Unsupported if it cannot be set."""
        raise Unsupported(name)


class BuiltSubject(Subject):
    """A subject whose loss is an object that is built from a model. A derived class says how, in ``build``."""

    model: nn.Module  # a loss may have only a weak reference to it
    instance: Any  # the loss

    @abstractmethod
    def build(self) -> None:
        """Make ``instance`` from ``model``."""

    def build_from(self, model: nn.Module) -> None:
        """Build the loss from this model."""
        self.model = model
        self.build()

    @override
    def put_through(self, copy: Callable[[Any], Any]) -> None:
        try:
            self.instance = copy(self.instance)
        except Exception as error:  # attributes that cannot be copied, such as a lambda or a lock, are no fault
            raise Unsupported("object to copy") from error

    @override
    def rebuild(self, change: Callable[[Any], nn.Module]) -> None:
        self.build_from(change(self.model))

    @override
    def set_option(self, name: str, value: Any) -> None:
        if not hasattr(self.instance, name):
            raise Unsupported(name)
        try:
            setattr(self.instance, name, value)
        except (AttributeError, ValueError) as error:  # read-only, or an invalid value
            raise Unsupported(name) from error


class Wrapped(Subject):
    """A subject around another one. A derived class calls the inner loss in its own way."""

    def __init__(self, inner: Subject) -> None:
        super().__init__(inner.case, inner.device)
        self.inner = inner
        self.any_size = inner.any_size

    @override
    def rows(self, p: list[Tensor], targets: Tensor) -> Sequence[Any] | None:
        return self.inner.rows(p, targets)

    @override
    def state(self) -> Sequence[float] | None:
        return self.inner.state()


Make = Callable[[Any, torch.device], Subject]  # takes a case of the family, and a device
Calling = Callable[[Subject, list[Tensor], Tensor], tuple[Tensor, Any]]


class CalledSo(Wrapped):
    """A subject whose loss is called by a function, which may do something before or after the call."""

    def __init__(self, inner: Subject, calling: Calling) -> None:
        super().__init__(inner)
        self._calling = calling

    @override
    def loss(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Any]:
        return self._calling(self.inner, p, targets)
