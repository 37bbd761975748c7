"""Proof by exhaustion: every value there is, where there are few enough to try them all."""
