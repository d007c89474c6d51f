"""What `upscale` is told besides `UpscaleOptions`: how results are stored, and what is said."""

from dataclasses import dataclass
from pathlib import Path


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
