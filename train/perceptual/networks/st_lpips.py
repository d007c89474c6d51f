"""ST-LPIPS (Ghildyal & Liu 2022) on AlexNet and VGG16, as published or pooling by root mean square."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn as nn
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

from ...downloads.wheels import ensure
from .base import VGG16_STAGES, FeatureNetwork, binomial, blurred, check_image
from .frozen import FrozenConv2d
from .pooling import blur_pool, root_mean_square
from .unit_distance import unit_distance

STNet = Literal["alex", "alex_l2", "vgg", "vgg_l2"]


class BlurPool(nn.Module):
    """`blur_pool`, with the filter as a buffer because published states name it (written from the formula)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", binomial().repeat(channels, 1, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return blur_pool(x_BCHW)


class L2Pool(nn.Module):
    """Root mean square over k x k, stride 1: where max pooling sees the strongest response alone."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return root_mean_square(x_BCHW, self.kernel, stride=1, floor=1e-12)


class BlurredConv(FrozenConv2d):
    """A convolution and the blur-pool after it as the one convolution of stride 2 that they are: a third of the work.

    Weights are those of the convolution alone, so that published ones load. Equal to the two layers but within four
    pixels of the border, where those mirror the response and this one sees zeros.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, stride=2)

    def kernels(self) -> Tensor:
        return blurred(self.weight)

    @property
    def surround(self) -> int:
        return super().surround + 2


def _rectified(width: int, channels: int, kernel: int) -> list[nn.Module]:
    """A convolution with its ReLU, and nothing where that stands in the published network."""
    return [FrozenConv2d(width, channels, kernel, padding=kernel // 2, rectified=True), nn.Identity()]


def _alex_slices(*, smooth: bool) -> list[list[nn.Module]]:
    pool = lambda: L2Pool() if smooth else nn.MaxPool2d(kernel_size=3, stride=1)  # noqa: E731
    first: list[nn.Module] = [FrozenConv2d(3, 64, 11, padding=2), BlurPool(64), nn.ReLU()]
    if smooth:
        first = [BlurredConv(3, 64, 11, padding=2, rectified=True), nn.Identity(), nn.Identity()]
    return [
        first,
        [pool(), BlurPool(64), *_rectified(64, 192, 5)],
        [pool(), BlurPool(192), *_rectified(192, 384, 3)],
        _rectified(384, 256, 3),
        _rectified(256, 256, 3),
    ]


def _vgg_slices(*, smooth: bool) -> list[list[nn.Module]]:
    pool = lambda: L2Pool(2) if smooth else nn.MaxPool2d(kernel_size=2, stride=1)  # noqa: E731
    slices: list[list[nn.Module]] = []
    width = 3
    for stage, (channels, convs) in enumerate(VGG16_STAGES):
        layers: list[nn.Module] = [pool(), BlurPool(width)] if stage else []
        for _ in range(convs):
            layers += _rectified(width, channels, 3)
            width = channels
        slices.append(layers)
    return slices


class InputScaling(nn.Module):
    """(x - shift) / scale per channel, x in [-1, 1]."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW - self.shift) / self.scale


class STLPIPS(FeatureNetwork):
    """Shift-tolerant LPIPS. forward(x, y) -> (B,), 0 = same picture, lower = closer; differentiable in x and y.

    Module names follow the published state dict, so it loads strictly. "alex_l2" and "vgg_l2" are not the published
    metric: they pool by root mean square, as DISTS does. A network trained against max pooling learns to paint single
    dots, for each wins every window it lies in.
    """

    def __init__(self, net: STNet) -> None:
        super().__init__()
        if net not in get_args(STNet):
            raise AlloSR2Error(f"ST-LPIPS network must be {' or '.join(map(repr, get_args(STNet)))}, got {net!r}")
        slices = (_vgg_slices if net.startswith("vgg") else _alex_slices)(smooth=net.endswith("_l2"))
        widths = (64, 128, 256, 512, 512) if net.startswith("vgg") else (64, 192, 384, 256, 256)
        self.scaling_layer = InputScaling()
        self.net = nn.Module()
        index = 0  # layers are numbered through all slices
        for number, layers in enumerate(slices, start=1):
            block = nn.Sequential()
            for layer in layers:
                block.add_module(str(index), layer)
                index += 1
            self.net.add_module(f"slice{number}", block)
        for number, width in enumerate(widths):
            head = nn.Module()
            head.model = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(width, 1, kernel_size=1, bias=False))
            self.add_module(f"lin{number}", head)
        self.freeze()

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        check_image(x_BCHW)
        x = self.scaling_layer(x_BCHW * 2.0 - 1.0)
        maps = []
        for block in self.net.children():
            x = block(x)
            maps.append(x)
        return maps

    def distance(self, maps_x: list[Tensor], maps_y: list[Tensor]) -> Tensor:
        """Two lists of feature maps -> (B,): learned weighting of squared differences, averaged over space."""
        total = torch.zeros(maps_x[0].shape[0], device=maps_x[0].device)
        for number, (a, b) in enumerate(zip(maps_x, maps_y, strict=True)):
            weight_C = self.get_parameter(f"lin{number}.model.1.weight").flatten().float()
            total = total + unit_distance(a, b, weight_C)
        return total

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        return self.distance(self.features(x_BCHW), self.features(y_BCHW))

    def against(self, y_BCHW: Tensor) -> Callable[[Tensor], Tensor]:
        """The distance from one picture, whose features are made once, without gradients."""
        with torch.no_grad():
            maps_y = self.features(y_BCHW)
        return lambda x_BCHW: self.distance(self.features(x_BCHW), maps_y)


def load_st_lpips(net: STNet, root: Path | str) -> STLPIPS:
    """Published ST-LPIPS weights, fetched into `root` on first use."""
    model = STLPIPS(net)
    path = ensure("st-lpips", root) / f"{net.removesuffix('_l2')}_shift_tolerant.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    if net == "alex_l2":
        del state["net.slice1.1.filt"]  # BlurredConv's own
    model.load_state_dict(state, strict=True)
    return model
