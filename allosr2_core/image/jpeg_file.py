"""JPEG: Pillow decodes, here is what it says about files that are cut off or that hold more than one picture."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .jpeg_layout import left_behind, read_layout
from .opening import pillow_picture
from .picture_file import Decoded, Header
from .pillow_file import arrays, info_of, orientation_of

_END = b"\xff\xd9"
_FILLERS = (b"\x00" * 64 + _END, b"\xaa" * 64 + _END)


@dataclass(frozen=True)
class JpegFile:
    """data: the whole file. A second view (MPO), a gain map or a video behind the picture is left out and noted."""

    path: Path
    data: bytes

    def header(self) -> Header:
        """See PictureFile."""
        with pillow_picture(io.BytesIO(self.data), self.path) as picture:
            turned = orientation_of(info_of(picture)) >= 5
            return Header(
                height=picture.width if turned else picture.height,
                width=picture.height if turned else picture.width,
                grey=picture.mode == "L",
            )

    def decode(self, frame: int) -> Decoded:
        """See PictureFile; frame is 0."""
        layout = read_layout(self.data)
        if layout.end is not None:
            decoded = self._decode(self.data)
            note = left_behind(self.data, layout.end)
            return replace(decoded, notes=(note,)) if note else decoded
        if not layout.all_scans_begun:
            raise OSError("image file is truncated (parts of the picture have no data)")
        # Whatever data is missing, the decoder would take the filler for it: the same picture with two different ones
        # means that none was.
        begun = self.data.removesuffix(b"\xff")  # half of the end marker, which would make a marker of the filler
        decoded, other = (self._decode(begun + filler) for filler in _FILLERS)
        if not np.array_equal(decoded.values_HWC, other.values_HWC):
            raise OSError("image file is truncated (the end of the picture is missing)")
        return replace(decoded, notes=("the last bytes of the file are missing, the picture is complete",))

    def _decode(self, data: bytes) -> Decoded:
        with pillow_picture(io.BytesIO(data), self.path) as picture:
            info = info_of(picture)
            picture.load()
            values_HWC, _, space = arrays(picture)
            return Decoded(values_HWC, None, space, info=info)
