"""EfficientNet-Lite (Tan & Le 2019): Lite0 for training against, Lite2 for evaluation only."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...downloads.wheels import ensure
from .base import FeatureNetwork, blurred, check_image
from .frozen import FrozenConv2d

# (kernel, stride, expansion) of the first five stages of EfficientNet-Lite (Tan & Le 2019, table 1, without
# squeeze-excitation and with ReLU6); the remaining stages and the classifier are not used.
LITE_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6))
LITE_SIZES = {
    "lite0": ((16, 24, 40, 80, 112), (1, 2, 2, 3, 3)),
    "lite2": ((16, 24, 48, 88, 120), (1, 3, 3, 4, 4)),
}
"""Channels and blocks of each stage."""
LITE_TAPS = (0, 1, 2, 4)  # stages whose output is compared: 1/2, 1/4, 1/8 and 1/16 of the image
LITE_BN_EPS = 1e-3


def lite_blocks(version: str) -> list[list[tuple[int, int, int, int]]]:
    """(kernel, stride, expansion, channels) of every block, by stages; only a stage's first block has its stride."""
    return [
        [(kernel, stride if number == 0 else 1, expansion, channels) for number in range(depth)]
        for (kernel, stride, expansion), channels, depth in zip(LITE_STAGES, *LITE_SIZES[version], strict=True)
    ]


class SamePadConv2d(FrozenConv2d):
    """Convolution with TensorFlow's "same" padding: output side ceil(side / stride), the odd pixel goes right/below."""

    smooth = False
    """Whether the response is blurred by [1 2 1] before a stride takes every other value of it."""

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        total = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:]]
        (top, left) = (total[0] // 2, total[1] // 2)
        blur = self.smooth and stride > 1
        extra = 1 if blur else 0
        sides = (left + extra, total[1] - left + extra, top + extra, total[0] - top + extra)
        return super().forward(F.pad(input, sides) if any(sides) else input)

    def kernels(self) -> Tensor:
        return blurred(self.weight) if self.smooth and self.stride[0] > 1 else self.weight


class InvertedResidual(nn.Module):
    """MBConv block, batch norms already folded into the convolutions: expand -> depthwise -> linear projection."""

    def __init__(self, kernel: int, stride: int, expansion: int, width_in: int, width_out: int) -> None:
        super().__init__()
        hidden = width_in * expansion
        self.expand = SamePadConv2d(width_in, hidden, 1) if expansion != 1 else None
        self.depthwise = SamePadConv2d(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = SamePadConv2d(hidden, width_out, 1)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = x_BCHW if self.expand is None else F.relu6(self.expand(x_BCHW))
        h = self.project(F.relu6(self.depthwise(h)))
        return x_BCHW + h if self.residual else h


class EfficientNetLite(FeatureNetwork):
    """First stages of EfficientNet-Lite0 or -Lite2. features(x) -> 4 maps, at 1/2, 1/4, 1/8 and 1/16 of the size.

    `smooth`: strides are preceded by a blur (Zhang 2019), with the same weights. As published, the first layer takes
    every other pixel: a checkerboard of single pixels looks like a change of tone to it, and a network trained against
    it paints one.
    """

    def __init__(self, version: Literal["lite0", "lite2"], *, smooth: bool = False) -> None:
        super().__init__()
        self.stem = SamePadConv2d(3, 32, 3, stride=2)
        stages, width = [], 32
        for blocks in lite_blocks(version):
            stage = nn.Sequential()
            for kernel, stride, expansion, channels in blocks:
                stage.append(InvertedResidual(kernel, stride, expansion, width, channels))
                width = channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, SamePadConv2d):
                module.smooth = smooth
        self.freeze()

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        check_image(x_BCHW)
        # the Lite family's own input range; ImageNet mean/std would cost some confidence on real photos
        x = F.relu6(self.stem((x_BCHW * 255.0 - 127.0) / 128.0))
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in LITE_TAPS:
                maps.append(x)
        return maps


def fold_batch_norm(state: Mapping[str, Tensor], conv: str, norm: str, eps: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `conv` (no bias) followed by inference batch norm `norm`."""
    gain = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + eps).sqrt()
    weight = state[f"{conv}.weight"] * gain.view(-1, 1, 1, 1)
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain


def lite_state(published: Mapping[str, Tensor], version: str) -> dict[str, Tensor]:
    """Published EfficientNet-Lite state dict -> state dict of EfficientNetLite (batch norms folded)."""
    state: dict[str, Tensor] = {}

    def fold(ours: str, conv: str, norm: str) -> None:
        state[f"{ours}.weight"], state[f"{ours}.bias"] = fold_batch_norm(published, conv, norm, LITE_BN_EPS)

    fold("stem", "_conv_stem", "_bn0")
    count = 0  # blocks are numbered through all stages
    for stage, blocks in enumerate(lite_blocks(version)):
        for number, (_, _, expansion, _) in enumerate(blocks):
            ours, theirs = f"stages.{stage}.{number}", f"_blocks.{count}"
            if expansion != 1:
                fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
            count += 1
    return state


def load_efficientnet(
    version: Literal["lite0", "lite2"], root: Path | str, *, smooth: bool = False
) -> EfficientNetLite:
    """Published EfficientNet-Lite weights, fetched into `root` on first use."""
    model = EfficientNetLite(version, smooth=smooth)
    path = ensure(f"efficientnet-{version}", root) / f"efficientnet-{version}.pth"
    published = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(lite_state(published, version), strict=True)
    return model
