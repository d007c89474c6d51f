"""The work on one picture: read, upscale, write, frame by frame."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from torch import Tensor

from ..errors import AlloSR2Error
from ..image.geometry import split_alpha
from ..image.metadata import Metadata
from ..image.read import LoadedImage, load_image
from ..image.write import Frame, SaveOptions, save_frames, save_image
from ..options import UpscaleOptions
from ..pipeline import Pipeline
from .compare import compare_strip
from .names import FORMATS
from .progress import Progress
from .settings import OutputSettings
from .survey import Planned


@dataclass(frozen=True)
class Worker:
    """Restores pictures, one after the other, all in the same way."""

    upscaler: Pipeline
    settings: UpscaleOptions
    output: OutputSettings
    mask_1HW: Tensor | None
    progress: Progress

    def work(self, planned: Planned) -> tuple[str, ...]:
        """Write one picture's result, and the strip to compare with; returns what the user should know of it.

        Raises AlloSR2Error, and leaves no half file and no empty folder.
        """
        return _Picture(self, planned).write()


@dataclass
class _Picture:
    """One picture on its way; holds one frame of it, what was said, and the strip to compare with."""

    worker: Worker
    planned: Planned
    notes: list[str] = field(default_factory=list)
    strip_BHWC: Tensor | None = None

    def write(self) -> tuple[str, ...]:
        planned, target = self.planned, self.planned.pair.target
        self.notes += planned.notes
        first = load_image(planned.pair.source)
        # Frames that each chose their own t would flicker.
        t = self._shared_t(first) if planned.frames > 1 and planned.header.animated else self.worker.settings.t
        options = SaveOptions(bits=planned.bits, quality=self.worker.output.quality, grey=planned.header.grey)
        metadata = Metadata(icc_profile=first.metadata.icc_profile) if self.worker.output.strip else first.metadata
        frame = self._restore(first, t)
        del first
        with _folder_of(target):
            if planned.only_strip:
                del frame
            elif planned.frames == 1:
                self.notes.append(save_image(target, frame.rgb_HWC, frame.alpha_HW, options, metadata))
            else:
                frames = chain((frame,), self._other_frames(t))
                del frame
                self.notes.append(
                    save_frames(
                        target,
                        frames,
                        loop=planned.header.loop,
                        animated=planned.header.animated,
                        options=options,
                        metadata=metadata,
                    )
                )
        if planned.pair.compare is not None and self.strip_BHWC is not None:
            rgb, alpha = split_alpha(self.strip_BHWC)
            save_image(planned.pair.compare, rgb[0], None if alpha is None else alpha[0])
        return tuple(dict.fromkeys(note for note in self.notes if note))

    def _other_frames(self, t: float | str | None) -> Iterator[Frame]:
        for number in range(1, self.planned.frames):
            yield self._restore(load_image(self.planned.pair.source, frame=number), t)

    def _restore(self, loaded: LoadedImage, t: float | str | None) -> Frame:
        """One frame; the first also makes the strip."""
        worker, target = self.worker, self.planned.pair.target
        self.notes.append(loaded.note)
        image_BHWC = loaded.image_BHWC
        if target.suffix.lower() in FORMATS["jpg"]:
            image_BHWC = image_BHWC[..., :3]  # found to be opaque
        height, width = image_BHWC.shape[1:3]
        settings = replace(worker.settings, t=t)
        worker.progress.expect(worker.upscaler.ticks(height, width, settings))
        result_BHWC = worker.upscaler.upscale(image_BHWC, settings, mask=worker.mask_1HW, tick=worker.progress.tick)
        if self.planned.pair.compare is not None and self.strip_BHWC is None:
            self.strip_BHWC = compare_strip(image_BHWC, result_BHWC)
        rgb_BHWC, alpha_BHW = split_alpha(result_BHWC)
        if alpha_BHW is None and self.planned.frames > 1 and self.planned.header.transparent:
            alpha_BHW = rgb_BHWC.new_ones(rgb_BHWC.shape[:3])  # frames of a PNG are all of one kind
        return Frame(rgb_BHWC[0], None if alpha_BHW is None else alpha_BHW[0], loaded.duration_ms)

    def _shared_t(self, first: LoadedImage) -> float | str | None:
        """The t of every frame of an animation: where it is predicted, the first frame's."""
        settings, upscaler = self.worker.settings, self.worker.upscaler
        method = upscaler.config.t_method if settings.t is None else settings.t
        if method != "predicted":
            return settings.t
        upscaler = replace(upscaler, config=replace(upscaler.config, t_method=method))
        return upscaler.predict_t(first.image_BHWC, settings)


@contextmanager
def _folder_of(target: Path) -> Iterator[None]:
    """The folder of a file that is about to be written; made where it is missing, and unmade if nothing is written."""
    missing = [folder for folder in target.parents if not os.path.exists(folder)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlloSR2Error(f"{target.parent}: could not be created: {error}") from error
    try:
        yield
    except BaseException:
        for folder in missing:  # the innermost first
            try:
                folder.rmdir()
            except OSError:  # someone else wrote into it
                break
        raise
