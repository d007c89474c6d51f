"""The perceptual distances that the SR stage is trained with, by name. What evaluation measures is in train.metrics.

"alex_l2" and "vgg_l2" are ST-LPIPS on networks that pool by root mean square (`networks.STLPIPS`); "texture_*" compare
means and covariances of features in the form of DISTS; "lite0_smooth" blurs before every stride; "hed_smooth" is VGG16
of an edge detector, pooling by root mean square. Evaluation's ST-LPIPS and VGG-DISTS have the weights of "vgg_l2", its
HED-DISTS those of "hed_smooth", with the published pooling. "st_lpips_alex" and "efficientnet_lite0" are the published
networks, kept for comparisons: trained against them, a network paints dots and checkerboards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.perceptual import feature_distance, texture_distance

from .networks import FeatureNetwork, load_efficientnet, load_hed_vgg, load_st_lpips


class FeatureDistance(nn.Module):
    """Distance of two pictures in [0, 1] in the features of a network."""

    def __init__(self, network: FeatureNetwork, distance: Callable[[list[Tensor], list[Tensor]], Tensor]) -> None:
        super().__init__()
        self.network, self.distance = network, distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            features_y = self.network.features(y)
        return self.distance(self.network.features(x), features_y)


HED_DEPTH = 4
"""Stages of VGG16 that the "hed_smooth" distances compare: up to relu4_3, an eighth of the size."""

DISTANCES: dict[str, Callable[[Path], nn.Module]] = {
    "st_lpips_alex": lambda root: load_st_lpips("alex", root),
    "efficientnet_lite0": lambda root: FeatureDistance(load_efficientnet("lite0", root), feature_distance),
    "alex_l2": lambda root: load_st_lpips("alex_l2", root),
    "texture_alex_l2": lambda root: FeatureDistance(load_st_lpips("alex_l2", root), texture_distance),
    "vgg_l2": lambda root: load_st_lpips("vgg_l2", root),
    "texture_vgg_l2": lambda root: FeatureDistance(load_st_lpips("vgg_l2", root), texture_distance),
    "lite0_smooth": lambda root: FeatureDistance(load_efficientnet("lite0", root, smooth=True), feature_distance),
    "hed_smooth": lambda root: FeatureDistance(load_hed_vgg(root, smooth=True, stages=HED_DEPTH), feature_distance),
    "texture_hed_smooth": lambda root: FeatureDistance(
        load_hed_vgg(root, smooth=True, stages=HED_DEPTH), texture_distance
    ),
    "texture_lite0_smooth": lambda root: FeatureDistance(
        load_efficientnet("lite0", root, smooth=True), texture_distance
    ),
}
"""Perceptual distances by the names that configurations use."""


def load_distance(name: str, root: Path) -> nn.Module:
    """A frozen perceptual distance by its configured name."""
    if name not in DISTANCES:
        raise AlloSR2Error(f"expected distances of {', '.join(map(repr, DISTANCES))}; got {name!r}")
    return DISTANCES[name](root)
