"""Validation crops and preview strips, at fixed positions and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from allosr2_core.files import write_atomically, writing

from ..config import Config
from ..data.crops import detail
from ..data.photo_files import decode_all
from ..data.sources.photos import load_split

GAP = 4
"""White between the pictures of a sheet, px."""


def centre_crop(photo: np.ndarray, side: int) -> Tensor:
    """[H, W, 3] uint8 -> its central square [1, 3, s, s] in [0, 1]; s: `side`, or the largest multiple of 32 within."""
    side = _fitting(photo, side)
    return _square(photo, (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2, side)


def busiest_crop(photo: np.ndarray, side: int) -> Tensor:
    """The square with the most `detail` among those half a side apart: fur, grass, foliage. Shapes as `centre_crop`."""
    side = _fitting(photo, side)
    picture_CHW = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    return _square(photo, *busiest_window(picture_CHW, side, step=side // 2), side)


def busiest_window(picture_CHW: Tensor, side: int, step: int) -> tuple[int, int]:
    """(top, left) of the square with the most `detail` among those whose corners are multiples of `step`."""
    tops, lefts = (range(0, extent - side + 1, step) for extent in picture_CHW.shape[-2:])
    corners = [(top, left) for top in tops for left in lefts]
    return max(corners, key=lambda c: detail(picture_CHW[:, c[0] : c[0] + side, c[1] : c[1] + side].float()))


def _fitting(photo: np.ndarray, side: int) -> int:
    return min(side, *(extent // 32 * 32 for extent in photo.shape[:2]))


def _square(photo: np.ndarray, top: int, left: int, side: int) -> Tensor:
    region = torch.from_numpy(np.array(photo[top : top + side, left : left + side]))
    return region.permute(2, 0, 1)[None].float().div(255)


def validation_crops(
    config: Config, side: int, crop: Callable[[np.ndarray, int], Tensor] = centre_crop
) -> list[Tensor]:
    """One square of every validation photograph that can be read."""
    paths = load_split(Path(config.data.root), "val")
    return [crop(photo, side) for photo in decode_all(paths, Path(config.data.cache)).values()]


def to_picture(pixels: Tensor) -> Tensor:
    """What a decoder gives, about [-1, 1], as a picture in [0, 1]."""
    return pixels.float().mul(0.5).add(0.5).clamp(0, 1)


def psnr(x: Tensor, y: Tensor) -> float:
    """PSNR in dB over all channels of pictures in [0, 1]."""
    return -10 * math.log10(float((x - y).square().mean()) + 1e-12)


def tile_rows(rows: Sequence[Sequence[Tensor]], groups: int = 1) -> Tensor:
    """Rows of equally large pictures [1, 3, h, w] as one, white between them, `groups` rows side by side."""
    lines = [torch.cat([F.pad(cell, (0, GAP, 0, GAP), value=1.0) for cell in row], dim=3) for row in rows]
    lines += [torch.ones_like(lines[0])] * (-len(lines) % groups)
    whole = torch.cat([torch.cat(lines[i : i + groups], dim=3) for i in range(0, len(lines), groups)], dim=2)
    return whole[..., :-GAP, :-GAP]


@dataclass(frozen=True)
class Preview:
    """What a stage shows of itself: validation figures, and rows of pictures [1, 3, H, W] in [0, 1]."""

    figures: dict[str, float]
    rows: list[list[Tensor]]


def strip(rows: list[list[Tensor]], path: Path, columns: int = 2) -> None:
    """Save a contact sheet of rows of [1, 3, H, W] pictures in [0, 1], centre-cropped to at most 256 px.

    Rows go side by side in `columns` columns; what does not fill the last line stays black. Written atomically.
    """
    side = min(256, *(p.shape[-1] for row in rows for p in row))
    cells = [torch.cat([centre(p, side)[0] for p in row], dim=2) for row in rows]
    cells += [torch.zeros_like(cells[0])] * (-len(cells) % columns)
    lines = [torch.cat(cells[i : i + columns], dim=2) for i in range(0, len(cells), columns)]
    sheet = torch.cat(lines, dim=1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    with writing(path):
        write_atomically(path, lambda partial: Image.fromarray(sheet).save(partial, format="PNG"))


def centre(picture: Tensor, side: int) -> Tensor:
    """The central square [..., side, side] of a picture [..., H, W]."""
    top, left = ((extent - side) // 2 for extent in picture.shape[-2:])
    return picture[..., top : top + side, left : left + side]
