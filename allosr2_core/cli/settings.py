"""What `upscale` was asked for: the options of its command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UpscaleSettings:
    """What `upscale` does to every picture; the fields are arguments of `Pipeline.upscale`."""

    scale: float | None
    """Factor above 0, or None when long_edge is given."""
    long_edge: int | None
    """Longer side of the result, px, or None."""
    t: float | str | None
    """Time in (0, 1), "predicted", "calibrated", or None: what the checkpoint recommends."""
    realism: float
    """0 is the enlarged input, 1 as trained."""
    tile: int
    """Side of a tile in px of the restored (4x) picture; 0 is automatic."""
    overlap: int
    """Overlap of neighbouring tiles, px."""
    color: str
    """One of COLOR_METHODS."""
    shifted: bool
    """Whether to average with the step on a shifted grid."""


@dataclass(frozen=True)
class OutputSettings:
    """How results are stored."""

    format: str | None = None
    """One of FORMATS in names.py, or None: as each name says."""
    quality: int = 95
    """Of JPEG and WebP, 1 to 100."""
    depth: str = "auto"
    """Bits a channel: "8", "16", or "auto", 16 where the input has more than 8 and the format holds them."""
    strip: bool = False
    """Whether metadata is dropped; a colour profile the pixels need is kept."""
    compare: bool = False
    """Whether a strip of input and result is written beside each result."""
    skip_existing: bool = False
    """Whether pictures with a result are left alone."""


@dataclass(frozen=True)
class Talk:
    """What is said, and where."""

    quiet: bool = False
    """Only failures and the exit code."""
    json: str | None = None
    """A file for the summary, "-" for standard output, or None."""

    @property
    def json_file(self) -> Path | None:
        """The file for the summary, if it goes to one."""
        return None if self.json in (None, "-") else Path(self.json)
