"""The v5 family: the laws of YOLOv5 losses, and inputs that are made to break them.

To learn the loss, read the modules in this order: test_assign, test_boxes, test_objectness, test_classes,
test_totals, test_gradients, test_symmetry, test_state, test_input. Each begins with what its part does.
"""

from .family import FAMILY

__all__ = ["FAMILY"]
