"""The sizes a picture goes through: as it came, as it is restored, as it is handed back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .checkpoint.config import AlloSR2Config
from .image.geometry import pad_to, padded_length, target_size

PAD_MULTIPLE_CELLS = 4
"""Pictures are padded to this many latent cells: the embedded U-Net's stride."""
MIN_SIDE = 64
"""Smaller pictures are padded to this, px: a network that has seen no border closer than that invents at it."""


def stride(config: AlloSR2Config) -> int:
    """Both sides of a picture are padded to multiples of this, px."""
    return PAD_MULTIPLE_CELLS * config.latent_downscale


@dataclass(frozen=True)
class Layout:
    """Sizes in px. A checkpoint restores at the factor it was trained for, whatever factor the result has.

    The result is made of the restored picture: it is that, or a reduction or an enlargement of it. Below a factor of 1
    the input is reduced first, so that no more is restored than the result can show.
    """

    input_height: int
    input_width: int
    height: int
    width: int
    """Of the result: exactly round(H scale) x round(W scale), or the long edge that was given."""
    source_height: int
    source_width: int
    """Of what is enlarged: the input's, or the result's where that is smaller."""
    restored_height: int
    restored_width: int
    """Of the picture the network restores."""
    padded_height: int
    padded_width: int
    """The same with what is mirrored at the bottom and the right."""

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        config: AlloSR2Config,
        scale: float | None = None,
        long_edge: int | None = None,
    ) -> Layout:
        """For an input of height x width px; `image.geometry.target_size` says what it raises."""
        result = target_size(height, width, scale=scale, long_edge=long_edge)
        source = (min(height, result[0]), min(width, result[1]))
        restored = (source[0] * config.scale, source[1] * config.scale)
        padded = [padded_length(side, stride(config), MIN_SIDE) for side in restored]
        return cls(height, width, *result, *source, *restored, *padded)

    def padded(self, image_BHWC: Tensor) -> Tensor:
        """Pictures of the restored size as the network sees them."""
        return pad_to(image_BHWC, self.padded_height, self.padded_width)

    @property
    def resampled(self) -> bool:
        """Whether the result has another size than the restored picture."""
        return (self.height, self.width) != (self.restored_height, self.restored_width)

    @property
    def reduced(self) -> bool:
        """Whether the result is smaller than the restored picture."""
        return self.height * self.width < self.restored_height * self.restored_width
