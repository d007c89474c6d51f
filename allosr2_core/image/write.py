"""Pictures into files."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from ..errors import AlloSR2Error
from .atomic import replacing, writing
from .exif import PREFIX
from .fitting import fitted
from .metadata import Metadata, resized
from .png_write import ApngWriter, write_png
from .quantise import quantised
from .tiff_write import TiffWriter
from .webp_write import WebpWriter

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "JPEG", "WEBP", "TIFF", "TIFF")
_FORMAT_OF_SUFFIX: dict[str, str] = dict(zip(WRITABLE_SUFFIXES, _FORMATS, strict=True))
_LONGEST_EDGE = {"JPEG": 65500, "WEBP": 16383}  # px; the JPEG format has 65535, libjpeg stops at this
_LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class SaveOptions:
    """How a file is written."""

    bits: int = 8
    """8 or 16 a channel; 16 only for PNG and TIFF."""
    quality: int = 95
    """Of JPEG and WebP, 1..100."""
    grey: bool = False
    """Store one channel; the three must be equal."""


@dataclass(frozen=True)
class Frame:
    """rgb_HWC: (H, W, 3), alpha_HW: (H, W) or None, both 0..1; duration_ms: how long it is shown."""

    rgb_HWC: torch.Tensor
    alpha_HW: torch.Tensor | None = None
    duration_ms: float = 0.0


def check_writable(
    path: str | Path,
    height: int,
    width: int,
    *,
    transparent: bool,
    frames: int = 1,
    animated: bool = False,
    bits: int = 8,
) -> None:
    """Raises AlloSR2Error when such a result cannot be written to `path`: call it before the work, not after.

    Checked: the suffix, transparency in a JPEG, sides in px, 16 bits, the length of the name, frames.
    """
    path = Path(path)
    file_format = _format(path)
    name_bytes = len(os.fsencode(path.name))
    if name_bytes > _LONGEST_NAME:
        raise AlloSR2Error(f"{path}: expected a name of at most {_LONGEST_NAME} bytes, got {name_bytes}")
    if bits not in (8, 16):
        raise AlloSR2Error(f"{path}: expected 8 or 16 bits a channel, got {bits}")
    if bits == 16 and file_format in ("JPEG", "WEBP"):
        raise AlloSR2Error(f"{path}: {file_format} has 8 bits a channel; expected .png or .tif for 16")
    if transparent and file_format == "JPEG":
        raise AlloSR2Error(f"{path}: JPEG cannot store transparency; expected .png, .webp or .tif for this picture")
    longest = _LONGEST_EDGE.get(file_format)
    if longest is not None and max(height, width) > longest:
        raise AlloSR2Error(
            f"{path}: {file_format} can have {longest} px an edge, the result has {width}x{height}; "
            "expected .png or .tif"
        )
    if frames > 1 and not holds_frames(path, animated):
        kind = "frames of an animation" if animated else "pages"
        instead = ".webp, .png or .tif" if animated else ".tif"
        raise AlloSR2Error(f"{path}: {file_format} cannot store {frames} {kind}; expected {instead}")


def holds_frames(path: str | Path, animated: bool) -> bool:
    """Whether a file of this suffix can hold all frames of an animation (animated), or all pages."""
    file_format = _FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())
    return file_format == "TIFF" or (animated and file_format in ("PNG", "WEBP"))


def save_image(
    path: str | Path,
    rgb_HWC: torch.Tensor,
    alpha_HW: torch.Tensor | None = None,
    options: SaveOptions | None = None,
    metadata: Metadata | None = None,
) -> str:
    """Write PNG, JPEG (4:4:4), WebP or TIFF (deflate), chosen by the suffix. Returns what the format could not keep.

    rgb_HWC: (H, W, 3), alpha_HW: (H, W), both 0..1; values are rounded and clamped. Atomic: the picture is written
    beside `path` and renamed, so a failure leaves no half file and keeps an older one; a link is followed. Raises
    AlloSR2Error for what `check_writable` refuses, a wrong shape, non-finite values, options.grey with channels that
    differ, or when the file cannot be written.
    """
    path, options, metadata = Path(path), options or SaveOptions(), metadata or Metadata()
    file_format = _format(path)
    pixels_HWC = _quantised(path, rgb_HWC, alpha_HW, options, metadata)
    height, width, channels = pixels_HWC.shape
    if channels in (2, 4) and file_format == "JPEG" and bool((pixels_HWC[..., -1] == 255).all()):
        pixels_HWC = pixels_HWC[..., :-1]  # opaque: nothing is lost
    transparent = pixels_HWC.shape[-1] in (2, 4)
    check_writable(path, height, width, transparent=transparent, bits=options.bits)
    kept, notes = fitted(resized(metadata, height, width), file_format)
    if options.grey and file_format != "WEBP" and _is_for_rgb(metadata):
        notes = (*notes, "grey stored as three channels: its colour profile is one for RGB")
    with replacing(path) as file, writing(path):
        if file_format == "TIFF":
            notes = (*notes, TiffWriter(file).add(pixels_HWC, kept))
        elif file_format == "PNG":
            write_png(file, pixels_HWC, kept)
        else:
            _save_by_pillow(file, pixels_HWC, file_format, options, kept)
    return "; ".join(filter(None, notes))


def save_frames(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    loop: int = 0,
    animated: bool = True,
    options: SaveOptions | None = None,
    metadata: Metadata | None = None,
) -> str:
    """Write an animated WebP or PNG, or a TIFF with a page for each frame. Returns what the format could not keep.

    `frames` is asked for one frame after the other, and what it raises passes through; atomic as `save_image`.
    loop: how often an animation plays, 0 for ever. Pages may differ in size, frames of an animation may not. Raises
    AlloSR2Error like `save_image`, without frames, and for a format that cannot hold them.
    """
    path, options, metadata = Path(path), options or SaveOptions(), metadata or Metadata()
    file_format = _format(path)
    if not holds_frames(path, animated):
        check_writable(path, 1, 1, transparent=False, frames=2, animated=animated)
    notes: list[str] = []
    with replacing(path) as file:
        add: Callable[[np.ndarray, float], None] | None = None
        finish: Callable[[], None] | None = None
        size = (0, 0)
        lasting = False
        for frame in frames:
            pixels_HWC = _quantised(path, frame.rgb_HWC, frame.alpha_HW, options, metadata)
            height, width, channels = pixels_HWC.shape
            check_writable(path, height, width, transparent=channels in (2, 4), bits=options.bits)
            lasting |= frame.duration_ms > 0
            with writing(path):
                if add is None or finish is None:
                    kept, lost = fitted(resized(metadata, height, width), file_format)
                    notes += lost
                    add, finish = _frame_writer(file, file_format, kept, loop, options, notes)
                    size = (height, width)
                elif file_format != "TIFF" and (height, width) != size:
                    expected, found = f"{size[1]}x{size[0]}", f"{width}x{height}"
                    raise AlloSR2Error(f"{path}: expected frames of the same size, got {expected} and {found} px")
                add(pixels_HWC, frame.duration_ms)
        if finish is None:
            raise AlloSR2Error(f"{path}: expected at least one frame, got none")
        with writing(path):
            finish()
        if file_format == "TIFF" and lasting:
            notes.append("TIFF has no durations: the animation is stored as pages")
    return "; ".join(dict.fromkeys(filter(None, notes)))


def _format(path: Path) -> str:
    file_format = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if file_format is None:
        raise AlloSR2Error(
            f"{path}: expected one of {', '.join(WRITABLE_SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
        )
    return file_format


def _quantised(
    path: Path, rgb_HWC: torch.Tensor, alpha_HW: torch.Tensor | None, options: SaveOptions, metadata: Metadata
) -> np.ndarray:
    """The integers of the file, see `quantised`."""
    if options.bits not in (8, 16) or not 1 <= options.quality <= 100:
        raise AlloSR2Error(f"{path}: expected 8 or 16 bits and a quality of 1 to 100, got {options}")
    one_channel = options.grey and _format(path) != "WEBP" and not _is_for_rgb(metadata)
    try:
        return quantised(rgb_HWC, alpha_HW, options.bits, must_be_grey=options.grey, one_channel=one_channel)
    except AlloSR2Error as error:
        raise AlloSR2Error(f"{path}: {error}") from error


def _is_for_rgb(metadata: Metadata) -> bool:
    """Whether the result needs three channels for its profile to describe them."""
    return metadata.icc_profile[16:20] == b"RGB "


def _save_by_pillow(
    file: IO[bytes], pixels_HWC: np.ndarray, file_format: str, options: SaveOptions, metadata: Metadata
) -> None:
    found: dict[str, Any] = {
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "icc_profile": metadata.icc_profile,
    }
    settings: dict[str, Any] = {"quality": options.quality}
    if file_format == "JPEG":
        settings["subsampling"] = 0  # 4:4:4
        found |= {"comment": metadata.comment, "dpi": metadata.dpi, "exif": metadata.exif and PREFIX + metadata.exif}
    else:
        settings |= {"method": 4, "exact": True}  # exact: keep the colour under transparent pixels
    settings |= {name: value for name, value in found.items() if value}
    Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC).save(
        file, format=file_format, **settings
    )


def _frame_writer(
    file: IO[bytes], file_format: str, metadata: Metadata, loop: int, options: SaveOptions, notes: list[str]
) -> tuple[Callable[[np.ndarray, float], None], Callable[[], None]]:
    """add(pixels, duration) and finish() of a format that holds frames."""
    if file_format == "PNG":
        apng = ApngWriter(file, metadata, loop)
        return apng.add, apng.finish
    if file_format == "WEBP":
        webp = WebpWriter(file, metadata, loop, options.quality)
        return webp.add, webp.finish
    tiff = TiffWriter(file)

    def add_page(pixels_HWC: np.ndarray, duration_ms: float) -> None:
        notes.append(tiff.add(pixels_HWC, metadata, page_of_many=True))

    return add_page, lambda: None
