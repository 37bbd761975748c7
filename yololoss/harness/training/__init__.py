"""Watches a loss in a training run, and saves the steps in which something is wrong. It does not judge them."""
