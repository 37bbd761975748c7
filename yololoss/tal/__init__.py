"""The task-aligned, anchor-free detection loss of YOLOv8 to 26. It imports the v5 loss, and nothing of the harness."""
