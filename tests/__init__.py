"""Tests of the bundled loss's own promises, and of the harness."""
