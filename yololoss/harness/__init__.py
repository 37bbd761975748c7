"""Tests a loss. It knows families of losses only through `subjects.family`."""
