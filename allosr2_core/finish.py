"""From the restored picture to the result: its size, its colours, and what it keeps of the input.

Everything here is done once, over the whole picture, in bands of rows where that saves memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .detail import lost_detail
from .errors import AlloSR2Error
from .image.color import match_color
from .image.geometry import resize_bicubic
from .image.windowed_bicubic import Enlarged, Kernel
from .layout import Layout
from .tiling.exact import Tick, Window

RANGE_SIDE = 9
"""px of the input around a pixel that its result is limited by. Wider than a JPEG block (8): one block is no range."""
BEYOND = 0.5
"""How far a result may leave the range of its surroundings, in parts of that range."""
BAND = 2**18
"""Pixels, in whole rows, that are finished at a time: 3 MiB."""
LEAST_ROWS = 16
"""Of a band."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as image libraries make grey


@dataclass(frozen=True)
class Target:
    """What a restored picture is to become, and what that takes of the input."""

    layout: Layout
    source: Tensor
    """[B, h, w, 3] in [0, 1]: the input as it was enlarged (`Layout.source_height` x `source_width`)."""
    alpha: Tensor | None
    """[B, H, W] in [0, 1], of the input; or None."""
    mask: Tensor | None
    """[1 or B, H, W] in [0, 1] of the input's or the result's size: 1 takes the restored picture, 0 keeps the plain
    enlargement; None takes the restored picture everywhere."""

    def __post_init__(self) -> None:
        if self.mask is not None:
            _check_mask(self.mask, self.source.shape[0], self.layout)

    def item(self, number: int) -> Target:
        """That of one picture of the batch."""
        here = slice(number, number + 1)
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[here]
        return Target(self.layout, self.source[here], None if self.alpha is None else self.alpha[here], mask)

    def window(self) -> Window:
        """The one picture enlarged and padded, as `pipeline.encode` asks for it."""
        layout = self.layout
        size = layout.restored_height, layout.restored_width, layout.padded_height, layout.padded_width
        return Enlarged(self.source, *size).window

    def empty(self, *batch: int) -> Tensor:
        """Memory for a result, [*batch, height, width, 3 or 4]."""
        return torch.empty(*batch, self.layout.height, self.layout.width, 3 if self.alpha is None else 4)


def settle(result_HWC: Tensor, target: Target, color: str, tick: Tick | None = None) -> None:
    """Give the restored picture in result[..., :3] what is the input's: detail, colours, bounds, masked parts, alpha.

    In place, float32, of one picture. Detail, where the result is a reduction of the restored picture: `detail.
    lost_detail`. Colours: `color.match_color`. Bounds: no value leaves the range that the input
    has in the RANGE_SIDE x RANGE_SIDE px around it by more than BEYOND of that range, so that a flat colour stays what
    it is, where a network that saw photographs is a few levels off, most of all at the border. Mask: enlarged
    bilinearly, so that the edge of one of the input's size is one input pixel wide. A grey input (R = G = B) gives the
    luma of its result. Alpha is enlarged bicubically. tick: called once per band of rows.
    """
    layout, source, rgb_HWC = target.layout, target.source, result_HWC[..., :3].clamp_(0.0, 1.0)
    height, width = layout.height, layout.width
    if layout.detail:
        lost = Enlarged(lost_detail(source, rgb_HWC[None]) * layout.detail, height, width, kernel=Kernel.SIGNED)
        for rows in _bands(height, width):
            rgb_HWC[rows] += lost.pixels(rows, slice(0, width))
    if color != "none":
        reference = resize_bicubic(source, height, width)
        rgb_HWC.copy_(match_color(rgb_HWC[None], reference, color)[0])
    low, high = (Enlarged(bound, height, width, kernel=Kernel.LINEAR) for bound in bounds(source))
    reference = mask = None
    if target.mask is not None:
        reference = Enlarged(source, height, width)
        mask = Enlarged(_shrunk(target.mask[..., None], height, width), height, width, kernel=Kernel.LINEAR)
    grey, columns = is_grey(source[0]), slice(0, width)
    for rows in _bands(height, width):
        band = torch.clamp(rgb_HWC[rows], low.pixels(rows, columns), high.pixels(rows, columns))
        if reference is not None and mask is not None:
            band = torch.lerp(reference.pixels(rows, columns), band, mask.pixels(rows, columns))
        rgb_HWC[rows] = luma(band) if grey else band
        if tick is not None:
            tick()
    if target.alpha is not None:
        result_HWC[..., 3] = resize_bicubic(target.alpha[..., None], height, width)[0, ..., 0]


def _bands(height: int, width: int) -> Iterator[slice]:
    rows = max(LEAST_ROWS, BAND // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def bounds(source_BHWC: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value allowed at each pixel of the input, [B, H, W, 3] each."""
    low, high = torch.empty_like(source_BHWC), torch.empty_like(source_BHWC)
    for rows in _bands(*source_BHWC.shape[1:3]):
        low[:, rows] = _local_maximum(source_BHWC, rows, sign=-1.0).neg_()
        high[:, rows] = _local_maximum(source_BHWC, rows)
        slack = BEYOND * (high[:, rows] - low[:, rows])
        low[:, rows].sub_(slack)
        high[:, rows].add_(slack)
    return low.clamp_min_(0.0), high.clamp_max_(1.0)


def is_grey(rgb_HWC: Tensor) -> bool:
    """Whether every pixel has R = G = B."""
    red, green, blue = rgb_HWC.unbind(-1)
    return torch.equal(red, green) and torch.equal(green, blue)


def luma(rgb: Tensor) -> Tensor:
    """The luma of a picture [..., 3], in all its channels."""
    return (rgb @ rgb.new_tensor(_LUMA)).clamp(0.0, 1.0)[..., None].expand(*rgb.shape[:-1], 3)


def _local_maximum(image_BHWC: Tensor, rows: slice, sign: float = 1.0) -> Tensor:
    """Of sign times RANGE_SIDE x RANGE_SIDE px around each of some rows, as far as the picture goes.

    One axis after the other; the maximum of some px in a row gives that of up to twice as many.
    """
    half = RANGE_SIDE // 2
    top, bottom = max(0, rows.start - half), min(image_BHWC.shape[1], rows.stop + half)
    above, below = half - (rows.start - top), half - (bottom - rows.stop)
    band = sign * image_BHWC[:, top:bottom]
    for axis, margins in ((1, (0, 0, 0, 0, above, below)), (2, (0, 0, half, half))):
        band, reach = functional.pad(band, margins, value=-torch.inf), 1
        while reach < RANGE_SIDE:
            step = min(reach, RANGE_SIDE - reach)
            length = band.shape[axis] - step
            band = torch.maximum(band.narrow(axis, 0, length), band.narrow(axis, step, length))
            reach += step
    return band


def _shrunk(image_BHWC: Tensor, height: int, width: int) -> Tensor:
    """Reduced to at most height x width px: a mask of an input that is larger than the result."""
    return resize_bicubic(image_BHWC, min(height, image_BHWC.shape[1]), min(width, image_BHWC.shape[2]))


def _check_mask(mask: Tensor, batch: int, layout: Layout) -> None:
    sizes = ((layout.input_height, layout.input_width), (layout.height, layout.width))
    if mask.ndim != 3 or mask.shape[0] not in (1, batch) or tuple(mask.shape[1:]) not in sizes:
        count = "1" if batch == 1 else f"1 or {batch}"
        raise AlloSR2Error(
            f"expected a mask of shape ({count}, H, W) with the input's {sizes[0][1]}x{sizes[0][0]} px or the result's "
            f"{sizes[1][1]}x{sizes[1][0]} px; got shape {tuple(mask.shape)}"
        )
    if not bool(((mask >= 0.0) & (mask <= 1.0)).all()):  # also NaN
        raise AlloSR2Error("expected mask values in 0..1; got others")
