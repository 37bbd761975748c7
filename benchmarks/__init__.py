"""How fast the loss is: ``python -m benchmarks``; see `benchmarks.__main__`."""
