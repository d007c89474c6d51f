"""Training crops: a pure function of (seed, index), so that a resumed run sees exactly what it would have seen."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from allosr2_core.errors import AlloSR2Error

from ..config import Config
from .degradation import SCALE, STRENGTHS, degrade, filter2d, gaussian_kernel
from .photo_files import Photo, listed, load_pairs, load_photos
from .sources.photos import image_files, load_split

log = logging.getLogger(__name__)
MIN_DETAIL = 4.0
"""Crops whose Laplacian has a smaller standard deviation (on 0-255 grey) are flat and mostly drawn again."""
FLAT_SHARE = 0.15
"""Chance that a flat crop is kept: sky teaches little, but a network that never saw any puts texture on it."""
TRIES = 8
LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in grey (ITU-R BT.601)."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and what it is for; stable between processes and versions."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def bicubic_up(lr: Tensor, scale: int) -> Tensor:
    """The input of the encoder: the low-resolution picture enlarged bicubically, clamped to [0, 1]."""
    return F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)


def sharpened(x: Tensor, amount: float, sigma: float, threshold: float) -> Tensor:
    """Unsharp mask on [B, 3, H, W] in [-1, 1]: x + amount * mask * (x - x blurred by a Gaussian of sigma px).

    What a network cannot know it answers with a mean, which is soft; a reference that is too sharp by as much makes up
    for it. The mask, blurred too, is 1 where the detail is above the threshold, in levels of 255: raised noise would be
    learnt as grain. Source: Wang et al. 2021, Real-ESRGAN, section 3.3. Clamped to [-1, 1].
    """
    if not amount:
        return x
    size = 2 * math.ceil(3 * sigma) + 1
    kernel = gaussian_kernel(size, sigma, sigma, theta=0.0, beta=1.0, plateau=False).to(x)

    def blurred(y: Tensor) -> Tensor:
        return filter2d(y.flatten(0, 1)[None], kernel)[0].view(y.shape)

    with torch.autocast(x.device.type, enabled=False):  # a blur in bf16 would leave steps in smooth areas
        fine = x - blurred(x)
        mask = blurred((fine.abs().mean(dim=1, keepdim=True) > 2 * threshold / 255).to(x))
    return (x + amount * mask * fine).clamp(-1, 1)


def greyed(picture: Tensor) -> Tensor:
    """[3, H, W] -> its luma in all three channels."""
    return (picture * picture.new_tensor(LUMA)[:, None, None]).sum(dim=0).clamp(0, 1).expand(3, -1, -1).contiguous()


def detail(hr: Tensor) -> float:
    """Standard deviation of the Laplacian of the grey picture, 0-255. hr: [3, H, W] in [0, 1]."""
    grey = hr.mean(dim=0) * 255
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.std())


class PhotoCrops(Dataset):
    """Item i -> {"hr": [3, c, c]} in [0, 1] and, if `strengths` is given, "lr": [3, c/4, c/4] and "strength".

    "strength" is the index of the degradation, or -1 where the photograph came with its own low-resolution version.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        crop: int,
        seed: int,
        strengths: Sequence[float] | None,
        start: int,
        length: int,
        scale: int = SCALE,
        *,
        extended: bool = False,
        zoom: tuple[float, float] = (0.3, 1.0),
        flat_share: float = FLAT_SHARE,
        grey: float = 0.0,
    ) -> None:
        """`start`: index of the first item still to be seen; `length`: how many the whole run sees.

        `extended`: see `degrade`. `zoom`: range of the size that crops are seen at, relative to the photograph's own;
        logarithms are drawn evenly. `flat_share`: chance that a flat crop is kept; the others are drawn again. `grey`:
        share of crops that are made grey.
        """
        if not 0.0 < zoom[0] <= zoom[1]:
            raise AlloSR2Error(f"zoom: expected a range of positive sizes; got {list(zoom)}")
        self.photos = list(photos)
        self.crop, self.seed, self.start, self.length, self.scale = crop, seed, start, length, scale
        self.strengths = torch.tensor(strengths) if strengths is not None else None
        self.extended, self.zoom, self.flat_share, self.grey = extended, zoom, flat_share, grey
        usable = [min(photo.hr.shape[:2]) >= crop for photo in self.photos]
        small = [photo.name for photo, large in zip(self.photos, usable, strict=True) if not large]
        if small:
            log.warning(
                "%d of %d photographs are smaller than %d px and not used: %s",
                len(small),
                len(photos),
                crop,
                listed(small),
            )
        if not any(usable):
            raise AlloSR2Error(
                f"expected photographs of at least {crop} px; got {len(photos)} and none is large enough"
            )
        self.weights = torch.tensor([photo.weight for photo in self.photos]) * torch.tensor(usable)

    def __len__(self) -> int:
        return self.length - self.start

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(derive_seed(self.seed, "crop", self.start + item))
        hr, lr = self._draw(rng)
        for _ in range(TRIES - 1):
            if detail(hr) >= MIN_DETAIL or float(torch.rand((), generator=rng)) < self.flat_share:
                break
            hr, lr = self._draw(rng)
        without_colour = self._is_grey(self.start + item)
        if without_colour:
            hr = greyed(hr)
        batch = {"hr": hr}
        if self.strengths is not None:
            index = -1
            if lr is None:
                index = int(torch.multinomial(self.strengths, 1, generator=rng))
                lr = degrade(hr[None], STRENGTHS[index], rng, self.scale, extended=self.extended)[0]
            batch |= {"lr": greyed(lr) if without_colour else lr, "strength": torch.tensor(index)}
        return batch

    def _is_grey(self, index: int) -> bool:
        """Drawn apart from all else, so that the share changes nothing in the other crops."""
        if not self.grey:
            return False
        rng = torch.Generator().manual_seed(derive_seed(self.seed, "grey", index))
        return float(torch.rand((), generator=rng)) < self.grey

    def _draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        photo = self.photos[int(torch.multinomial(self.weights, 1, generator=rng))]
        u = torch.rand(4, generator=rng).tolist()
        hr, lr = self._cut_pair(photo.hr, photo.lr, u) if photo.lr is not None else (self._cut(photo.hr, u), None)
        turns = int(u[3] * 8)
        return _turned(hr, turns), None if lr is None else _turned(lr, turns)

    def _cut(self, photo: np.ndarray, u: Sequence[float]) -> Tensor:
        """A random square of the photograph at a random size."""
        height, width = photo.shape[:2]
        smallest, largest = self.zoom
        smallest = min(max(smallest, self.crop / min(height, width)), largest)
        zoom = smallest * (largest / smallest) ** u[0]
        side = min(round(self.crop / zoom), height, width)
        hr = _region(photo, int(u[1] * (height - side + 1)), int(u[2] * (width - side + 1)), side)
        if side == self.crop:
            return hr
        size = (self.crop, self.crop)
        return F.interpolate(hr[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)

    def _cut_pair(self, hr: np.ndarray, lr: np.ndarray, u: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The same random square of both pictures, at full size."""
        side = self.crop // self.scale
        top, left = (int(v * (extent - side + 1)) for v, extent in zip(u[1:3], lr.shape[:2], strict=True))
        return _region(hr, top * self.scale, left * self.scale, self.crop), _region(lr, top, left, side)


def _region(photo: np.ndarray, top: int, left: int, side: int) -> Tensor:
    pixels = torch.from_numpy(np.array(photo[top : top + side, left : left + side]))
    return pixels.permute(2, 0, 1).float().div(255)


def _turned(picture: Tensor, turns: int) -> Tensor:
    """One of the eight orientations."""
    turned = torch.rot90(picture, turns % 4, dims=(1, 2))
    return (turned.flip(2) if turns >= 4 else turned).contiguous()


def training_photos(config: Config) -> list[Photo]:
    """The configured sources, or the training split of `root` where none is named."""
    data, cache = config.data, Path(config.data.cache)
    if not data.sources:
        return load_photos(load_split(Path(data.root), "train"), cache)
    photos: list[Photo] = []
    for source in data.sources:
        if source.lr:
            photos += load_pairs(Path(source.hr), Path(source.lr), cache, source.weight)
        else:
            photos += load_photos(image_files(Path(source.hr)), cache, source.weight)
    return photos


def training_crops(
    config: Config,
    name: str,
    start: int,
    length: int,
    *,
    degraded: bool,
    crop: int | None = None,
    zoom: tuple[float, float] | None = None,
    flat_share: float = FLAT_SHARE,
) -> PhotoCrops:
    """Crops of the training photographs for what `name` says (a stage); each name draws its own. See `PhotoCrops`.

    `crop`: their side, px, and `zoom`: the configured ones if None.
    """
    data = config.data
    return PhotoCrops(
        training_photos(config),
        crop or data.crop,
        derive_seed(config.run.seed, name),
        data.strengths if degraded else None,
        start,
        length,
        extended=data.extended,
        zoom=zoom or data.zoom,
        flat_share=flat_share,
        grey=data.grey,
    )
