"""What must hold of a detection loss: a package for each family of losses. The harness imports them by name only."""
