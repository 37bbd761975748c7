"""A fault in each call form, and losses that misbehave."""

import os
import signal
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.subjects import forms
from tests.subjects.plain import PlainLoss
from yololoss import ComputeLoss


class Renamed(ComputeLoss):
    """The bundled loss without one of the attributes that users read."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        del self.cn

    def _class_targets(self, cls: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.where(cls[:, None] == torch.arange(self.nc), self.cp, 1 - self.cp).to(dtype)


class WrongBalance(PlainLoss):
    """The balance of yolov5 4.0."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        self.balance = [4.0, 1.0, 0.3, 0.1, 0.03]


class NoNeighbours(PlainLoss):
    """Own cells only."""

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        """The first row of each pair: own rows come first, and boxes of neighbours have the same sizes."""
        classes, found, indices, anchors = super().build_targets(p, targets)
        for i, box in enumerate(found):
            inside = ((box[:, :2] >= 0) & (box[:, :2] < 1)).all(dim=1)
            classes[i], found[i], anchors[i] = classes[i][inside], box[inside], anchors[i][inside]
            indices[i] = tuple(index[inside] for index in indices[i])
        return classes, found, indices, anchors


class FourResults(PlainLoss):
    """Returns the total and each item by itself, which no form does."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        return total, *items


class NamedTerms(PlainLoss):
    """Returns its items by name."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> Any:
        total, items = super().__call__(p, targets)
        return total, dict(zip(("box", "obj", "cls"), items, strict=True))


class Writes(PlainLoss):
    """Leaves its inputs other than they were."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        result = super().__call__(p, targets)
        targets[:, 2:] *= 2
        return result


class Replaces(PlainLoss):
    """Puts other tensors into the list that it is given."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        p[:] = [x.contiguous().clone() for x in p]
        return super().__call__(p, targets)


class KeepsGradients(PlainLoss):
    """Has the predictions keep their gradients, which nobody asked for."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        for x in p:
            if x.requires_grad:
                x.retain_grad()
        return super().__call__(p, targets)


class Transposed(PlainLoss):
    """Grid row and column swapped in the gather."""

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        """Rows, with gi before gj."""
        classes, found, indices, anchors = super().build_targets(p, targets)
        swapped = []
        for layer, (image, anchor, row, column) in zip(p, indices, strict=True):
            swapped.append((image, anchor, column.clamp(max=layer.shape[2] - 1), row.clamp(max=layer.shape[3] - 1)))
        return classes, found, swapped, anchors


class NotDetached(PlainLoss):
    """Half of each objectness logit's pull goes to the class logits as well."""

    def terms(self, p: list[Tensor], targets: Tensor) -> Tensor:
        """Terms in which objectness depends on class logits."""
        terms = super().terms(p, targets)
        leak = sum((layer[..., 5:].double().sum() for layer in p), start=torch.zeros((), dtype=torch.float64))
        zero = torch.zeros((), dtype=torch.float64)
        return terms + torch.stack((zero, (leak - leak.detach()) * 1e-3 * self.hyp["obj"], zero))


class OlderWrongBalance(forms.OlderLoss):
    inner_class = WrongBalance


class ImageNoNeighbours(forms.ImageLoss):
    inner_class = NoNeighbours


class ModuleWrites(forms.ModuleLoss):
    inner_class = Writes


class BlackBoxTransposed(forms.BlackBox):
    inner_class = Transposed


class DictNotDetached(forms.DictAdapter):
    class head_class(forms.DictHead):  # overrides an attribute
        inner_class = NotDetached


def compute_loss(p: list[Tensor], targets: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """A function that forgets the batch size."""
    total, items = forms.compute_loss(p, targets, model)
    return total / len(p[0]), items


class _Does(PlainLoss):
    """The plain loss, after doing something else."""

    def act(self) -> None:
        """What else it does."""
        raise NotImplementedError

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        self.act()
        return super().__call__(p, targets)


class Raises(_Does):
    def act(self) -> None:
        """Raise."""
        raise IndexError("index 8 is out of bounds for dimension 3 with size 8")


class FloatLimit(PlainLoss):
    """For an older torch: clamps its indices in place, to float limits."""

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list[Any], ...]:
        """Rows of the plain loss, which are in the grid already."""
        found = super().build_targets(p, targets)
        for layer, (_, _, row, column) in zip(p, found[2], strict=True):
            gain = targets.new_tensor(layer.shape).float()
            row.clamp_(0, gain[2] - 1), column.clamp_(min=0, max=gain[3] - 1)
        return found


class Prints(_Does):
    def act(self) -> None:
        """Print."""
        print("loss called")


class Seeds(_Does):
    def act(self) -> None:
        """Seed everything."""
        torch.manual_seed(0)
        np.random.seed(0)


class Exits(_Does):
    def act(self) -> None:
        """End the interpreter the polite way."""
        sys.exit(3)


class ExitsHard(_Does):
    def act(self) -> None:
        """End the interpreter at once, even where every exception is caught."""
        try:
            os._exit(4)
        except Exception:
            print("caught")


class ExitsForGood(_Does):
    def act(self) -> None:
        """Be killed, as by a crash."""
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(_Does):
    def act(self) -> None:
        """Never return."""
        while True:
            pass


class Sets(_Does):
    def act(self) -> None:
        """Change a setting of the process."""
        torch.set_default_dtype(torch.float64)


class Forgets(_Does):
    calls = 0

    def act(self) -> None:
        """Keep count in the class, and let it change the loss."""
        type(self).calls += 1
        self.hyp = {**self.hyp, "obj": self.hyp["obj"] * (1 + type(self).calls)}


class FirstBatch(PlainLoss):
    """Makes room for the first batch that it sees, and keeps it: another raises."""

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Use the room as if it were made for this batch."""
        if not hasattr(self, "room"):
            self.room = torch.zeros(len(p[0]))
        _ = self.room.view(len(p[0]))
        return super().__call__(p, targets)


class NeverMade(PlainLoss):
    """Wants what no model has."""

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        super().__init__(model, autobalance)
        self.scale = model.scale_of_the_loss
