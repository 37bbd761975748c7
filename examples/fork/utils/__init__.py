"""The loss and what it is made of."""
