"""Judges many cases: plans them, runs them in guarded processes, minimises failing ones. Prints nothing."""
