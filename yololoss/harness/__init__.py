"""Puts a loss to the test. It knows families of losses only by `subjects.family`."""
