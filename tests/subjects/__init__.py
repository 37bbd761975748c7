"""Losses of every call form, written here: conforming ones, and the same with a fault planted in each."""
