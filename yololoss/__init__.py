"""The YOLOv5 detection loss, written from its specification and verified by laws.

The names below are loaded on first use. Importing the package, which pytest does for the plugin of
every installed distribution, imports neither torch nor the harness.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yololoss.v5.assign import LayerAssignment as LayerAssignment
    from yololoss.v5.assign import assign_layer as assign_layer
    from yololoss.v5.boxes import ciou as ciou
    from yololoss.v5.boxes import diou as diou
    from yololoss.v5.boxes import giou as giou
    from yololoss.v5.boxes import iou as iou
    from yololoss.v5.criteria import BCEBlurWithLogitsLoss as BCEBlurWithLogitsLoss
    from yololoss.v5.criteria import FocalLoss as FocalLoss
    from yololoss.v5.criteria import QFocalLoss as QFocalLoss
    from yololoss.v5.criteria import smooth_bce as smooth_bce
    from yololoss.v5.hyp import Hyperparameters as Hyperparameters
    from yololoss.v5.loss import ComputeLoss as ComputeLoss

__version__ = "0.1.0"

_HOME = {
    "ComputeLoss": "loss",
    "Hyperparameters": "hyp",
    "LayerAssignment": "assign",
    "assign_layer": "assign",
    "iou": "boxes",
    "giou": "boxes",
    "diou": "boxes",
    "ciou": "boxes",
    "FocalLoss": "criteria",
    "QFocalLoss": "criteria",
    "BCEBlurWithLogitsLoss": "criteria",
    "smooth_bce": "criteria",
}
__all__ = [
    "BCEBlurWithLogitsLoss",
    "ComputeLoss",
    "FocalLoss",
    "Hyperparameters",
    "LayerAssignment",
    "QFocalLoss",
    "assign_layer",
    "ciou",
    "diou",
    "giou",
    "iou",
    "smooth_bce",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'yololoss' has no attribute {name!r}")
    return getattr(import_module(f"yololoss.v5.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
