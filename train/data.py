"""Training crops: a pure function of (seed, index), so that a resumed run sees exactly what it would have seen."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from allosr2_core.errors import AlloSR2Error

from .config import Config
from .degradation import SCALE, STRENGTHS, degrade
from .photos import load_manifest, load_split

LARGE_SIDE = 2000
"""Photographs with a longer side than this (px) are seen at 0.4-1.0 of their size, others at 0.5-1.0."""
NOISY_PACKAGE = "enlightenment-data"
"""Photographs of this package carry sensor noise at full size and are halved when they are decoded."""
MIN_DETAIL = 4.0
"""Crops whose Laplacian has a smaller standard deviation (on 0-255 grey) are flat and mostly drawn again."""
FLAT_SHARE = 0.15
"""Chance that a flat crop is kept: sky teaches little, but a network that never saw any puts texture on it."""
TRIES = 8


def mix_seed(*parts: int | str) -> int:
    """A 63-bit seed from a run's seed and what it is for; stable between processes and versions."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@functools.cache
def noisy_names() -> frozenset[str]:
    """File names of the photographs to halve."""
    return frozenset(photo.name for photo in load_manifest().photos if photo.package == NOISY_PACKAGE)


def decode_cached(path: Path, cache: Path) -> np.ndarray:
    """The photograph as a memory-mapped uint8 array [H, W, 3]; decoded once, written atomically."""
    target = cache / f"{path.parent.name}-{path.name}.npy"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        if path.name in noisy_names():
            rgb = rgb.resize((rgb.width // 2, rgb.height // 2), Image.Resampling.BOX)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, np.asarray(rgb))
        temporary.replace(target)
    return np.load(target, mmap_mode="r")


def bicubic_up(lr: Tensor, scale: int) -> Tensor:
    """The input of the encoder: the low-resolution picture enlarged bicubically, clamped to [0, 1]."""
    return F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)


def random_window(x: Tensor, y: Tensor, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of two batches [B, C, H, W]; both whole where `side` does not fit or is 0."""
    height, width = x.shape[-2:]
    if not 0 < side < min(height, width):
        return x, y
    top, left = (int(torch.randint(room - side + 1, (), generator=rng)) for room in (height, width))
    window = (..., slice(top, top + side), slice(left, left + side))
    return x[window], y[window]


def detail(hr: Tensor) -> float:
    """Standard deviation of the Laplacian of the grey picture, 0-255. hr: [3, H, W] in [0, 1]."""
    grey = hr.mean(dim=0) * 255
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.std())


class PhotoCrops(Dataset):
    """Item i -> {"hr": [3, c, c]} in [0, 1] and, if `strengths` is given, "lr": [3, c/4, c/4] and "strength": index."""

    def __init__(
        self,
        paths: Sequence[Path],
        cache: Path,
        crop: int,
        seed: int,
        strengths: Sequence[float] | None,
        start: int,
        length: int,
        scale: int = SCALE,
    ) -> None:
        """`start`: index of the first item still to be seen; `length`: how many the whole run sees."""
        self.photos = [decode_cached(path, cache) for path in paths]
        self.crop, self.seed, self.start, self.length, self.scale = crop, seed, start, length, scale
        self.strengths = torch.tensor(strengths) if strengths is not None else None
        usable = [min(p.shape[:2]) >= crop for p in self.photos]
        if not any(usable):
            raise AlloSR2Error(f"expected photographs of at least {crop} px; got {len(paths)} and none is large enough")
        megapixels = torch.tensor([p.shape[0] * p.shape[1] / 1e6 for p in self.photos])
        # A 12-megapixel photograph holds more to learn than a small one, but not thirty times more.
        self.weights = megapixels.sqrt() * torch.tensor(usable)

    def __len__(self) -> int:
        return self.length - self.start

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(mix_seed(self.seed, "crop", self.start + item))
        hr = self._draw(rng)
        for _ in range(TRIES - 1):
            if detail(hr) >= MIN_DETAIL or float(torch.rand((), generator=rng)) < FLAT_SHARE:
                break
            hr = self._draw(rng)
        batch = {"hr": hr}
        if self.strengths is not None:
            index = int(torch.multinomial(self.strengths, 1, generator=rng))
            batch["lr"] = degrade(hr[None], STRENGTHS[index], rng, self.scale)[0]
            batch["strength"] = torch.tensor(index)
        return batch

    def _draw(self, rng: torch.Generator) -> Tensor:
        index = int(torch.multinomial(self.weights, 1, generator=rng))
        photo = self.photos[index]
        height, width = photo.shape[:2]
        lowest = max(0.4 if max(height, width) > LARGE_SIDE else 0.5, self.crop / min(height, width))
        u = torch.rand(4, generator=rng).tolist()
        side = min(int(self.crop / (lowest + (1.0 - lowest) * u[0])), height, width)
        top, left = int(u[1] * (height - side + 1)), int(u[2] * (width - side + 1))
        region = torch.from_numpy(np.array(photo[top : top + side, left : left + side])).permute(2, 0, 1)
        hr = region.float().div(255)
        if side != self.crop:
            size = (self.crop, self.crop)
            hr = F.interpolate(hr[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
        turns = int(u[3] * 8)
        hr = torch.rot90(hr, turns % 4, dims=(1, 2))
        return (hr.flip(2) if turns >= 4 else hr).contiguous()


def training_crops(config: Config, name: str, start: int, length: int, *, degraded: bool) -> PhotoCrops:
    """Crops of the training photographs for what `name` says (a stage); each name draws its own. See `PhotoCrops`."""
    data = config.data
    return PhotoCrops(
        load_split(Path(data.root), "train"),
        Path(data.cache),
        data.crop,
        mix_seed(config.run.seed, name),
        data.strengths if degraded else None,
        start,
        length,
    )
