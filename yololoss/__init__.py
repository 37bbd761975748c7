"""Detection losses, written from their specifications: that of YOLOv5, verified by laws, and that of YOLOv8 to 26.

The names below are loaded on first use. Importing the package, which pytest does for the plugin of
every installed distribution, imports neither torch nor the harness.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from yololoss._suite import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from yololoss.harness.training.watch import watch as watch
    from yololoss.tal.assign import Assigner as Assigner
    from yololoss.tal.ends import E2EDetectLoss as E2EDetectLoss
    from yololoss.tal.ends import E2ELoss as E2ELoss
    from yololoss.tal.explain import Assignment as Assignment
    from yololoss.tal.loss import TaskAlignedLoss as TaskAlignedLoss
    from yololoss.tal.parts import Gains as Gains
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

_HOME = {
    "ComputeLoss": "v5.loss",
    "Hyperparameters": "v5.hyp",
    "LayerAssignment": "v5.assign",
    "assign_layer": "v5.assign",
    "iou": "v5.boxes",
    "giou": "v5.boxes",
    "diou": "v5.boxes",
    "ciou": "v5.boxes",
    "FocalLoss": "v5.criteria",
    "QFocalLoss": "v5.criteria",
    "BCEBlurWithLogitsLoss": "v5.criteria",
    "smooth_bce": "v5.criteria",
    "TaskAlignedLoss": "tal.loss",
    "E2ELoss": "tal.ends",
    "E2EDetectLoss": "tal.ends",
    "Assigner": "tal.assign",
    "Assignment": "tal.explain",
    "Gains": "tal.parts",
    "watch": "harness.training.watch",
}
__all__ = [
    "Assigner",
    "Assignment",
    "BCEBlurWithLogitsLoss",
    "ComputeLoss",
    "E2EDetectLoss",
    "E2ELoss",
    "FocalLoss",
    "Gains",
    "Hyperparameters",
    "LayerAssignment",
    "QFocalLoss",
    "TaskAlignedLoss",
    "assign_layer",
    "ciou",
    "diou",
    "giou",
    "iou",
    "smooth_bce",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'yololoss' has no attribute {name!r}")
    return getattr(import_module(f"yololoss.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
