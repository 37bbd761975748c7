"""Laws of all families: what must hold for any function in a training loop, whatever it computes."""
