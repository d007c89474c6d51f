"""The mask of `upscale`: where a picture is restored and where it is only enlarged."""

from collections.abc import Sequence

from torch import Tensor

from ..errors import AlloSR2Error
from ..image.read import load_image, read_header
from .paths import Inputs, check_local

_COLOURFUL = 0.05
"""Largest difference of a grey picture's channels: more than JPEG makes of one."""


def check_mask(path: str, inputs: Inputs) -> None:
    """AlloSR2Error for an address, and for a folder of pictures, which no one mask fits."""
    check_local(path, "--mask")
    if inputs.is_folder:
        raise AlloSR2Error(f"{path}: expected no --mask with a folder, a mask fits one picture: give that one as IN")


def load_mask(path: str, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """[1, H, W] in 0..1 for a picture; black keeps the enlarged original, white takes the restored.

    sizes: height and width of the picture, or of each of its pages. Raises AlloSR2Error, before a pixel is decoded, for
    another size; and for colours or transparency.
    """
    mask = read_header(path)
    for height, width in sizes:
        if (mask.height, mask.width) != (height, width):
            what = "input's size" if len(sizes) == 1 else "size of all pages of the input"
            raise AlloSR2Error(
                f"{path}: expected a mask of the {what}, {width}x{height} px, got {mask.width}x{mask.height}"
            )
    loaded = load_image(path)
    if loaded.alpha_HW is not None and bool(loaded.alpha_HW.min() < 1.0):
        raise AlloSR2Error(f"{path}: expected a grey mask, got one with transparency: fill it with black")
    if float((loaded.rgb_HWC.amax(dim=-1) - loaded.rgb_HWC.amin(dim=-1)).max()) > _COLOURFUL:
        raise AlloSR2Error(f"{path}: expected a grey mask, got colours")
    return loaded.rgb_HWC.mean(dim=-1)[None]
