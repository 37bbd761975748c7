"""The loss under test: how it is loaded and called, and what it did with a case. Nothing is judged here."""
