"""The training stages by name, in the order they build on each other; apart, so that `--help` needs no torch."""

STAGES = {
    "autoencoder": "autoencoder.AutoencoderStage",
    "prior": "prior.PriorStage",
    "sr": "sr.SRStage",
    "snr_head": "snr_head.SNRHeadStage",
}
"""Name of a stage, also of its folder in a run -> its module here, and its class."""
