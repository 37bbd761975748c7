"""The registry of laws, and the examination of a loss by one. The laws themselves are in families."""
