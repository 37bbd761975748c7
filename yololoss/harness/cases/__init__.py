"""Inputs of a loss: cases, the domains that they are drawn from, the files that hold them. No loss runs here."""
