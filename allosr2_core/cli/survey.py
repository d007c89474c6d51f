"""What the headers tell before the work: how much there is, where it goes, and what cannot succeed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AlloSR2Error
from ..image.geometry import target_size
from ..image.read import Header, LoadedImage, load_image, read_header
from ..image.write import check_writable, holds_frames
from ..options import UpscaleOptions
from .names import FORMATS, ImagePair, output_suffix, pair_outputs
from .paths import Inputs
from .settings import OutputSettings

DEEP_SUFFIXES = (*FORMATS["png"], *FORMATS["tiff"])
"""Of the formats that hold 16 bits a channel."""


@dataclass(frozen=True)
class Planned:
    """A picture whose result can be stored, as far as its header tells."""

    pair: ImagePair
    header: Header
    height: int
    width: int
    """Of the result, px."""
    frames: int
    """How many are restored and written."""
    bits: int
    """Bits a channel of the result: 8 or 16."""
    notes: tuple[str, ...] = ()
    only_strip: bool = False
    """Whether the result exists and is left alone, and only the strip to compare with is missing."""

    @property
    def work(self) -> int:
        """Pixels of the result, of all frames."""
        return self.height * self.width * self.frames

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of what is restored, px: of each page, where they may differ."""
        return self.header.sizes[: self.frames]


@dataclass(frozen=True)
class Refused:
    """A picture that cannot be restored or stored, found out without working on it."""

    pair: ImagePair
    error: Exception


@dataclass(frozen=True)
class Survey:
    """Every picture in one of three lists, each in the order of the inputs."""

    planned: tuple[Planned, ...]
    refused: tuple[Refused, ...]
    skipped: tuple[ImagePair, ...]
    """Whose results exist already, where those are to be left alone."""

    @property
    def pairs(self) -> tuple[ImagePair, ...]:
        """All of them."""
        return (*self.skipped, *(each.pair for each in (*self.refused, *self.planned)))


def survey(inputs: Inputs, settings: UpscaleOptions, output: OutputSettings, others: tuple[Path, ...] = ()) -> Survey:
    """Read every header and plan its picture; no pixel is restored and nothing is written.

    others: files that are read too and no output may replace. Raises AlloSR2Error for what concerns all pictures: an
    output that would replace an input, a depth the format asked for does not hold.
    """
    _check_depth(inputs, output)
    headers, errors = dict[Path, Header](), dict[Path, Exception]()
    for path in inputs.pictures:
        try:
            headers[path] = _header(path, _suffix(inputs, path, output), settings)
        except (AlloSR2Error, OSError, MemoryError) as error:
            errors[path] = error
    planned, refused, skipped = list[Planned](), list[Refused](), list[ImagePair]()
    for pair in pair_outputs(inputs, headers, output.format, output.compare, others):
        if error := errors.get(pair.source):
            refused.append(Refused(pair, error))
        elif output.skip_existing and all(os.path.isfile(path) for path in (pair.target, pair.compare) if path):
            skipped.append(pair)
        else:
            try:
                planned.append(_plan(pair, headers, settings, output))
            except AlloSR2Error as error:
                refused.append(Refused(pair, error))
    return Survey(tuple(planned), tuple(refused), tuple(skipped))


def _plan(pair: ImagePair, headers: Mapping[Path, Header], settings: UpscaleOptions, output: OutputSettings) -> Planned:
    """One picture's plan; AlloSR2Error where its result could not be stored."""
    header, notes = headers[pair.source], [pair.note] if pair.note else []
    height, width = target_size(header.height, header.width, **settings.size)
    frames = header.frames if holds_frames(pair.target, header.animated) else 1
    if frames < header.frames:
        notes.append(f"first of {header.frames} frames: {pair.target.suffix} holds one")
    wanted = header.bits if output.depth == "auto" else int(output.depth)
    holds_16 = pair.target.suffix.lower() in DEEP_SUFFIXES
    bits = 16 if wanted > 8 and (holds_16 or output.depth == "16") else 8
    transparent = header.transparent
    only_strip = output.skip_existing and os.path.isfile(pair.target)
    if only_strip:
        frames = 1
        notes.append(f"{pair.target} exists and is left alone, only {pair.compare} is written")
    check_writable(
        pair.target, height, width, transparent=transparent, frames=frames, animated=header.animated, bits=bits
    )
    if pair.compare is not None:
        check_writable(pair.compare, height, width, transparent=transparent)
    for path in filter(None, (pair.target, pair.compare)):
        if os.path.exists(path) and not os.path.isfile(path):
            raise AlloSR2Error(f"{path}: expected a name for a file, there is a folder or a device under it")
    return Planned(pair, header, height, width, frames, bits, tuple(notes), only_strip)


def _check_depth(inputs: Inputs, output: OutputSettings) -> None:
    suffix = FORMATS[output.format][0] if output.format else "" if inputs.into_folder else inputs.target.suffix
    if output.depth == "16" and suffix and suffix.lower() not in DEEP_SUFFIXES:
        raise AlloSR2Error(f"expected a depth of 8 for {suffix}, got 16: {', '.join(DEEP_SUFFIXES)} hold 16 bits")


def _suffix(inputs: Inputs, path: Path, output: OutputSettings) -> str:
    """What the result would be stored as if the picture is not transparent."""
    return (output_suffix(path, None, output.format)[0] if inputs.into_folder else inputs.target.suffix).lower()


def _header(path: Path, suffix: str, settings: UpscaleOptions) -> Header:
    """A picture's header, with what only the pixels tell where that matters for a file of this suffix.

    AlloSR2Error for a result too large, before a pixel is decoded.
    """
    header = read_header(path)
    pages = header.sizes if holds_frames(f"pages{suffix}", animated=header.animated) else header.sizes[:1]
    for height, width in pages:
        target_size(height, width, **settings.size)
    if header.transparent and suffix in FORMATS["jpg"]:  # many have an alpha channel and are opaque
        alpha_HW = load_image(path).alpha_HW
        return replace(header, transparent=alpha_HW is not None and bool(alpha_HW.min() < 1.0))
    if header.frames > 1 and not header.animated and holds_frames(f"pages{suffix}", animated=False):
        pages = [_Page.of(load_image(path, frame=number)) for number in range(header.frames)]
        return replace(
            header,
            transparent=any(page.transparent for page in pages),
            bits=max(page.bits for page in pages),
            grey=all(page.grey for page in pages),
        )
    return header


@dataclass(frozen=True)
class _Page:
    """What one page of a file needs of the format that stores it."""

    transparent: bool
    bits: int
    grey: bool

    @classmethod
    def of(cls, loaded: LoadedImage) -> "_Page":
        return cls(loaded.alpha_HW is not None, loaded.bits, loaded.grey)
