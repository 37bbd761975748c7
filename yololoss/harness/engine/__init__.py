"""Judges many cases: plans them, runs them in guarded processes, minimises what broke a law. Prints nothing."""
