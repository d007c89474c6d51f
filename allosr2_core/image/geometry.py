"""Sizes of pictures: targets, resizing, padding, cropping.

Pictures are float32 torch tensors in 0..1 with the channels last (H, W, C or B, H, W, C), which is the convention of
ComfyUI's IMAGE; networks work on BCHW and convert at their edge. Values are sRGB as stored.
"""

from decimal import ROUND_HALF_UP, Decimal

import torch
from torch.nn import functional

from ..errors import AlloSR2Error

MAX_EDGE = 65535  # px, the largest edge JPEG can store
MAX_PIXELS = 16384 * 16384  # px; 3.2 GB as float32 RGB


def split_alpha(image_BHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, H, W, 1 | 3 | 4) -> rgb (B, H, W, 3), alpha (B, H, W) or None. One channel is grey and is repeated."""
    if image_BHWC.ndim != 4 or image_BHWC.shape[-1] not in (1, 3, 4) or image_BHWC.numel() == 0:
        raise AlloSR2Error(f"expected images (B, H, W, 1, 3 or 4), got {tuple(image_BHWC.shape)}")
    if image_BHWC.shape[-1] == 1:
        return image_BHWC.expand(-1, -1, -1, 3), None
    if image_BHWC.shape[-1] == 3:
        return image_BHWC, None
    return image_BHWC[..., :3], image_BHWC[..., 3]


def target_size(height: int, width: int, scale: float | None = None, long_edge: int | None = None) -> tuple[int, int]:
    """Size of the result in px: exactly round(H * scale) x round(W * scale), halves up; or the longer edge given.

    `scale` is taken as written in decimal (45 * 1.7 is 76.5 and gives 77). At least 1 px. Raises AlloSR2Error unless
    exactly one of scale, long_edge is given and positive, or when the result is larger than MAX_EDGE or MAX_PIXELS.
    """
    if height < 1 or width < 1:
        raise AlloSR2Error(f"expected a picture of at least 1x1 px, got {width}x{height}")
    if (scale is None) == (long_edge is None):
        raise AlloSR2Error(f"expected either a scale or a long edge, got scale={scale}, long_edge={long_edge}")
    if scale is not None:
        factor = Decimal(repr(float(scale)))
        if not factor.is_finite() or factor <= 0:
            raise AlloSR2Error(f"expected a scale above 0, got {scale}")
        if factor > MAX_EDGE:
            raise AlloSR2Error(f"expected a scale of at most {MAX_EDGE}, got {scale}")
        size = [max(1, int((edge * factor).quantize(Decimal(1), rounding=ROUND_HALF_UP))) for edge in (height, width)]
    else:
        edge = int(long_edge)  # type: ignore[arg-type]  # not None: checked above
        if edge < 1 or edge != long_edge:
            raise AlloSR2Error(f"expected a long edge in whole px of at least 1, got {long_edge}")
        longest = max(height, width)
        size = [max(1, (2 * side * edge + longest) // (2 * longest)) for side in (height, width)]
    check_size(size[0], size[1], what="the result")
    return size[0], size[1]


def resize_bicubic(image_BHWC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bicubic to height x width px, clamped to 0..1, float32.

    torch's bicubic with align_corners=False; antialiased when either edge shrinks (torch then uses a = -0.5 instead of
    a = -0.75). At the picture's own size the pixels come back as they are.
    """
    if height < 1 or width < 1:
        raise AlloSR2Error(f"expected a size of at least 1x1 px, got {width}x{height}")
    _, old_height, old_width, _ = image_BHWC.shape
    image_BHWC = image_BHWC.float()
    if (height, width) != (old_height, old_width):
        shrinks = height < old_height or width < old_width
        # With channels last torch 2 is slower, and mixes up rows and channels where it shrinks to one column.
        image_BCHW = image_BHWC.movedim(-1, 1).contiguous()
        image_BCHW = functional.interpolate(
            image_BCHW, size=(height, width), mode="bicubic", align_corners=False, antialias=shrinks
        )
        image_BHWC = image_BCHW.movedim(1, -1)
    return image_BHWC.clamp(0.0, 1.0).contiguous()


def pad_to(image_BHWC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Mirror at the bottom and the right until the picture has height x width px.

    Works from 1x1 px: the mirror is repeated as often as needed, a single row or column is replicated. `crop` undoes
    it. Raises AlloSR2Error when the picture is larger.
    """
    for dim, new in ((1, height), (2, width)):
        old = image_BHWC.shape[dim]
        if new < old:
            raise AlloSR2Error(f"expected to pad to at least {old} px, got {new}")
        if new != old:
            image_BHWC = image_BHWC.index_select(dim, reflected(old, new).to(image_BHWC.device))
    return image_BHWC


def padded_length(length: int, multiple: int, minimum: int = 0) -> int:
    """The least multiple of `multiple` that is at least `length` and `minimum`, px."""
    if multiple < 1:
        raise AlloSR2Error(f"expected a multiple of at least 1 px, got {multiple}")
    return -(-max(length, minimum) // multiple) * multiple


def crop(image_BHWC: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The top left height x width px. Raises AlloSR2Error when the picture is smaller."""
    _, old_height, old_width, _ = image_BHWC.shape
    if not (1 <= height <= old_height and 1 <= width <= old_width):
        raise AlloSR2Error(f"expected a crop of 1x1 to {old_width}x{old_height} px, got {width}x{height}")
    return image_BHWC[:, :height, :width]


def reflected(old: int, new: int) -> torch.Tensor:
    """Source index of each of `new` cells when `old` cells are mirrored without repeating the edge cell."""
    if old == 1:
        return torch.zeros(new, dtype=torch.long)
    period = 2 * (old - 1)
    index = torch.arange(new) % period
    return torch.where(index < old, index, period - index)


def check_size(height: int, width: int, what: str) -> None:
    if max(height, width) > MAX_EDGE or height * width > MAX_PIXELS:
        raise AlloSR2Error(
            f"{what}: expected at most {MAX_EDGE} px an edge and {MAX_PIXELS // 1_000_000} megapixels, "
            f"got {width}x{height}"
        )
