"""Proofs by exhaustion for v5 losses: every float32 centre on grids of some widths, and every 16-bit logit."""
