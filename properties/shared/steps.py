"""What is asked of a step of a training run, whatever its family: its targets, what is kept, what usually is wrong."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.errors import UsageError
from yololoss.harness.subjects.family import SavedSteps

MOST = 2**20  # numbers that are kept of a step: 4 MiB, as a file at most 6
COLUMNS = ("image", "class", "x", "y", "width", "height")  # of a target
SHOWN = 3  # invalid targets that are named
# Why what a loss is given usually is wrong, the most probable first, each with what to look at.
OF_LOGITS = (
    "A learning rate that is too large, or no warm-up: does the total grow in the steps before?",
    "An overflow of float16 inside the network: does it happen without autocast?",
    "Images that are not finite: is there a division by a deviation of 0 in their normalisation?",
    "A gradient of an earlier step that was not finite: is a step before this one saved?",
)
OF_TARGETS = (
    "The label file of that image: is a box empty, or a class missing in the list of classes?",
    "Augmentation: are boxes that are cut off, or too small, taken away after the crop?",
)


def not_finite(logits: Iterable[Tensor]) -> int:
    """How many of these logits are not finite."""
    return sum(int((~torch.isfinite(values)).sum()) for values in logits)


def array(logits: Tensor) -> NDArray[Any]:
    """Logits as an array, of float32 or float64."""
    return (logits if logits.dtype == torch.float64 else logits.float()).cpu().numpy()


def invalid_targets(targets: Sequence[Sequence[float]], bounds: Tensor) -> list[str]:
    """What is invalid of these targets, (N, 6): each number in a few words. ``bounds``: (2, 6), least and largest."""
    low, high = bounds.tolist()
    return [
        f"{called} has {name} {value:g}"
        for called, row in zip(called_targets(targets), targets, strict=True)
        for name, value, least, most in zip(COLUMNS, row, low, high, strict=True)
        if not least <= value <= most
    ]


def called_targets(targets: Sequence[Sequence[float]]) -> list[str]:
    """What each target is called: by its number, its image, and which box of that image it is."""
    boxes: Counter[float] = Counter()
    called = []
    for n, (image, *_) in enumerate(targets):
        boxes[image] += 1
        called.append(f"target {n} (image {image:g}, box {boxes[image]})")
    return called


def some(told: list[str]) -> str:
    """The first of these, and how many more there are."""
    more = f", and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


class Reader(ABC):
    """What a recorder reads of a loss and its calls, where targets are rows of image, class, x, y, w, h."""

    items: ClassVar[tuple[str, ...]]  # what a loss returns besides its total, as messages call it

    def __init__(self, loss: Any, *models: nn.Module | None) -> None:
        """Settings are looked for in the loss first, then in the models, and in the head of the last one."""
        layers = getattr(models[-1], "model", None)
        head = layers[-1] if isinstance(layers, nn.Sequential | nn.ModuleList | list) and len(layers) else None
        self._places = [place for place in (loss, *models, head) if place is not None]
        self._bounds: dict[tuple[torch.device, int, int], Tensor] = {}

    @staticmethod
    @abstractmethod
    def bounds(batch: int, classes: int) -> Tensor:
        """(2, 6): the least and the largest valid value of each number of a target."""

    @abstractmethod
    def size(self, step: Any) -> tuple[int, int]:
        """The images and the classes of a step."""

    def parts(self, step: Any) -> dict[str, Any]:
        """What is saved of a step, each in a file of its own, by a name: "" if it is all of it."""
        return {"": step}

    def _found(self, *names: str) -> Any:
        """What the loss, or the model, has under one of the names. Raises UsageError if neither has it."""
        values = (getattr(place, name, None) for name in names for place in self._places)
        found = next((value for value in values if value is not None), None)
        if found is None:
            what, wanted = type(self._places[0]).__name__, " or ".join(names)
            raise UsageError(f"{what}: neither it nor a model has {wanted}: give the model, as in watch(loss, model)")
        return found

    def invalid_targets(self, step: Any) -> Any:
        """Whether the specification calls a target invalid, () bool, on the targets' device."""
        size = self.size(step)
        key = (step.targets.device, *size)
        if key not in self._bounds:
            self._bounds[key] = self.bounds(*size).to(step.targets.device)
        low, high = self._bounds[key]
        return ~((step.targets >= low) & (step.targets <= high)).all()

    def wrong(self, step: Any, kind: str) -> str:
        """What is wrong in a step of that kind of trouble, in one line."""
        if kind == "target":
            return some(invalid_targets(step.targets.tolist(), self.bounds(*self.size(step))))
        if kind == "gradient":
            return "a gradient of a prediction is not finite"
        spoilt = not_finite(step.predictions)
        given = f"; the loss was given {spoilt} logits that are not finite" if spoilt else ""
        names = zip(("total", *self.items), step.numbers, strict=False)
        return ", ".join(f"{name} {value:g}" for name, value in names) + given


class Steps(SavedSteps):
    """What is asked of a saved step, where targets are rows of image, class, x, y, w, h."""

    def __init__(
        self,
        bounds: Callable[[int, int], Tensor],
        causes: Mapping[str, tuple[str, ...]],
        less: Callable[[Any], Iterator[Any]],
    ) -> None:
        """``bounds``: of the numbers of a target, by batch and classes. ``causes``: why a law usually breaks in a
        training run, the most probable first. ``less``: the case with less in it.
        """
        self._bounds, self._causes, self._less = bounds, causes, less

    @override
    def smaller(self, case: Any) -> Iterator[Any]:
        return self._less(case)

    @override
    def kept_of(self, case: Any, step: Any) -> str:
        kept = {row[1:] for row in case.targets}
        called = zip(called_targets(step.targets), step.targets, strict=True)
        return some([name for name, row in called if row[1:] in kept])

    @override
    def invalid_input(self, case: Any) -> list[str]:
        spoilt = not_finite(case.logits)
        told = [f"{spoilt} logits are not finite"] if spoilt else []
        return [*told, *invalid_targets(case.targets, self._bounds(case.batch, case.classes))]

    @override
    def usual_causes(self, law: str, case: Any) -> Sequence[str]:
        """If the loss was given what is not finite, why that usually is so."""
        if not_finite(case.logits):
            return OF_LOGITS
        wrong = invalid_targets(case.targets, self._bounds(case.batch, case.classes))
        return (*(OF_TARGETS if wrong else ()), *self._causes.get(law, ()))


def kept_images(costs: NDArray[Any], spoilt: NDArray[Any], rows: NDArray[Any], bounds: Tensor) -> NDArray[Any]:
    """The images that are kept, in ascending order: as many as `MOST` allows, those with trouble first.

    ``costs``: the numbers that each would take. ``spoilt``: whether it has a logit that is not finite.
    """
    batch = np.arange(len(costs))
    low, high = bounds.double().numpy()
    wrong = rows[~((rows >= low) & (rows <= high)).all(axis=1), 0]
    order = np.lexsort((batch, ~(spoilt | np.isin(batch, wrong))))
    count = max(int(np.searchsorted(np.cumsum(costs[order]), MOST, side="right")), 1)
    return np.sort(order[:count])


def renumbered(rows: NDArray[Any], images: NDArray[Any], batch: int) -> NDArray[Any]:
    """The targets of these images, numbered anew. One of no image stays one of none."""
    image = rows[:, 0]
    new = np.where(image < batch, np.searchsorted(images, image), image - batch + len(images))
    other = np.where((image >= 0) & (image < batch), new, np.where(image < 0, image, new))
    return np.column_stack((other, rows[:, 1:]))[np.isin(image, images) | ~((image >= 0) & (image < batch))]


def flat_cells(sizes: Sequence[int], cells: Sequence[NDArray[Any]], images: NDArray[Any]) -> list[NDArray[Any]]:
    """Flat indices of the cells of these images, which are numbered anew.

    ``sizes``: the cells that an image has in each layer. ``cells``: (n, 2) for each layer, image and place in it.
    """
    own = (found[np.isin(found[:, 0], images)] for found in cells)
    return [np.searchsorted(images, of[:, 0]) * size + of[:, 1] for of, size in zip(own, sizes, strict=True)]


def parts(count: int, least: int = 1) -> Iterator[list[int]]:
    """Parts of so many things: first halves and what is left without them, then quarters, at last single ones."""
    size = count
    while size > 1:
        size = (size + 1) // 2
        starts = range(0, count, size)
        yield from (list(range(start, min(start + size, count))) for start in starts)
        yield from ([n for n in range(count) if not start <= n < start + size] for start in starts if size < count / 2)
    if count == 1 and least == 0:
        yield []


def with_images(case: Any, images: Sequence[int]) -> dict[str, Any]:
    """The fields of a case that has only these of its images, but for the predictions."""
    new = {float(old): float(n) for n, old in enumerate(images)}
    targets = tuple((new[row[0]], *row[1:]) for row in case.targets if row[0] in new)
    return {"batch": len(images), "targets": targets}
