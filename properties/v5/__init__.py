"""The v5 family: what must hold of a YOLOv5 loss, and inputs made to break it.

To learn the loss, read the modules in this order: test_assign, test_boxes, test_objectness, test_classes,
test_totals, test_gradients, test_symmetry, test_state, test_input. Each begins with what its part does.
"""

from .family import FAMILY

__all__ = ["FAMILY"]
