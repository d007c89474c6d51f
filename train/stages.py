"""The training stages by name, in the order they build on each other; apart, so that `--help` needs no torch."""

STAGES = {"autoencoder": "AutoencoderStage", "prior": "PriorStage", "allosr2": "AlloSR2Stage", "head": "HeadStage"}
"""Name of a stage, also of its module and of its folder in a run -> its class."""
