"""The training stages by name, in the order they build on each other; apart, so that `--help` needs no torch."""

STAGES = {
    "autoencoder": "autoencoder.AutoencoderStage",
    "prior": "prior.PriorStage",
    "allosr2": "sr.AlloSR2Stage",
    "head": "snr_head.HeadStage",
}
"""Name of a stage, also of its folder in a run -> its module here, and its class."""
