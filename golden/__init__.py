"""Values that never change."""
