"""Proofs by exhaustion."""
