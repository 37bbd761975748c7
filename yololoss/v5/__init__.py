"""The YOLOv5 detection loss. It imports nothing from the harness."""
