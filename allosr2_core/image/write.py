"""Pictures into files."""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from ..errors import AlloSR2Error
from ..files import replacing, writing
from .metadata import EXIF_PREFIX, Metadata, fitted
from .png_file import png_settings, write_deep_png
from .tiff_write import TiffWriter

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "JPEG", "WEBP", "TIFF", "TIFF")
_FORMAT_OF_SUFFIX: dict[str, str] = dict(zip(WRITABLE_SUFFIXES, _FORMATS, strict=True))
_LONGEST_EDGE = {"JPEG": 65500, "WEBP": 16383}  # px; the JPEG format has 65535, libjpeg stops at this
_LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class SaveOptions:
    """How a file is written."""

    bits: int = 8
    """8 or 16 a channel; 16 only for PNG, not animated, and TIFF."""
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
    if frames > 1 and bits == 16 and file_format == "PNG":
        raise AlloSR2Error(f"{path}: an animated PNG is written with 8 bits a channel; expected .tif for 16")


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
    kept, notes = fitted(metadata, file_format, height, width)
    if options.grey and file_format != "WEBP" and _is_for_rgb(metadata):
        notes = (*notes, "grey stored as three channels: its colour profile is one for RGB")
    with replacing(path) as file, writing(path):
        if file_format == "TIFF":
            notes = (*notes, TiffWriter(file).add(pixels_HWC, kept))
        elif options.bits == 16:
            write_deep_png(file, pixels_HWC, kept)
        else:
            settings = _settings(file_format, options, kept) | _exact_grey(file_format, pixels_HWC)
            picture = _picture(pixels_HWC)
            if file_format == "JPEG":  # Pillow would write past `file`, and a disk that took a part goes unnoticed
                encoded = io.BytesIO()
                picture.save(encoded, format=file_format, **settings)
                file.write(encoded.getbuffer())
            else:
                picture.save(file, format=file_format, **settings)
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

    `frames` is asked for one frame after the other, and what it raises passes through; atomic as `save_image`. An
    animation waits in memory for its end; equal frames in a row become one, shown as long as they together. loop: how
    often an animation plays, 0 for ever. Pages may differ in size, frames of an animation may not. Raises AlloSR2Error
    like `save_image`, without frames, and for a format that cannot hold them.
    """
    path, options, metadata = Path(path), options or SaveOptions(), metadata or Metadata()
    file_format = _format(path)
    check_writable(path, 1, 1, transparent=False, frames=2, animated=animated, bits=options.bits)
    checked = _checked(path, frames, options, metadata)
    with replacing(path) as file:
        if file_format == "TIFF":
            notes = _save_pages(path, file, checked, metadata)
        else:
            notes = _save_animation(path, file, checked, loop, options, metadata)
    return "; ".join(dict.fromkeys(filter(None, notes)))


def _checked(
    path: Path, frames: Iterable[Frame], options: SaveOptions, metadata: Metadata
) -> Iterator[tuple[np.ndarray, float]]:
    """The integers and the duration of each frame. Raises AlloSR2Error when there is none."""
    frame = None
    for frame in frames:
        pixels_HWC = _quantised(path, frame.rgb_HWC, frame.alpha_HW, options, metadata)
        height, width, channels = pixels_HWC.shape
        check_writable(path, height, width, transparent=channels in (2, 4), bits=options.bits)
        yield pixels_HWC, max(0.0, frame.duration_ms)
    if frame is None:
        raise AlloSR2Error(f"{path}: expected at least one frame, got none")


def _save_pages(
    path: Path, file: IO[bytes], frames: Iterable[tuple[np.ndarray, float]], metadata: Metadata
) -> list[str]:
    writer, kept, notes, lasting = None, metadata, [], False
    for pixels_HWC, duration_ms in frames:
        with writing(path):
            if writer is None:
                kept, lost = fitted(metadata, "TIFF", *pixels_HWC.shape[:2])
                notes += lost
                writer = TiffWriter(file)
            notes.append(writer.add(pixels_HWC, kept, page_of_many=True))
        lasting |= duration_ms > 0
    return [*notes, "TIFF has no durations: the animation is stored as pages"] if lasting else notes


def _save_animation(
    path: Path,
    file: IO[bytes],
    frames: Iterable[tuple[np.ndarray, float]],
    loop: int,
    options: SaveOptions,
    metadata: Metadata,
) -> tuple[str, ...]:
    pictures: list[Image.Image] = []
    durations: list[float] = []
    for pixels_HWC, duration_ms in frames:
        pictures.append(_picture(pixels_HWC))
        # APNG has fractions of numbers below 65536: whole ms from a second on, whole seconds from a minute on.
        durations.append(duration_ms if duration_ms < 1000 else round(duration_ms, 0 if duration_ms < 65535 else -3))
        if pictures[-1].size != pictures[0].size:
            expected, found = ("x".join(map(str, picture.size)) for picture in (pictures[0], pictures[-1]))
            raise AlloSR2Error(f"{path}: expected frames of the same size, got {expected} and {found} px")
    mode = max(picture.mode for picture in pictures)  # with alpha, where one has it: L and LA, or RGB and RGBA
    first, *others = (picture if picture.mode == mode else picture.convert(mode) for picture in pictures)
    kept, notes = fitted(metadata, _format(path), first.height, first.width)
    with writing(path):
        settings = _settings(_format(path), options, kept) | {"duration": durations, "loop": min(loop, 65535)}
        first.save(file, format=_format(path), save_all=True, append_images=others, **settings)
    return notes


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
    """(H, W, 3) and (H, W) in 0..1 -> (H, W, 1 grey | 2 grey and alpha | 3 | 4), uint8 or, for 16 bits, uint16.

    Rounded and clamped. Raises AlloSR2Error for other shapes, NaN, infinity, and colours in what must be grey.
    """
    if options.bits not in (8, 16) or not 1 <= options.quality <= 100:
        raise AlloSR2Error(f"{path}: expected 8 or 16 bits and a quality of 1 to 100, got {options}")
    if rgb_HWC.ndim != 3 or rgb_HWC.shape[-1] != 3 or rgb_HWC.numel() == 0:
        raise AlloSR2Error(f"{path}: expected pixels (H, W, 3), got {tuple(rgb_HWC.shape)}")
    if alpha_HW is not None and alpha_HW.shape != rgb_HWC.shape[:2]:
        raise AlloSR2Error(f"{path}: expected alpha of shape {tuple(rgb_HWC.shape[:2])}, got {tuple(alpha_HW.shape)}")
    values_HWC = _to_integers(path, rgb_HWC, options.bits)
    if options.grey and not (values_HWC == values_HWC[..., :1]).all():
        raise AlloSR2Error(f"{path}: expected equal channels for a grey file, got colours")
    if options.grey and _format(path) != "WEBP" and not _is_for_rgb(metadata):
        values_HWC = values_HWC[..., :1]
    if alpha_HW is not None:
        values_HWC = np.concatenate((values_HWC, _to_integers(path, alpha_HW[..., None], options.bits)), axis=-1)
    return np.ascontiguousarray(values_HWC)


def _to_integers(path: Path, values_HWC: torch.Tensor, bits: int) -> np.ndarray:
    values_HWC = values_HWC.detach().float().cpu()
    if not bool(torch.isfinite(values_HWC).all()):
        raise AlloSR2Error(f"{path}: expected finite pixels, got NaN or infinity")
    if bits == 8:
        return (values_HWC * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
    return (values_HWC * 65535.0).round().clamp(0, 65535).to(torch.int32).numpy().astype(np.uint16)


def _is_for_rgb(metadata: Metadata) -> bool:
    """Whether the result needs three channels for its profile to describe them."""
    return metadata.icc_profile[16:20] == b"RGB "


def _picture(pixels_HWC: np.ndarray) -> Image.Image:
    """uint8, 1 to 4 channels."""
    return Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC)


def _exact_grey(file_format: str, pixels_HWC: np.ndarray) -> dict[str, Any]:
    """WebP's lossy colours round greys off grey: a grey picture is stored without loss."""
    grey = file_format == "WEBP" and bool((pixels_HWC[..., :3] == pixels_HWC[..., :1]).all())
    return {"lossless": True} if grey else {}


def _settings(file_format: str, options: SaveOptions, metadata: Metadata) -> dict[str, Any]:
    """What Pillow's `save` takes, for PNG, JPEG and WebP."""
    if file_format == "PNG":
        return png_settings(metadata)
    settings: dict[str, Any] = {"quality": options.quality}
    found: dict[str, Any] = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc_profile}
    if file_format == "JPEG":
        settings["subsampling"] = 0  # 4:4:4
        exif = metadata.exif and EXIF_PREFIX + metadata.exif
        found |= {"comment": metadata.comment, "dpi": metadata.dpi, "exif": exif}
    else:
        settings |= {"method": 4, "exact": True}  # exact: keep the colour under transparent pixels
    return settings | {name: value for name, value in found.items() if value}
