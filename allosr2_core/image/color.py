"""Colour matching: give a restored picture the colours of the picture it was made from.

Done once, on the whole stitched result, never tile by tile. All in float32; pictures are sRGB (B, H, W, 3) in 0..1.
"""

import torch
from torch.nn import functional

from ..errors import AlloSR2Error, shown
from ..options import COLOR_METHODS
from .geometry import resize_bicubic

WAVELET_LEVELS = 5  # the low band then spans about 2^6 px
_EPSILON = 1e-6
_WHITE_D65 = (0.95047, 1.0, 1.08883)  # CIE 1931 2 degree observer
_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_LAB_DELTA = 6.0 / 29.0


def match_color(image_BHWC: torch.Tensor, reference_BHWC: torch.Tensor, method: str) -> torch.Tensor:
    """Colours of the reference on the structure of the image; float32, clamped to 0..1.

    none:    the image, clamped.
    wavelet: the image's details on the reference's low frequencies (a-trous, 5 levels). Follows local colour.
    adain:   mean and standard deviation of each RGB channel of the reference.
    lab:     mean and standard deviation of L*, a*, b* of the reference.
    The reference has the same batch size or 1; at another size it is resized (bicubic).
    Raises AlloSR2Error for an unknown method or other shapes.
    """
    check_method(method)
    for name, tensor in (("image", image_BHWC), ("reference", reference_BHWC)):
        if tensor.ndim != 4 or tensor.shape[-1] != 3 or tensor.numel() == 0:
            raise AlloSR2Error(f"expected the {name} as (B, H, W, 3), got {tuple(tensor.shape)}")
    batch, height, width, _ = image_BHWC.shape
    if reference_BHWC.shape[0] not in (1, batch):
        raise AlloSR2Error(f"expected 1 or {batch} references, got {reference_BHWC.shape[0]}")
    if method == "none":
        return image_BHWC.float().clamp(0.0, 1.0)
    result_BHWC = torch.empty_like(image_BHWC, dtype=torch.float32)
    for i in range(batch):  # item by item: the temporaries of one picture only
        reference_1HWC = reference_BHWC[i : i + 1] if reference_BHWC.shape[0] == batch else reference_BHWC
        reference_1HWC = resize_bicubic(reference_1HWC.to(image_BHWC.device), height, width)
        result_BHWC[i] = _match(image_BHWC[i : i + 1].float(), reference_1HWC, method)[0]
    return result_BHWC.clamp_(0.0, 1.0)


def check_method(method: str) -> None:
    """AlloSR2Error for an unknown method."""
    if not isinstance(method, str) or method not in COLOR_METHODS:
        raise AlloSR2Error(f"expected a colour method of {', '.join(COLOR_METHODS)}, got {shown(method)}")


def _match(image_BHWC: torch.Tensor, reference_BHWC: torch.Tensor, method: str) -> torch.Tensor:
    if method == "wavelet":
        return image_BHWC - low_frequencies(image_BHWC) + low_frequencies(reference_BHWC)
    if method == "adain":
        return transfer_moments(image_BHWC, reference_BHWC)
    return rgb_from_lab(transfer_moments(lab_from_rgb(image_BHWC), lab_from_rgb(reference_BHWC)))


def low_frequencies(image_BHWC: torch.Tensor, levels: int = WAVELET_LEVELS) -> torch.Tensor:
    """Low band of the a-trous transform: [1 2 1]/4 with spacing 1, 2, 4 ... 2^(levels-1), edge pixels replicated."""
    band_BCHW = image_BHWC.movedim(-1, 1)
    for level in range(levels):
        step = 2**level
        padded = functional.pad(band_BCHW, (0, 0, step, step), mode="replicate")
        band_BCHW = 0.5 * band_BCHW + 0.25 * (padded[:, :, : -2 * step] + padded[:, :, 2 * step :])
        padded = functional.pad(band_BCHW, (step, step, 0, 0), mode="replicate")
        band_BCHW = 0.5 * band_BCHW + 0.25 * (padded[..., : -2 * step] + padded[..., 2 * step :])
    return band_BCHW.movedim(1, -1)


def transfer_moments(image_BHWC: torch.Tensor, reference_BHWC: torch.Tensor) -> torch.Tensor:
    """Each channel with the mean and (population) standard deviation of the reference's; a flat channel stays flat."""
    mean = image_BHWC.mean(dim=(1, 2), keepdim=True)
    std = image_BHWC.std(dim=(1, 2), correction=0, keepdim=True)
    reference_mean = reference_BHWC.mean(dim=(1, 2), keepdim=True)
    reference_std = reference_BHWC.std(dim=(1, 2), correction=0, keepdim=True)
    gain = torch.where(std > _EPSILON, reference_std / std.clamp_min(_EPSILON), torch.zeros_like(std))
    return (image_BHWC - mean) * gain + reference_mean


def lab_from_rgb(rgb_BHWC: torch.Tensor) -> torch.Tensor:
    """sRGB 0..1 -> CIELAB (D65): L* 0..100, a* and b* about -128..127. IEC 61966-2-1 and CIE 15."""
    linear = torch.where(
        rgb_BHWC <= 0.04045, rgb_BHWC / 12.92, ((rgb_BHWC.clamp_min(0.0) + 0.055) / 1.055).clamp_min(0.0).pow(2.4)
    )
    xyz = linear @ linear.new_tensor(_XYZ_FROM_RGB).T / linear.new_tensor(_WHITE_D65)
    root = torch.where(xyz > _LAB_DELTA**3, xyz.clamp_min(1e-12).pow(1.0 / 3.0), xyz / (3 * _LAB_DELTA**2) + 4.0 / 29.0)
    x, y, z = root.unbind(-1)
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), dim=-1)


def rgb_from_lab(lab_BHWC: torch.Tensor) -> torch.Tensor:
    """CIELAB (D65) -> sRGB; colours outside sRGB come out below 0 or above 1."""
    lightness, a, b = lab_BHWC.unbind(-1)
    y = (lightness + 16.0) / 116.0
    root = torch.stack((y + a / 500.0, y, y - b / 200.0), dim=-1)
    xyz = torch.where(root > _LAB_DELTA, root.pow(3), 3 * _LAB_DELTA**2 * (root - 4.0 / 29.0))
    xyz = xyz * lab_BHWC.new_tensor(_WHITE_D65)
    to_rgb = torch.linalg.inv(torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64)).to(xyz)
    linear = xyz @ to_rgb.T
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-12).pow(1.0 / 2.4) - 0.055)
