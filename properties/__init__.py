"""What must hold of a YOLOv5-style loss, and inputs made to break it."""
