"""A small picture of a result that is being decoded, for the node while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from ...allosr2_core.layout import Layout
    from ...allosr2_core.pipeline import Sink

SIDE = 512
"""Of its longer side, px, at most."""


class Preview:
    """The enlarged input, in which every decoded tile takes its place. Of the restored picture every `skip`-th pixel.

    Args:
        source_1hwC: the input, in [0, 1].
    """

    def __init__(self, source_1hwC: Tensor, layout: Layout) -> None:
        self.skip = -(-max(layout.restored_height, layout.restored_width) // SIDE)
        size = -(-layout.restored_height // self.skip), -(-layout.restored_width // self.skip)
        small_1CHW = functional.interpolate(source_1hwC.movedim(-1, 1), size, mode="bilinear", antialias=True)
        self.pixels_HWC = (small_1CHW[0].movedim(0, -1) * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)

    def put(self, top: int, left: int, piece_hwC: Tensor) -> None:
        """One piece of the restored picture, its first pixel at (top, left)."""
        part = piece_hwC[-top % self.skip :: self.skip, -left % self.skip :: self.skip]
        row, column = -(-top // self.skip), -(-left // self.skip)
        pixels = (part * 255.0).round().to("cpu", torch.uint8)
        self.pixels_HWC[row : row + part.shape[0], column : column + part.shape[1]] = pixels

    def image(self) -> tuple[str, Image.Image, None]:
        """As the host's progress bar takes it: format, picture, no further limit of its size."""
        return "JPEG", Image.fromarray(self.pixels_HWC.numpy()), None


class Both:
    """A sink of the core that fills a preview, too."""

    def __init__(self, sink: Sink, preview: Preview) -> None:
        self._sink, self._preview = sink, preview

    def put(self, top: int, left: int, piece_hwC: Tensor) -> None:
        """One piece into both."""
        self._sink.put(top, left, piece_hwC)
        self._preview.put(top, left, piece_hwC)
