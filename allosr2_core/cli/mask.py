"""The mask of `upscale`: where a picture is restored and where it is only enlarged."""

from torch import Tensor

from ..errors import AlloSR2Error
from ..image.read import load_image, read_header
from .paths import Inputs, check_local

_COLOURFUL = 0.05
"""Largest difference of a grey picture's channels: more than JPEG makes of one."""


def load_mask(path: str, inputs: Inputs) -> Tensor:
    """[1, H, W] in 0..1 for the one picture of `inputs`; black keeps the enlarged original, white takes the restored.

    Raises AlloSR2Error for a folder of pictures, another size, colours or transparency.
    """
    check_local(path, "--mask")
    if inputs.is_folder:
        raise AlloSR2Error(f"{path}: expected no --mask with a folder, a mask fits one picture: give that one as IN")
    mask = read_header(path)
    try:
        picture = read_header(inputs.pictures[0])
    except AlloSR2Error:
        picture = mask  # its own failure, reported with it
    if (mask.height, mask.width) != (picture.height, picture.width):
        raise AlloSR2Error(
            f"{path}: expected a mask of the input's size, {picture.width}x{picture.height} px, "
            f"got {mask.width}x{mask.height}"
        )
    loaded = load_image(path)
    if loaded.alpha_HW is not None and bool(loaded.alpha_HW.min() < 1.0):
        raise AlloSR2Error(f"{path}: expected a grey mask, got one with transparency: fill it with black")
    if float((loaded.rgb_HWC.amax(dim=-1) - loaded.rgb_HWC.amin(dim=-1)).max()) > _COLOURFUL:
        raise AlloSR2Error(f"{path}: expected a grey mask, got colours")
    return loaded.rgb_HWC.mean(dim=-1)[None]
