"""The perceptual distances that the SR stage is trained with, by name. What evaluation measures is in train.metrics.

"alex_l2" and "vgg_l2" are ST-LPIPS on networks that pool by root mean square (`networks.STLPIPS`); "texture_*" compare
means and covariances of features in the form of DISTS; "vgg_features" compares VGG16 of "vgg_l2" position by position
without scaling each to length one, so that strong edges count most; "lite0_smooth" blurs before every stride;
"hed_smooth" is VGG16 of an edge detector, pooling by root mean square. Evaluation's ST-LPIPS and VGG-DISTS have the
weights of "vgg_l2", its HED-DISTS those of "hed_smooth", with the published pooling. "st_lpips_alex" and
"efficientnet_lite0" are the published networks, kept for comparisons: trained against them, a network paints dots and
checkerboards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.perceptual import feature_distance, texture_distance

from .networks import FeatureNetwork, load_efficientnet, load_hed_vgg, load_st_lpips

Maps = list[Tensor]
"""Features of a picture, from fine to coarse."""


class FeatureDistance(nn.Module):
    """Distance of two pictures in [0, 1] in the features of a network."""

    def __init__(self, network: FeatureNetwork, distance: Callable[[Maps, Maps], Tensor]) -> None:
        super().__init__()
        self.network, self.distance = network, distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            features_y = self.network.features(y)
        return self.distance(self.network.features(x), features_y)


HED_DEPTH = 4
"""Stages of VGG16 that the "hed_smooth" distances compare: up to relu4_3, an eighth of the size."""

NETWORKS: dict[str, Callable[[Path], FeatureNetwork]] = {
    "st_lpips_alex": lambda root: load_st_lpips("alex", root),
    "alex_l2": lambda root: load_st_lpips("alex_l2", root),
    "vgg_l2": lambda root: load_st_lpips("vgg_l2", root),
    "lite0": lambda root: load_efficientnet("lite0", root),
    "lite0_smooth": lambda root: load_efficientnet("lite0", root, smooth=True),
    "hed_smooth": lambda root: load_hed_vgg(root, smooth=True, stages=HED_DEPTH),
}
"""Feature networks of the distances."""


def _own(network: FeatureNetwork) -> Callable[[Maps, Maps], Tensor]:
    """The distance that a network was published with."""
    return network.distance  # type: ignore[return-value]


DISTANCES: dict[str, tuple[str, Callable[[FeatureNetwork], Callable[[Maps, Maps], Tensor]]]] = {
    "st_lpips_alex": ("st_lpips_alex", _own),
    "efficientnet_lite0": ("lite0", lambda _: feature_distance),
    "alex_l2": ("alex_l2", _own),
    "texture_alex_l2": ("alex_l2", lambda _: texture_distance),
    "vgg_l2": ("vgg_l2", _own),
    "vgg_features": ("vgg_l2", lambda _: feature_distance),
    "texture_vgg_l2": ("vgg_l2", lambda _: texture_distance),
    "lite0_smooth": ("lite0_smooth", lambda _: feature_distance),
    "hed_smooth": ("hed_smooth", lambda _: feature_distance),
    "texture_hed_smooth": ("hed_smooth", lambda _: texture_distance),
    "texture_lite0_smooth": ("lite0_smooth", lambda _: texture_distance),
}
"""Perceptual distances by the names that configurations use: a network of `NETWORKS`, and how its features compare."""


def load_distances(names: Iterable[str], root: Path) -> dict[str, FeatureDistance]:
    """Frozen perceptual distances by their configured names; those of one network share it, loaded once."""
    networks: dict[str, FeatureNetwork] = {}
    distances: dict[str, FeatureDistance] = {}
    for name in names:
        if name not in DISTANCES:
            raise AlloSR2Error(f"expected distances of {', '.join(map(repr, DISTANCES))}; got {name!r}")
        key, distance = DISTANCES[name]
        if key not in networks:
            networks[key] = NETWORKS[key](root)
        if name not in distances:
            distances[name] = FeatureDistance(networks[key], distance(networks[key]))
    return distances
