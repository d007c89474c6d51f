"""Image quality metrics: float RGB tensors B,C,H,W in [0, 1] in, one value per image (B,) out.

| metric | file | reads like |
|---|---|---|
| PSNR-Y, SSIM-Y | fidelity.py | higher = closer to the reference |
| ST-LPIPS, HED-DISTS | perceptual.py | lower = closer to the reference |
| NIQE | niqe.py | lower = more like undistorted photos, no reference |
| lattice(p) | lattice.py | a visible grid of period p is > 1, photos are 0.1 to 0.2, no reference |

No single one is to be trusted: see lattice.py for why.
"""

from .fidelity import BORDER, luma, psnr_y, quantise, ssim_y
from .lattice import lattice
from .niqe import NIQE_MIN_SIDE, Niqe, load_niqe
from .perceptual import HEDDists, load_hed_dists
from .suite import METRIC_NAMES, MetricSuite, load_metric_suite

__all__ = [
    "BORDER",
    "METRIC_NAMES",
    "NIQE_MIN_SIDE",
    "HEDDists",
    "MetricSuite",
    "Niqe",
    "lattice",
    "load_hed_dists",
    "load_metric_suite",
    "load_niqe",
    "luma",
    "psnr_y",
    "quantise",
    "ssim_y",
]
