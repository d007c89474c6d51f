"""Pictures out of files, whatever the format: upright, sRGB, with what the file says besides.

Pictures are float32 torch tensors in 0..1 with the channels last (H, W, C or B, H, W, C), which is the convention of
ComfyUI's IMAGE; networks work on BCHW and convert at their edge. What a file says about its colours (ICC profile,
gamma, primaries, Lab, CMYK) is applied; what comes out are sRGB values, except in deep pictures with a profile of their
own, which keep their values and carry the profile along.

The content decides how a file is read, never its suffix. Each format has its module (`*_file.py`, `picture_file.py` for
what they share).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import AlloSR2Error, one_line
from .geometry import check_size
from .jpeg_file import JpegFile
from .metadata import Metadata, carried
from .opening import read_bytes
from .picture_file import DAMAGE, Header, PictureFile, as_unit
from .pillow_file import PillowFile
from .png_file import SIGNATURE, PngFile
from .profiles import to_srgb
from .tiff_file import TiffFile
from .write import WRITABLE_SUFFIXES

__all__ = ["READABLE_SUFFIXES", "Header", "LoadedImage", "load_image", "read_header"]

READABLE_SUFFIXES = (
    *WRITABLE_SUFFIXES,
    *(".jfif", ".jpe", ".mpo", ".apng", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".tga"),
)

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class LoadedImage:
    """A picture from a file, upright (EXIF orientation applied).

    rgb_HWC: float32 0..1, 3 channels. alpha_HW: float32 0..1, or None when the file has no transparency.
    note: what was lost or converted in reading it, for the user to see; empty when nothing was.
    bits: 8, or 16 when the values have more than 8 bits. grey: stored as one channel, the three are equal.
    metadata: ready for the result. duration_ms: of this frame, 0 for a still picture.
    """

    rgb_HWC: torch.Tensor
    alpha_HW: torch.Tensor | None
    note: str = ""
    bits: int = 8
    grey: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    duration_ms: float = 0.0

    @property
    def image_BHWC(self) -> torch.Tensor:
        """(1, H, W, 3), or (1, H, W, 4) when the file has an alpha channel."""
        if self.alpha_HW is None:
            return self.rgb_HWC[None]
        return torch.cat((self.rgb_HWC, self.alpha_HW[..., None]), dim=-1)[None]


def read_header(path: str | Path) -> Header:
    """What a file is, without decoding a pixel. Raises AlloSR2Error, naming the file, like `load_image`."""
    path = Path(path)
    with _naming(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = _open(path).header()
        check_size(header.height, header.width, what=f"{path}: the picture")
        return header


def load_image(path: str | Path, frame: int = 0) -> LoadedImage:
    """Read a picture, or frame `frame` of an animation as it is shown, or page `frame` of a TIFF.

    Grey becomes RGB, a transparent palette entry or colour key becomes alpha, other colour spaces become sRGB.
    Raises AlloSR2Error, naming the file, when it is missing, no regular file, empty, truncated, not a picture, of a
    kind that is not supported, too large, or has no such frame.
    """
    path = Path(path)
    with _naming(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        file = _open(path)
        header = file.header()
        check_size(header.height, header.width, what=f"{path}: the picture")
        if not 0 <= frame < header.frames:
            raise AlloSR2Error(f"{path}: expected a frame from 0 to {header.frames - 1}, got {frame}")
        decoded = file.decode(frame)
        converted = to_srgb(decoded)
        along = carried(decoded.info, converted.icc_profile)
    values_HWC = _upright(converted.values_HWC, along.orientation)
    if values_HWC.shape[-1] == 1:
        values_HWC = np.repeat(values_HWC, 3, axis=-1)
    alpha_HW = decoded.alpha_HW
    if alpha_HW is not None:
        alpha_HW = np.ascontiguousarray(_upright(as_unit(alpha_HW), along.orientation))
    notes = [*decoded.notes, *decoded.info.notes, *along.notes, converted.note]
    # Damage Pillow worked around (metadata, not pixels) is only warned of: hand it to the user with the picture.
    notes += [str(warning.message).strip() for warning in caught if issubclass(warning.category, UserWarning)]
    return LoadedImage(
        rgb_HWC=torch.from_numpy(np.ascontiguousarray(values_HWC)),
        alpha_HW=None if alpha_HW is None else torch.from_numpy(alpha_HW),
        note="; ".join(dict.fromkeys(note for note in notes if note)),
        bits=decoded.bits,
        grey=decoded.space == "grey",
        metadata=along.metadata,
        duration_ms=decoded.duration_ms,
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever a decoder raises becomes an AlloSR2Error that names the file."""
    try:
        yield
    except AlloSR2Error as error:
        raise error if one_line(str(path)) in str(error) else AlloSR2Error(f"{path}: {error}") from error
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise AlloSR2Error(f"{path}: expected a complete image in a format Pillow reads, got: {reason}") from error


def _open(path: Path) -> PictureFile:
    data = read_bytes(path)
    if data.startswith(SIGNATURE):
        return PngFile(path, data)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegFile(path, data)
    if data.startswith(_TIFF_STARTS):
        return TiffFile(path, data)
    return PillowFile(path, data)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation (TIFF 6.0 tag 274) on (H, W) or (H, W, C)."""
    if orientation >= 5:  # rows and columns exchanged
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
