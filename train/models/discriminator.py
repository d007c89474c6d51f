"""Discriminators: a U-Net on pixels, and small heads on the features of a frozen network, which may be the prior.

All score pictures position by position, above 0 for a photograph. Their convolutions are divided by their largest
singular value (Miyato et al. 2018), which keeps the slope that the generator descends in bounds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.flow import interpolate
from allosr2_core.losses.perceptual import MAX_SHIFT, shift
from allosr2_core.losses.registry import Random
from allosr2_core.networks.registry import VelocityNetwork

from ..perceptual.distances import HED_DEPTH
from ..perceptual.networks import FeatureNetwork, load_efficientnet, load_hed_vgg

SLOPE = 0.2
"""Of the leaky rectifiers below 0."""
FIRST_ITERATIONS = 15
"""Power iterations on fresh weights; afterwards one for every update is enough."""
SMALLEST = 32
"""Side of the picture, or of the latents, that a network's widths are read off."""


class SpectralConv2d(nn.Conv2d):
    """A convolution without bias, divided by its largest singular value as a matrix [out, in * kh * kw].

    The singular vectors are buffers, and only `iterate` changes them: a step in several passes, or on several
    processes, sees one and the same weight.
    """

    left: Tensor
    right: Tensor

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(width_in, width_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        self.register_buffer("left", F.normalize(torch.randn(width_out, 1, 1, 1), dim=0))
        self.register_buffer("right", torch.zeros(1, width_in, kernel, kernel))
        self.iterate(FIRST_ITERATIONS)

    @torch.no_grad()
    def iterate(self, times: int = 1) -> None:
        """Bring the singular vectors nearer to those of the weight as it is."""
        for _ in range(times):
            right = (self.weight * self.left).sum(dim=0, keepdim=True)
            self.right.copy_(right / right.norm().clamp(min=1e-12))
            left = (self.weight * self.right).sum(dim=(1, 2, 3), keepdim=True)
            self.left.copy_(left / left.norm().clamp(min=1e-12))

    def normalised(self) -> Tensor:
        """The weight, divided."""
        return self.weight / (self.weight * (self.left * self.right)).sum()  # no product that autocast makes bf16

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.normalised(), None, self.stride, self.padding)


class Discriminator(nn.Module, ABC):
    """Scores pictures, or their latents, in two halves: what is frozen (`views`), and what is trained (`forward`)."""

    latents = False
    """Whether it sees latents [B, C, h, w] and not pictures [B, 3, H, W] in [-1, 1]."""

    def views(self, results: Tensor, photographs: Tensor, random: Random) -> tuple[list[Tensor], list[Tensor]]:
        """What it looks at, of both; differentiable, without trained weights. What is random is the same for both."""
        return [results], [photographs]

    @abstractmethod
    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """`views` -> maps of scores, each [B, 1, h, w]."""

    def iterate(self) -> None:
        """To be called after every update of the weights (`SpectralConv2d.iterate`)."""
        for module in self.modules():
            if isinstance(module, SpectralConv2d):
                module.iterate()


class UNetDiscriminator(Discriminator):
    """The U-Net of Real-ESRGAN (Wang et al. 2021, section 3.3) -> one map of scores of the pictures' size.

    Three strided convolutions halve the size and double the width; on the way back the picture is enlarged
    bilinearly, convolved, and what was skipped is added. Sides must be multiples of 8 px.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels, 8 * channels]
        coarser = list(zip(widths, widths[1:], strict=False))
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList(SpectralConv2d(fine, coarse, 4, stride=2) for fine, coarse in coarser)
        self.up = nn.ModuleList(SpectralConv2d(coarse, fine, 3) for fine, coarse in reversed(coarser))
        self.last = nn.ModuleList(SpectralConv2d(channels, channels, 3) for _ in range(2))
        self.conv_out = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        (x,) = views
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise AlloSR2Error(f"expected pictures for the U-Net with sides of multiples of 8 px; got {tuple(x.shape)}")
        x = F.leaky_relu(self.conv_in(x), SLOPE, inplace=True)
        skipped = []
        for conv in self.down:
            skipped.append(x)
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        for conv, skip in zip(self.up, reversed(skipped), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), SLOPE, inplace=True) + skip
        for conv in self.last:
            x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        return [self.conv_out(x)]


class FeatureDiscriminator(Discriminator):
    """Three small convolutions on each feature map of a frozen network -> a map of scores for each.

    Each feature map is divided by its root mean square over the picture, for networks differ in the size of theirs.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(self._head(width, channels) for width in widths)

    @staticmethod
    def _head(width: int, channels: int) -> nn.Module:
        rectifier = nn.LeakyReLU(SLOPE)
        convs = SpectralConv2d(width, channels, 1), SpectralConv2d(channels, channels, 3)
        return nn.Sequential(convs[0], rectifier, convs[1], rectifier, nn.Conv2d(channels, 1, 1))

    @staticmethod
    def _even(features: Sequence[Tensor]) -> list[Tensor]:
        return [x / x.float().square().mean(dim=(1, 2, 3), keepdim=True).add(1e-12).sqrt().to(x) for x in features]

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        return [head(view) for head, view in zip(self.heads, views, strict=True)]


class PictureFeatureDiscriminator(FeatureDiscriminator):
    """Heads on what a network for pictures sees; both pictures are shifted by the same random offset before."""

    def __init__(self, network: FeatureNetwork, channels: int) -> None:
        with torch.no_grad():
            shown = network.features(torch.zeros(1, 3, SMALLEST, SMALLEST))
        super().__init__([feature.shape[1] for feature in shown], channels)
        self.network = network

    def views(self, results: Tensor, photographs: Tensor, random: Random) -> tuple[list[Tensor], list[Tensor]]:
        dy, dx = (float(offset) for offset in random.common(2) * MAX_SHIFT)
        fake, real = (self.network.features(shift(x, dy, dx).mul(0.5).add(0.5)) for x in (results, photographs))
        return self._even(fake), self._even(real)


@dataclass(frozen=True)
class Prior:
    """The prior as a discriminator looks through it."""

    network: VelocityNetwork
    """Frozen."""
    latent_channels: int
    times: tuple[float, float]
    """Range of the times that latents are noised to."""


class PriorDiscriminator(FeatureDiscriminator):
    """Heads on the levels of the frozen prior, which sees both latents with the same noise at a random time.

    The prior as its own critic: what ATM compares as scores is told apart by a classifier here, as latent adversarial
    distillation does (Sauer et al. 2024, "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
    Distillation").
    """

    latents = True

    def __init__(self, prior: Prior, channels: int) -> None:
        with torch.no_grad():
            shown = prior.network.features(torch.zeros(1, prior.latent_channels, SMALLEST, SMALLEST), torch.ones(1))
        super().__init__([feature.shape[1] for feature in shown], channels)
        self.prior, self.times = prior.network, prior.times

    def views(self, results: Tensor, photographs: Tensor, random: Random) -> tuple[list[Tensor], list[Tensor]]:
        low, high = self.times
        t_B, noise = low + (high - low) * random.rand(results.shape[0]).to(results), random.noise_like(results)
        fake, real = (self.prior.features(interpolate(z, noise, t_B), t_B) for z in (results, photographs))
        return self._even(fake), self._even(real)


Build = Callable[[int, Path, Callable[[], Prior]], Discriminator]
"""From the width, the folder of feature networks, and what gives the prior."""


def _of_pictures(network: Callable[[Path], FeatureNetwork]) -> Build:
    return lambda channels, root, prior: PictureFeatureDiscriminator(network(root), channels)


DISCRIMINATORS: dict[str, Build] = {
    "unet": lambda channels, root, prior: UNetDiscriminator(channels),
    "lite0": _of_pictures(lambda root: load_efficientnet("lite0", root, smooth=True)),
    "vgg": _of_pictures(lambda root: load_hed_vgg(root, smooth=True, stages=HED_DEPTH)),
    "prior": lambda channels, root, prior: PriorDiscriminator(prior(), channels),
}
"""By the names that configurations use. "lite0": EfficientNet-Lite0; "vgg": VGG16 of the HED edge detector. Both with
the smooth strides and pools of the losses, or the generator would paint what the published ones are blind to. "prior":
the run's own generative flow."""


def build_discriminator(name: str, channels: int, root: Path, prior: Callable[[], Prior]) -> Discriminator:
    """A discriminator with fresh trained weights, by its configured name; feature networks are fetched into `root`.

    AlloSR2Error for another name, and for a prior that shows no features.
    """
    if name not in DISCRIMINATORS:
        raise AlloSR2Error(f"expected a discriminator of {', '.join(map(repr, DISCRIMINATORS))}; got {name!r}")
    return DISCRIMINATORS[name](channels, root, prior)
