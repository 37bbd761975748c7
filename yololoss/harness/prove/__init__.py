"""Proof by exhaustion: every value is tried, in parts, with a certificate. A family defines the values."""
