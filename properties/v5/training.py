"""What a recorder of training steps reads of a v5 loss and of its calls, and the case that it makes of a step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.cases.case import DTYPES
from yololoss.harness.subjects.subject import UnknownForm
from yololoss.v5.hyp import Hyperparameters
from yololoss.v5.loss import unwrap

from ..shared.steps import Reader, array, flat_cells, kept_images, renumbered
from .case import Case, Options
from .packed import pack
from .recorded import CallResult, Expected

NAMES = {dtype: name for name, dtype in DTYPES.items()}
BESIDE = np.array(((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))  # the cells that rows may be in: column, row
SPOILT = 1000  # cells of a layer that are kept because a logit is not finite
FINEST = 8.0  # pixels per cell of the finest layer, if nothing says so


class Step(NamedTuple):
    """One call of a loss."""

    predictions: list[Tensor]  # (B, A, H, W, 5 + C) for each layer, detached
    targets: Tensor  # (N, 6)
    balance: tuple[float, ...] | None  # before the call, if the loss moves it
    total: Tensor | None = None  # None: the loss raised
    items: Any = None

    @property
    def numbers(self) -> list[float]:
        """The total and the items, as far as the loss gives them."""
        items = self.items.tolist() if isinstance(self.items, Tensor) else self.items or []
        return [] if self.total is None else [float(each) for each in (self.total, *items)]


class Training(Reader):
    """Reads a loss, or the model that it was built from, and its calls."""

    items = ("box", "obj", "cls")

    def __init__(self, loss: Any, model: nn.Module | None) -> None:
        super().__init__(loss, model, None if model is None else unwrap(model))
        self._hyp, self._anchors = self._found("hyp"), self._found("anchors")

    @staticmethod
    @override
    def bounds(batch: int, classes: int) -> Tensor:
        return bounds(batch, classes)

    @override
    def size(self, step: Step) -> tuple[int, int]:
        return step.predictions[0].shape[0], step.predictions[0].shape[-1] - 5

    def predictions(self, given: tuple[Any, ...]) -> list[Tensor]:
        """The predictions among the arguments of a call, for each layer one tensor (B, A, H, W, 5 + C)."""
        lists = (each for each in given if isinstance(each, list | tuple) and each)
        layered = (each for each in lists if all(isinstance(x, Tensor) and x.ndim == 5 for x in each))
        found = next(layered, None)
        if found is None:
            raise UnknownForm("expected a list of predictions (B, A, H, W, 5 + C) among the arguments of the loss")
        return list(found)

    def state(self) -> tuple[float, ...] | None:
        """What the loss keeps from call to call: its balance, if it moves that itself."""
        loss = self._places[0]
        balance = getattr(loss, "balance", None) if getattr(loss, "autobalance", False) else None
        known = isinstance(balance, list | tuple) and all(isinstance(each, int | float) for each in balance)
        return tuple(map(float, balance or ())) if known else None

    def step(self, given: tuple[Any, ...], state: tuple[float, ...] | None, *result: Any) -> Step:
        """A call of the loss with these arguments, and its result: total and items; none if it raised.

        ``state`` is that before the call. Raises UnknownForm if the arguments are others than a v5 loss takes.
        """
        predictions = [each.detach() for each in self.predictions(given)]
        targets = next((each for each in given if isinstance(each, Tensor) and each.shape[1:] == (6,)), None)
        if targets is None:
            raise UnknownForm("expected targets (N, 6) among the arguments of the loss")
        return Step(predictions, targets.detach(), state, *result)

    def expected(self, step: Step) -> Expected | None:
        """What the loss returned, to be compared when it runs again; None if it raised, or has other items."""
        if len(step.numbers) < 4:
            return None
        total, box, obj, cls = step.numbers[:4]
        call = CallResult(
            total=total,
            box=box,
            obj=obj,
            cls=cls,
            total_shape=_shape(step.total),
            items_shape=_shape(step.items),
            total_dtype=_dtype(step.total),
            items_dtype=_dtype(step.items),
        )
        return Expected(calls=(call,))

    def case(self, step: Step) -> tuple[Case, list[int], str]:
        """The step as a case, its images by their number in the batch, and in words what was left out."""
        layers = [array(each) for each in step.predictions]
        rows = step.targets.double().cpu().numpy()
        cells = [np.concatenate((_near(rows, values), _spoilt(values))) for values in layers]
        images = _kept(rows, layers, cells)
        batch, sizes = len(layers[0]), [values[0, ..., 0].size for values in layers]
        fields = {
            "batch": len(images),
            "classes": layers[0].shape[-1] - 5,
            "grids": [values.shape[2:4] for values in layers],
            "strides": self._strides(layers),
            "anchors": torch.as_tensor(self._anchors).tolist(),
            "targets": renumbered(rows, images, batch).tolist(),
            "dtype": NAMES[step.predictions[0].dtype],
            "targets_dtype": NAMES[step.targets.dtype],
            "hyp": self._hyperparameters(),
            "options": self._options(step),
            "predictions": pack([values[images] for values in layers], flat_cells(sizes, cells, images)),
        }
        case = Case.model_validate(fields, strict=False)  # lists for tuples
        left_out = "" if len(images) == batch else f"; kept: images {', '.join(map(str, images))} of {batch}"
        return case, images.tolist(), left_out

    def _strides(self, layers: list[NDArray[Any]]) -> list[float]:
        """Pixels per cell of each layer: those of the loss or the head, else by the ratios of the grids."""
        places = (getattr(place, "stride", None) for place in self._places)
        known = next((torch.as_tensor(each).tolist() for each in places if each is not None), None)
        if isinstance(known, list) and len(known) == len(layers):
            return known
        return [FINEST * layers[0].shape[2] / values.shape[2] for values in layers]

    def _hyperparameters(self) -> Hyperparameters:
        known = dict(self._hyp) if isinstance(self._hyp, Mapping) else vars(self._hyp)
        known = {"box": known.get("giou", Hyperparameters().box), **known}  # its name before version 3.1
        return Hyperparameters(**{name: float(known[name]) for name in Hyperparameters.model_fields if name in known})

    def _options(self, step: Step) -> Options:
        loss, found = self._places[0], [getattr(place, "gr", None) for place in self._places]
        return Options(
            gr=float(next((gr for gr in found if gr is not None), 1.0)),
            autobalance=bool(getattr(loss, "autobalance", False)),
            sort_obj_iou=bool(getattr(loss, "sort_obj_iou", False)),
            balance=step.balance,
        )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", torch.float32)).removeprefix("torch.")


def bounds(batch: int, classes: int) -> Tensor:
    """(2, 6): the least and the largest valid value of each number of a target. A NaN is within no bounds."""
    numbers = torch.finfo(torch.float32)
    low = [0, 0, numbers.min, numbers.min, numbers.tiny, numbers.tiny]
    return torch.tensor([low, [batch - 1, classes - 1, *[numbers.max] * 4]])


def _near(rows: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """(n, 2): image, and place in it, of the cells that rows of these targets may be in, whatever their anchor."""
    batch, anchors, height, width, _ = values.shape
    good = np.isfinite(rows[:, :4]).all(axis=1) & (rows[:, 0] >= 0) & (rows[:, 0] < batch)
    image, centre = rows[good, 0].astype(int), rows[good, 2:4].clip(-1, 2) * (width, height)
    ends = (width - 1, height - 1)
    column, row = np.moveaxis((np.floor(centre)[:, None].astype(int) + BESIDE).clip(0, ends), 2, 0)[..., None]
    place = (np.arange(anchors) * height + row) * width + column
    return np.stack((np.broadcast_to(image[:, None, None], place.shape), place), axis=-1).reshape(-1, 2)


def _spoilt(values: NDArray[Any]) -> NDArray[Any]:
    """(n, 2): image, and place in it, of cells with a logit that is not finite."""
    found = np.argwhere(~np.isfinite(values).reshape(len(values), -1, values.shape[-1]).all(axis=2))
    return found[:SPOILT]


def _kept(rows: NDArray[Any], layers: list[NDArray[Any]], cells: list[NDArray[Any]]) -> NDArray[Any]:
    """The images that are kept, in ascending order."""
    batch, channels = len(layers[0]), layers[0].shape[-1]
    costs = np.full(batch, sum(values[0, ..., 0].size for values in layers))
    for found in cells:
        costs += channels * np.bincount(found[:, 0], minlength=batch)
    spoilt = np.any([~np.isfinite(values).reshape(batch, -1).all(axis=1) for values in layers], axis=0)
    return kept_images(costs, spoilt, rows, bounds(batch, channels - 5))
