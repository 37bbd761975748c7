"""Values that never change: a package for each family of losses."""
