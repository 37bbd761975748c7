"""Values of the v5 loss that never change."""
