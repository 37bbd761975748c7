"""Fuzz sessions: hours of random cases, in processes that may die of them; what was found is on disk."""
