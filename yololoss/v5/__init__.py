"""The YOLOv5 detection loss. It imports nothing of the harness."""
