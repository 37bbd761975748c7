"""Devices to run a loss on, real and simulated. Nothing here knows of losses or laws."""
