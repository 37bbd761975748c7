"""Losses of every call form, written for the tests: conforming ones, and the same with a planted fault."""
