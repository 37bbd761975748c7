"""Laws of all families: what a function in a training loop must be, whatever it computes."""
