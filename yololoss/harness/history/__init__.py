"""The history of a loss: commits, their files, a verdict on each, since when each fault is there. Prints nothing."""
