"""The laws of detection losses: one package for each family of losses. The harness imports them only by name."""
