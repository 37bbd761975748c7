"""Proof by exhaustion: every value is tried, in parts, with a certificate. What the values are, a family says."""
