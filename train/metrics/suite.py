"""All metrics of `python -m train evaluate` behind one call, with the reference's feature maps computed once."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from allosr2_core.losses.perceptual import texture_distance

from ..perceptual.networks import STLPIPS, EfficientNetLite, load_efficientnet, load_st_lpips
from .fidelity import psnr_y, quantise, ssim_y
from .lattice import LATTICE_PERIODS, checker_share, lattice, repeat
from .niqe import NIQE_MIN_SIDE, Niqe, load_niqe
from .perceptual import HEDDists, load_hed_dists

METRIC_NAMES = (
    *("psnr_y", "ssim_y", "st_lpips_vgg", "hed_dists", "vgg_dists", "lite_dists", "niqe"),
    *(f"lattice_{period}" for period in LATTICE_PERIODS),
    *("repeat_4", "checker"),
)
METRICS_VERSION = 4  # raise when a definition changes: stored results of older versions are then ignored


@dataclass(frozen=True)
class Reference:
    """A high-resolution picture 1,3,H,W as 8 bit hold it, and its feature maps."""

    picture: Tensor
    st_lpips: list[Tensor]
    hed: list[Tensor]
    lite: list[Tensor]


@dataclass(frozen=True)
class MetricSuite:
    """measure() gives every metric of METRIC_NAMES for one picture; NaN stands for "not defined at this size"."""

    st_lpips: STLPIPS
    hed_dists: HEDDists
    lite: EfficientNetLite
    niqe: Niqe

    @torch.inference_mode()
    def reference(self, hr_BCHW: Tensor) -> Reference:
        """Feature maps of one reference, 1,3,H,W in [0, 1]; about 260 MB at 512 px."""
        hr = quantise(hr_BCHW)
        return Reference(
            picture=hr,
            st_lpips=self.st_lpips.features(hr),
            hed=self.hed_dists.features(hr),
            lite=self.lite.features(hr),
        )

    @torch.inference_mode()
    def measure(self, sr_BCHW: Tensor, reference: Reference) -> dict[str, float]:
        """Metrics of one restored picture, 1,3,H,W, rounded to 8 bit before anything is measured."""
        sr = quantise(sr_BCHW)
        hr = reference.picture
        maps = self.st_lpips.features(sr)
        values = {
            "psnr_y": psnr_y(sr, hr).item(),
            "ssim_y": ssim_y(sr, hr).item(),
            "st_lpips_vgg": self.st_lpips.distance(maps, reference.st_lpips).item(),
            "hed_dists": self.hed_dists.distance(self.hed_dists.features(sr), reference.hed).item(),
            "vgg_dists": self.hed_dists.distance([sr, *maps], [hr, *reference.st_lpips]).item(),
            "lite_dists": texture_distance(self.lite.features(sr), reference.lite).item(),
        }
        return values | self.measure_alone(sr)

    @torch.inference_mode()
    def measure_alone(self, x_BCHW: Tensor) -> dict[str, float]:
        """The metrics that need no reference, of one picture 1,3,H,W."""
        x = quantise(x_BCHW)
        nan = float("nan")
        side = min(x.shape[2:])
        values = {"niqe": self.niqe(x).item() if side >= NIQE_MIN_SIDE else nan}
        for period in LATTICE_PERIODS:
            values[f"lattice_{period}"] = lattice(x, period).item() if side > 4 * period else nan
        return values | {"repeat_4": repeat(x, 4).item(), "checker": checker_share(x).item()}


def load_metric_suite(root: Path | str) -> MetricSuite:
    """Every metric, weights fetched into `root` on first use (about 150 MB)."""
    lite = load_efficientnet("lite2", root, smooth=True)  # strides blur first, so that no pixel goes unseen
    return MetricSuite(load_st_lpips("vgg", root), load_hed_dists(root), lite, load_niqe(root))
