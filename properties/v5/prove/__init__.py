"""Proofs by exhaustion of v5 losses: every float32 centre on grids of some widths, every 16-bit logit."""
