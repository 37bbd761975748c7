"""What a recorder of training steps reads of a task-aligned loss and of its calls, and the case it makes of a step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from yololoss.harness.cases.case import DTYPES
from yololoss.harness.subjects.subject import UnknownForm

from ..shared.steps import Reader, array, flat_cells, kept_images, renumbered
from .case import SIDES, Case, Gains, Head
from .forms import HEADS, in_order
from .packed import pack
from .recorded import CallResult, Expected

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ROWS = ("batch_idx", "cls", "bboxes")
LEVEL = 4  # dimensions of a level: (B, 4 R + C, H, W)
SPOILT = 1000  # anchors of a level that are kept because a logit is not finite
MARGIN = 1.0  # pixels around a target, small ones enlarged, in which sides are kept


class Step(NamedTuple):
    """One call of a loss, or what one of its two heads was given in it."""

    # the levels (B, 4 R + C, H, W), or boxes (B, 4 R, A) and scores (B, C, A); detached; first those of the first head
    predictions: list[Tensor]
    grids: tuple[tuple[int, int], ...]
    targets: Tensor  # (T, 6)
    total: Tensor | None = None  # None: the loss raised
    items: Any = None  # a tensor (3,), None if there are none
    heads: tuple[Head, ...] = ()  # none if the loss has only one
    of_first: int = 0  # how many tensors of predictions are the first head's

    @property
    def numbers(self) -> list[float]:
        """The total and the items, as far as the loss gives them."""
        items = [] if self.items is None else torch.as_tensor(self.items).flatten().tolist()
        return [] if self.total is None else [float(self.total.sum()), *items]


class Training(Reader):
    """Reads a loss, or the model that it was built from, and its calls."""

    items = ("box", "cls", "third")

    def __init__(self, loss: Any, model: nn.Module | None) -> None:
        super().__init__(loss, *(getattr(loss, name, None) for name in HEADS), model)
        self._stride = torch.as_tensor(self._found("stride"))
        self._gains = self._found("hyp", "args")
        self._bins, self._classes = int(self._found("reg_max")), int(self._found("nc"))

    @staticmethod
    @override
    def bounds(batch: int, classes: int) -> Tensor:
        return bounds(batch, classes)

    @override
    def size(self, step: Step) -> tuple[int, int]:
        return len(step.predictions[0]), self._classes

    def predictions(self, given: tuple[Any, ...]) -> list[Tensor]:
        """The tensors of predictions among the arguments of a call, of both heads if there are two."""
        return [each for head in _read(given)[0] for each in head]

    def state(self) -> None:
        """What the loss keeps from call to call: nothing."""

    def step(self, given: tuple[Any, ...], state: None, *result: Any) -> Step:
        """A call of the loss with these arguments, and its result: total and items; none if it raised.

        Raises UnknownForm if the arguments are others than a task-aligned loss takes.
        """
        of_heads, grids = _read(given)
        batch = next((each for each in given if isinstance(each, Mapping) and ROWS[0] in each), None)
        if batch is None:
            raise UnknownForm("expected a batch with batch_idx, cls and bboxes among the arguments of the loss")
        columns = (batch[name].detach().reshape(len(batch["bboxes"]), -1) for name in ROWS)
        dtype, device = batch["bboxes"].dtype, batch["bboxes"].device
        targets = torch.cat([column.to(device, dtype) for column in columns], dim=1)
        total, items = (*result, None, None)[:2]
        items = in_order(items) if isinstance(items, Mapping) else items
        return Step(
            [each.detach() for head in of_heads for each in head],
            grids,
            targets,
            total,
            items,
            self._heads() if len(of_heads) > 1 else (),
            len(of_heads[0]),
        )

    def _heads(self) -> tuple[Head, ...]:
        """The two heads of the loss, as they are now."""
        loss = self._places[0]
        epochs = getattr(loss, "epochs", getattr(self._gains, "epochs", Head().epochs))
        return tuple(Head(name=name, updates=getattr(loss, "updates", 0), epochs=epochs) for name in HEADS)  # type: ignore[arg-type]  # those two

    @override
    def parts(self, step: Step) -> dict[str, Step]:
        if not step.heads:
            return super().parts(step)
        p, split = step.predictions, step.of_first
        each = zip((p[:split], p[split:]), step.heads, strict=True)
        # the total is that of both
        return {head.name: step._replace(predictions=own, heads=(head,), total=None, items=None) for own, head in each}

    def expected(self, step: Step) -> Expected | None:
        """What the loss returned, to be compared when it runs again; None if it raised."""
        if step.total is None:
            return None
        total, *items = step.numbers
        shape = tuple(step.total.shape)
        return Expected(calls=(CallResult(total=total, items=tuple(items) or None, total_shape=shape),))

    def case(self, step: Step) -> tuple[Case, list[int], str]:
        """The step as a case, its images by their number in the batch, and in words what was left out."""
        levels = self._levels(step)
        rows = step.targets.double().cpu().numpy()
        near = self._near(rows, levels)
        cells = [np.concatenate((mine, _spoilt(of))) for mine, of in zip(near, levels, strict=True)]
        batch, sizes = len(levels[0]), [values[0, 0].size for values in levels]
        images = self._kept(rows, levels, cells)
        flat = flat_cells(sizes, cells, images)
        settings = getattr(self._places[0], "assigner", None)
        weights = next((w for place in self._places if (w := getattr(place, "class_weights", None)) is not None), None)
        fields = {
            "batch": len(images),
            "classes": self._classes,
            "reg_max": self._bins,
            "grids": step.grids,
            "strides": self._stride.tolist(),
            "targets": renumbered(rows, images, batch).tolist(),
            "dtype": NAMES[step.predictions[0].dtype],
            "targets_dtype": NAMES[step.targets.dtype],
            "form": "levels" if step.predictions[0].ndim == LEVEL else "mapping",
            "head": step.heads[0] if step.heads else None,
            "topk": getattr(settings, "topk", None),
            "topk2": getattr(settings, "topk2", None),
            "gains": Gains(**{name: float(getattr(self._gains, name)) for name in Gains.model_fields}),
            "class_weights": None if weights is None else torch.as_tensor(weights).flatten().tolist(),
            "predictions": pack([values[images] for values in levels], flat, self._classes),
        }
        case = Case.model_validate(fields, strict=False)  # lists for tuples
        left_out = "" if len(images) == batch else f"; kept: images {', '.join(map(str, images))} of {batch}"
        return case, images.tolist(), left_out

    def _levels(self, step: Step) -> list[NDArray[Any]]:
        """The levels (B, 4 R + C, H, W), whatever form the predictions had."""
        if step.predictions[0].ndim == LEVEL:
            return [array(each) for each in step.predictions]
        joined = torch.cat(step.predictions, dim=1)
        parts = joined.split_with_sizes([rows * columns for rows, columns in step.grids], dim=2)
        sizes = ((*part.shape[:2], *grid) for part, grid in zip(parts, step.grids, strict=True))
        return [array(part.reshape(size)) for part, size in zip(parts, sizes, strict=True)]

    def _near(self, rows: NDArray[Any], levels: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """(n, 2) for each level: image, and place in it, of the anchors that a target may have."""
        strides = self._stride.tolist()
        height, width = (n * strides[0] for n in levels[0].shape[2:])
        good = np.isfinite(rows).all(axis=1) & (rows[:, 0] >= 0) & (rows[:, 0] < len(levels[0]))
        image, (x, y, w, h) = rows[good, 0].astype(int), rows[good, 2:].T * ((width,), (height,), (width,), (height,))
        least = max(strides[:2])
        return [
            _inside(image, values, stride, (x, y), np.maximum((w, h), least) / 2 + MARGIN)
            for values, stride in zip(levels, strides, strict=True)
        ]

    def _kept(self, rows: NDArray[Any], levels: list[NDArray[Any]], cells: list[NDArray[Any]]) -> NDArray[Any]:
        """The images that are kept, in ascending order."""
        batch = len(levels[0])
        costs = np.full(batch, self._classes * sum(values[0, 0].size for values in levels))
        for found in cells:
            costs += SIDES * self._bins * np.bincount(found[:, 0], minlength=batch)
        spoilt = np.any([~np.isfinite(values).reshape(batch, -1).all(axis=1) for values in levels], axis=0)
        return kept_images(costs, spoilt, rows, bounds(batch, self._classes))


def bounds(batch: int, classes: int) -> Tensor:
    """(2, 6): the least and the largest valid value of each number of a target. A NaN is within no bounds."""
    numbers = torch.finfo(torch.float32)
    return torch.tensor(
        [[0, 0, 0, 0, numbers.tiny, numbers.tiny], [batch - 1, classes - 1, 1, 1, numbers.max, numbers.max]]
    )


def _read(given: tuple[Any, ...]) -> tuple[list[list[Tensor]], tuple[tuple[int, int], ...]]:
    """The tensors of predictions of each head, and the rows and columns of the levels. Raises UnknownForm."""
    for each in given:
        preds = each[1] if isinstance(each, tuple) and len(each) == 2 and not isinstance(each[1], Tensor) else each
        if isinstance(preds, Mapping) and all(name in preds for name in HEADS):
            (many, grids), (one, _) = (_read((preds[name],)) for name in HEADS)
            return [*many, *one], grids
        if isinstance(preds, Mapping) and "scores" in preds:
            return [[preds["boxes"], preds["scores"]]], tuple((*f.shape[-2:],) for f in preds["feats"])
        if isinstance(preds, list | tuple) and preds and all(isinstance(x, Tensor) and x.ndim == LEVEL for x in preds):
            return [list(preds)], tuple((*x.shape[-2:],) for x in preds)
    raise UnknownForm("expected predictions among the arguments of the loss: levels, or a mapping of boxes and scores")


def _inside(image: NDArray[Any], values: NDArray[Any], stride: float, centre: Any, half: NDArray[Any]) -> NDArray[Any]:
    """(n, 2): image, and place in it, of the anchors of a level inside boxes of these centres and half sides."""
    rows, columns = values.shape[2:]
    across, down = (
        abs((np.arange(count) + 0.5) * stride - middle[:, None]) < reach[:, None]
        for count, middle, reach in zip((columns, rows), centre, half, strict=True)
    )
    row, place = np.nonzero((down[:, :, None] & across[:, None, :]).reshape(len(image), -1))
    return np.column_stack((image[row], place))


def _spoilt(values: NDArray[Any]) -> NDArray[Any]:
    """(n, 2): image, and place in it, of anchors with a logit that is not finite."""
    return np.argwhere(~np.isfinite(values).all(axis=1).reshape(len(values), -1))[:SPOILT]
