"""NIQE (Mittal, Soundararajan & Bovik 2013): how far local statistics are from those of undistorted photos.

The pristine model is the authors' own, as BasicSR carries it. The luma is rounded to 8 bit, locally normalised with a
7x7 Gaussian at two scales, cut into 96x96 blocks (48x48 at half size), and each block gives 36 moments of generalised
Gaussian fits. The score is the Mahalanobis-like distance between the blocks' Gaussian and the pristine one. All blocks
of a picture are fitted at once; the values are those of the block-by-block algorithm.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

from ..downloads.wheels import ensure
from .fidelity import luma, quantise

BLOCK = 96  # px
NIQE_MIN_SIDE = 2 * BLOCK  # px; fewer than four blocks give no covariance worth the name
SHAPES = torch.arange(200, 10001, dtype=torch.float64) / 1000.0  # candidate shape parameters 0.2 .. 10, step 0.001
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, both diagonals (rows, columns)


def shape_ratio(shape: Tensor) -> Tensor:
    """Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)): (mean |x|)^2 / mean x^2 of a generalised Gaussian; increasing."""
    return torch.exp(2.0 * torch.lgamma(2.0 / shape) - torch.lgamma(1.0 / shape) - torch.lgamma(3.0 / shape))


def fit_aggd(x_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Asymmetric generalised Gaussian fit by moment matching of N samples of K values: (shape, left, right), (N,) each.

    NaN where a sample has no negative or no positive value.
    """
    square = x_NK.square()
    below, above = x_NK < 0, x_NK > 0
    left = ((square * below).sum(dim=1) / below.sum(dim=1)).sqrt()
    right = ((square * above).sum(dim=1) / above.sum(dim=1)).sqrt()
    ratio = left / right
    moment = x_NK.abs().mean(dim=1).square() / square.mean(dim=1)
    target = moment * (ratio**3 + 1.0) * (ratio + 1.0) / (ratio**2 + 1.0).square()
    table = shape_ratio(SHAPES)  # increasing, so the nearest entry is one of two neighbours
    upper = torch.searchsorted(table, target.contiguous()).clamp(1, len(table) - 1)
    nearer_below = (target - table[upper - 1]) <= (table[upper] - target)
    shape = SHAPES[upper - nearer_below.long()]
    shape = torch.where(target.isfinite(), shape, torch.nan)
    beta = torch.exp(0.5 * (torch.lgamma(1.0 / shape) - torch.lgamma(3.0 / shape)))
    return shape, left * beta, right * beta


def block_features(blocks_NHW: Tensor) -> Tensor:
    """18 moments of each normalised block: N,H,W -> N,18."""
    shape, left, right = fit_aggd(blocks_NHW.flatten(1))
    features = [shape, (left + right) / 2.0]
    for shift in NEIGHBOURS:
        product = blocks_NHW * torch.roll(blocks_NHW, shift, dims=(1, 2))
        shape, left, right = fit_aggd(product.flatten(1))
        mean = (right - left) * torch.exp(torch.lgamma(2.0 / shape) - torch.lgamma(1.0 / shape))
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


class Niqe:
    """Callable: RGB B,3,H,W in [0, 1] -> (B,) float64; lower = more natural. Photos score about 2 to 6.

    Args:
        mean: pristine mean, 36 values.
        covariance: pristine covariance, 36 x 36.
        window: normalisation window, 7 x 7, sums to one.
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray, window: np.ndarray) -> None:
        shapes = (np.size(mean), np.shape(covariance), np.shape(window))
        if shapes != (36, (36, 36), (7, 7)):
            raise AlloSR2Error(f"NIQE model must hold 36 means, a 36x36 covariance and a 7x7 window, got {shapes}")
        self.mean = np.asarray(mean, dtype=np.float64).reshape(36)
        self.covariance = np.asarray(covariance, dtype=np.float64)
        self.window = torch.from_numpy(np.asarray(window, dtype=np.float64))[None, None]

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        if min(x_BCHW.shape[2:]) < NIQE_MIN_SIDE:
            raise AlloSR2Error(f"NIQE needs at least {NIQE_MIN_SIDE} px a side, got {tuple(x_BCHW.shape[2:])}")
        luma_B1HW = luma(quantise(x_BCHW.cpu().double())).round()
        return torch.tensor([self._score(y[None]) for y in luma_B1HW], dtype=torch.float64)

    def _score(self, y_11HW: Tensor) -> float:
        height, width = (side // BLOCK * BLOCK for side in y_11HW.shape[2:])
        y = y_11HW[..., :height, :width]
        half = F.interpolate(y, size=(height // 2, width // 2), mode="bicubic", antialias=True)
        scales = (self._blocks(y, BLOCK), self._blocks(half, BLOCK // 2))
        features = torch.cat([block_features(blocks) for blocks in scales], dim=1)
        samples = features.numpy()
        complete = samples[~np.isnan(samples).any(axis=1)]
        if len(complete) < 2:
            return math.nan  # flat picture: no block has statistics
        mean = np.nanmean(samples, axis=0)  # the published code averages over incomplete blocks too
        difference = self.mean - mean
        pooled = np.linalg.pinv((self.covariance + np.cov(complete, rowvar=False)) / 2.0)
        return float(np.sqrt(difference @ pooled @ difference))

    def _blocks(self, y_11HW: Tensor, size: int) -> Tensor:
        """Locally normalised luma, cut into N,size,size blocks."""
        padded = F.pad(y_11HW, (3, 3, 3, 3), mode="replicate")
        mean = F.conv2d(padded, self.window)
        sigma = (F.conv2d(padded.square(), self.window) - mean.square()).abs().sqrt()
        normal = ((y_11HW - mean) / (sigma + 1.0))[0, 0]
        rows, columns = normal.shape[0] // size, normal.shape[1] // size
        return normal.reshape(rows, size, columns, size).transpose(1, 2).reshape(rows * columns, size, size)


def load_niqe(root: Path | str) -> Niqe:
    """The authors' pristine model, fetched into `root` on first use."""
    with np.load(ensure("niqe", root) / "niqe_pris_params.npz") as stored:
        return Niqe(stored["mu_pris_param"], stored["cov_pris_param"], stored["gaussian_window"])
