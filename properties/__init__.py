"""The laws that a YOLOv5-style loss must obey, and inputs that are likely to break them.

To learn the loss, read the modules in this order: test_assign, test_boxes, test_objectness, test_classes,
test_totals, test_gradients, test_symmetry, test_state, test_input. Each begins with a description of its part.
"""
