"""The pack's own socket type, and the inputs that several nodes share: one definition, so that they stay alike."""

from comfy_api.latest import io

AlloSR2 = io.Custom("ALLOSR2")


def vae_input() -> io.Vae.Input:
    """The loader's VAE."""
    return io.Vae.Input("vae", tooltip="The VAE of the AlloSR2 Loader.")


def allosr2_input() -> AlloSR2.Input:
    """The loader's settings."""
    return AlloSR2.Input("allosr2", tooltip="The ALLOSR2 of the AlloSR2 Loader.")


def scale_input(tooltip: str) -> io.Float.Input:
    """Enlargement of each side, 1 to 8."""
    return io.Float.Input("scale", default=4.0, min=1.0, max=8.0, step=0.01, tooltip=tooltip)


def tile_input(tooltip: str) -> io.Int.Input:
    """Side of a tile in pixels of the restored picture; 0 leaves it to the node."""
    return io.Int.Input("tile", default=0, min=0, max=8192, step=16, tooltip=tooltip)
