"""The parts of a KL autoencoder (Rombach et al. 2022): residual blocks with group norm, attention, the change of size.

Attribute names spell the state-dict keys of Black Forest Labs' file and must not change.
"""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

NORM_GROUPS = 32
NORM_EPS = 1e-6


def conv3(inside: int, outside: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(inside, outside, kernel_size=3, padding=1)


def group_norm(channels: int) -> nn.GroupNorm:
    """A norm over groups of channels and all of space."""
    return nn.GroupNorm(num_groups=NORM_GROUPS, num_channels=channels, eps=NORM_EPS)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 conv on x where the channels change."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(inside), conv3(inside, outside)
        self.norm2, self.conv2 = group_norm(outside), conv3(outside, outside)
        self.nin_shortcut = nn.Conv2d(inside, outside, kernel_size=1) if inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """One-head attention over all positions; its 1x1 convs are linear layers on the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, kernel_size=1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        # Contiguous: with another layout PyTorch falls back on a whole matrix of scores, 16 GiB for 2048 x 2048 px.
        q, k, v = (
            rearrange(layer(normed), "b c h w -> b 1 (h w) c").contiguous() for layer in (self.q, self.k, self.v)
        )
        seen = functional.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(seen, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Middle(nn.Module):
    """Residual block, attention, residual block, at the smallest scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Half the size by a strided 3x3 conv that sees one row and column of zeros past the right and bottom edge."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution and the step to the next one, down or up, where there is one."""

    def __init__(
        self, blocks: list[ResnetBlock], *, downsample: Downsample | None = None, upsample: Upsample | None = None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample = downsample
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x
