"""TIFF: every photometric interpretation and depth, or an error that says which is not supported."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import AlloSR2Error
from .geometry import check_size
from .opening import pillow_picture
from .picture_file import Decoded, Header, Space, as_unit
from .pillow_file import arrays, unit_floats
from .tiff_pages import INFLATED_HERE, TiffPage, read_pages, read_samples

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_NONE = 1
_LEFT_TO_PILLOW = frozenset((2, 3, 4, 6, 7, 50001))  # three kinds of fax, two of JPEG, WebP
_ASSOCIATED, _UNASSOCIATED, _COREL = 1, 2, 999


@dataclass(frozen=True)
class TiffFile:
    """data: the whole file."""

    path: Path
    data: bytes

    @cached_property
    def _pages(self) -> tuple[tuple[TiffPage, ...], int]:
        return read_pages(self.data, str(self.path))

    def header(self) -> Header:
        """See PictureFile."""
        pages, _ = self._pages
        first = pages[0]
        check_size(first.height, first.width, what=f"{self.path}: the picture")
        height, width = _upright_size(first)
        return Header(
            height=height,
            width=width,
            frames=len(pages),
            page_sizes=tuple(_upright_size(page) for page in pages),
            transparent=any(_alpha_index(page) is not None for page in pages),
            bits=_result_bits(first),
            grey=first.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO),
        )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile."""
        pages, left_out = self._pages
        page = pages[frame]
        check_size(page.height, page.width, what=f"{self.path}: the picture")
        self._refuse_unknown(page)
        notes = [f"{left_out} thumbnails or masks of the file left out"] if left_out else []
        if page.compression not in INFLATED_HERE or page.photometric == _YCBCR:
            values_HWC, alpha_HW, space = self._by_pillow(page)
        else:
            samples = read_samples(page, self.data, self.path)
            values_HWC, alpha_HW, space = _interpreted(samples, page)
        extra = page.samples - _COLOURS[page.photometric] - (alpha_HW is not None)
        if extra > 0:
            notes.append(f"{extra} channels of unknown meaning left out")
        return Decoded(
            values_HWC,
            alpha_HW,
            space,
            bits=_result_bits(page),
            info=page.info,
            notes=tuple(notes),
        )

    def _refuse_unknown(self, page: TiffPage) -> None:
        reason = ""
        if page.photometric not in _COLOURS:
            kinds = {4: "a mask", 10: "ITU Lab", 32803: "camera raw data", 34892: "camera raw data"}
            kinds |= {32844: "LogL", 32845: "LogLuv"}
            reason = f"pixels of kind {page.photometric} ({kinds.get(page.photometric, 'unknown')})"
        elif page.compression not in INFLATED_HERE | _LEFT_TO_PILLOW:
            reason = f"compression {page.compression}"
        elif page.sample_format == _SIGNED:
            reason = f"signed numbers of {page.bits} bits, which have no white"
        elif page.sample_format not in (_UNSIGNED, _FLOAT, _UNDEFINED):
            reason = f"samples of kind {page.sample_format} (complex numbers)"
        elif page.sample_format == _FLOAT and page.bits not in (16, 32, 64):
            reason = f"floating point numbers of {page.bits} bits"
        elif page.sample_format != _FLOAT and not (page.bits <= 16 or page.bits == 32):
            reason = f"whole numbers of {page.bits} bits"
        elif page.photometric == _PALETTE and (page.bits > 8 or len(page.colour_map) < 3 << page.bits):
            reason = f"a palette of {len(page.colour_map)} values for {page.bits} bits"
        elif page.photometric in (_CIELAB, _ICCLAB) and (page.bits not in (8, 16) or page.sample_format == _FLOAT):
            reason = f"{page.bits} bits of Lab"
        elif page.photometric == _YCBCR and (page.bits != 8 or page.compression == _NONE):
            reason = f"{page.bits} bits of YCbCr, compression {page.compression}"
        elif page.samples < _COLOURS[page.photometric] and page.compression not in (6, 7):
            reason = f"{page.samples} samples a pixel for pixels of kind {page.photometric}"
        if reason:
            raise AlloSR2Error(f"{self.path}: expected a kind of TIFF that is supported, got {reason}")

    def _by_pillow(self, page: TiffPage) -> tuple[np.ndarray, np.ndarray | None, Space]:
        """Fax, JPEG, WebP, YCbCr. Turned back: Pillow applies the orientation."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            picture.seek(page.index)
            check_size(picture.height, picture.width, what=f"{self.path}: the picture")
            picture.load()
            values_HWC, alpha_HW, space = arrays(picture)
        return (
            _turned_back(values_HWC, page.info.orientation),
            None if alpha_HW is None else _turned_back(alpha_HW, page.info.orientation),
            space,
        )


def _upright_size(page: TiffPage) -> tuple[int, int]:
    return (page.width, page.height) if page.info.orientation >= 5 else (page.height, page.width)


def _result_bits(page: TiffPage) -> int:
    return 16 if page.bits > 8 and page.photometric not in (_PALETTE, _CMYK) else 8


def _alpha_index(page: TiffPage) -> int | None:
    """Which sample is alpha. Without a word about them (ExtraSamples missing) the first extra one is."""
    colours = _COLOURS.get(page.photometric, page.samples)
    if page.samples <= colours:
        return None
    if not page.extra:
        return colours if page.samples == colours + 1 else None
    for number, kind in enumerate(page.extra):
        if kind in (_ASSOCIATED, _UNASSOCIATED, _COREL) and colours + number < page.samples:
            return colours + number
    return None


def _interpreted(samples: np.ndarray, page: TiffPage) -> tuple[np.ndarray, np.ndarray | None, Space]:
    colours = _COLOURS[page.photometric]
    at = _alpha_index(page)
    alpha_HW = None if at is None else _ranged(samples[..., at], page)
    if page.photometric == _PALETTE:
        return _coloured(samples[..., 0], page), alpha_HW, "rgb"
    if page.photometric in (_CIELAB, _ICCLAB):
        return _lab(samples[..., :3], page), alpha_HW, "lab"
    values_HWC = _ranged(samples[..., :colours], page)
    if alpha_HW is not None and at is not None and page.extra and page.extra[at - colours] == _ASSOCIATED:
        values_HWC = _divided(as_unit(values_HWC), as_unit(alpha_HW))
    if page.photometric == _WHITE_IS_ZERO:
        values_HWC = (1 if values_HWC.dtype == np.float32 else np.iinfo(values_HWC.dtype).max) - values_HWC
    return values_HWC, alpha_HW, "rgb" if colours == 3 else "cmyk" if colours == 4 else "grey"


def _ranged(values: np.ndarray, page: TiffPage) -> np.ndarray:
    """Over the full range of uint8 or uint16 where that is exact, else float32 0..1."""
    if page.sample_format == _FLOAT:
        return unit_floats(values)
    top = (1 << page.bits) - 1
    if page.bits in (8, 16):
        return values
    if 255 % top == 0:
        return values * np.uint8(255 // top)
    return (values / top).astype(np.float32)


def _divided(values_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Associated alpha: the colours were multiplied by it."""
    alpha = alpha_HW[..., None]
    return np.clip(np.divide(values_HWC, alpha, out=np.zeros_like(values_HWC), where=alpha > 0), 0.0, 1.0)


def _coloured(index_HW: np.ndarray, page: TiffPage) -> np.ndarray:
    table = np.array(page.colour_map[: 3 << page.bits], dtype=np.int64).reshape(3, -1).T
    if table.max(initial=0) > 255:  # 16 bits as it should be; some writers put 8
        table = table >> 8
    return table.astype(np.uint8)[index_HW]


def _lab(samples: np.ndarray, page: TiffPage) -> np.ndarray:
    """L 0..100, a and b in their units. CIELab stores a and b signed, ICCLab with an offset (TIFF Technical Note 4)."""
    stored = samples.astype(np.float32)
    deep = page.bits == 16
    step = 256 if deep else 1
    if page.photometric == _CIELAB:
        lightness = stored[..., :1] * (100 / (65535 if deep else 255))
        signed = samples[..., 1:].view(np.int16 if deep else np.int8)
        return np.concatenate((lightness, signed.astype(np.float32) / step), axis=-1)
    lightness = stored[..., :1] * (100 / (65280 if deep else 255))
    return np.concatenate((lightness, stored[..., 1:] / step - 128), axis=-1)


def _turned_back(values: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `upright`: Pillow turns a TIFF when it loads it."""
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values.swapaxes(0, 1) if orientation >= 5 else values
