"""The parts of the FLUX.1 transformer: embeddings, rotary attention, modulation, the blocks, the last layer.

Written from the published descriptions: sinusoidal time features (Vaswani et al. 2017), adaLN modulation (Peebles and
Xie, DiT, 2023), joint attention of two streams (Esser et al., SD3, 2024), rotary positions (Su et al., RoFormer, 2021),
QK RMSNorm (Dehghani et al., ViT-22B, 2023), which also gives the parallel attention + MLP of the single block.
Attribute names spell the state-dict keys of Black Forest Labs' files and must not change.

Shape letters: B batch, L tokens, D hidden size, N heads, H head size (D = N * H), P = H / 2 rotation planes.
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6
TIME_FEATURES = 256
TIME_SCALE = 1000.0  # t in [0, 1] is embedded as if it counted a thousand steps
MAX_PERIOD = 10_000.0
QUERY_ROWS = 256
"""Rows of attention scores that are held at a time where `attention` makes them itself."""


class Rotation(NamedTuple):
    """Where the two channels of every rotation plane go, each (B, 1, L, P, 2), float32."""

    even: Tensor
    """The first channel's part: cosine and sine of the angle."""
    odd: Tensor
    """The second channel's part: minus sine and cosine."""


def sinusoidal_features(t_B: Tensor, dim: int) -> Tensor:
    """Time or guidance (B,) -> float32 features (B, dim), cosines then sines.

    The sign of t survives in the sines, so +t and -t are different times to the network (ATM relies on it).
    float32 and this order of operations on purpose: at 1000 rad the rounding is part of what trained weights have seen.
    """
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t_B.device)
    frequencies = torch.exp(-math.log(MAX_PERIOD) * steps / half)
    angles = (TIME_SCALE * t_B.float())[:, None] * frequencies[None]
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def rotary_angles(ids_BLA: Tensor, axes_dim: tuple[int, ...], theta: int) -> Rotation:
    """Positions (B, L, axes) -> the rotation of every token, the axes side by side along the head.

    Angles in float64: a float32 angle loses digits far from the origin. Devices without float64 use the CPU.
    """
    device = torch.device("cpu") if ids_BLA.device.type == "mps" else ids_BLA.device
    parts = []
    for axis, dim in enumerate(axes_dim):
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
        position_BL = ids_BLA[..., axis].to(device=device, dtype=torch.float64)
        parts.append(position_BL[..., None] / theta**exponents)
    angles_BLP = torch.cat(parts, dim=-1)[:, None]
    cos, sin = angles_BLP.cos(), angles_BLP.sin()
    return Rotation(
        even=torch.stack((cos, sin), dim=-1).to(device=ids_BLA.device, dtype=torch.float32),
        odd=torch.stack((-sin, cos), dim=-1).to(device=ids_BLA.device, dtype=torch.float32),
    )


def rotate(x_BNLH: Tensor, rotation: Rotation) -> Tensor:
    """Turn each neighbouring pair of head channels by its angle; float32 inside, the dtype of x outside."""
    even, odd = x_BNLH.float().unflatten(-1, (-1, 2)).split(1, dim=-1)
    return torch.addcmul(even * rotation.even, odd, rotation.odd).flatten(-2).to(x_BNLH.dtype)


def attend(q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor, rotation: Rotation) -> Tensor:
    """Rotary attention over all tokens; (B, N, L, H) three times -> (B, L, D)."""
    q_BNLH, k_BNLH = rotate(q_BNLH, rotation), rotate(k_BNLH, rotation)
    return rearrange(attention(q_BNLH, k_BNLH, v_BNLH), "b n l h -> b l (n h)")


def attention(q_BNLH: Tensor, k_BNLH: Tensor, v_BNLH: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(H)) v, (B, N, L, H) three times -> (B, N, L, H).

    PyTorch's fused kernel, but for bf16 on a CPU, where that one does not use the processor's bf16 products and takes
    three times as long as these blocks of QUERY_ROWS rows; their scores are rounded to bf16.
    """
    if q_BNLH.device.type != "cpu" or q_BNLH.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH)
    keys_BNHL = (k_BNLH * k_BNLH.shape[-1] ** -0.5).transpose(-1, -2)
    values = v_BNLH.contiguous()  # once, not in every product
    return torch.cat([(rows @ keys_BNHL).softmax(dim=-1) @ values for rows in q_BNLH.split(QUERY_ROWS, dim=2)], dim=2)


class MLPEmbedder(nn.Module):
    """Two linear layers around a SiLU: features of time, guidance or the pooled text -> the modulation vector."""

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_dim)
        self.out_layer = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.out_layer(functional.silu(self.in_layer(x_BF)))


class RMSNorm(nn.Module):
    """RMS norm over the head channels, in float32; the gain is called `scale` as in the files."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.scale.to(device=x.device, dtype=torch.float32)
        return functional.rms_norm(x.float(), gain.shape, gain, NORM_EPS).to(x.dtype)


class QKNorm(nn.Module):
    """One RMS norm for queries and one for keys."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, qkv_BLF: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """A projected (B, L, 3 D) -> normed q, normed k and v, each (B, N, L, H)."""
        q, k, v = rearrange(qkv_BLF, "b l (three n h) -> three b n l h", three=3, n=heads)
        return self.query_norm(q), self.key_norm(k), v


class SelfAttention(nn.Module):
    """The projections of one stream; the attention itself is joint and belongs to the block."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.norm = QKNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def heads_of(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, L, D) -> q, k, v, each (B, N, L, H)."""
        return self.norm(self.qkv(x_BLD), self.heads)


class Modulation(nn.Module):
    """The vector of the sample -> `count` rows of (B, 1, D), ordered shift, scale, gate, shift, scale, gate, ..."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.lin = nn.Linear(dim, count * dim)

    def forward(self, vec_BD: Tensor) -> tuple[Tensor, ...]:
        return self.lin(functional.silu(vec_BD))[:, None].chunk(self.count, dim=-1)


def modulate(x_BLD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """(1 + scale) x + shift."""
    return torch.addcmul(shift_B1D, x_BLD, 1 + scale_B1D)


class DoubleStreamBlock(nn.Module):
    """Text and image keep their own weights and meet in one attention; then each has its own MLP."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, qkv_bias: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS)

        def mlp() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(dim, mlp_dim),
                nn.GELU(approximate="tanh"),
                nn.Linear(mlp_dim, dim),
            )

        self.img_mod = Modulation(dim, 6)
        self.img_norm1, self.img_norm2 = norm(), norm()
        self.img_attn = SelfAttention(dim, heads, qkv_bias)
        self.img_mlp = mlp()
        self.txt_mod = Modulation(dim, 6)
        self.txt_norm1, self.txt_norm2 = norm(), norm()
        self.txt_attn = SelfAttention(dim, heads, qkv_bias)
        self.txt_mlp = mlp()

    def forward(self, img_BLD: Tensor, txt_BLD: Tensor, vec_BD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        img_shift1, img_scale1, img_gate1, img_shift2, img_scale2, img_gate2 = self.img_mod(vec_BD)
        txt_shift1, txt_scale1, txt_gate1, txt_shift2, txt_scale2, txt_gate2 = self.txt_mod(vec_BD)

        img_heads = self.img_attn.heads_of(modulate(self.img_norm1(img_BLD), img_shift1, img_scale1))
        txt_heads = self.txt_attn.heads_of(modulate(self.txt_norm1(txt_BLD), txt_shift1, txt_scale1))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(txt_heads, img_heads, strict=True))  # text first
        seen_BLD = attend(q, k, v, rotation)
        txt_seen, img_seen = seen_BLD.split((txt_BLD.shape[1], img_BLD.shape[1]), dim=1)

        img_BLD = torch.addcmul(img_BLD, img_gate1, self.img_attn.proj(img_seen))
        img_mlp = self.img_mlp(modulate(self.img_norm2(img_BLD), img_shift2, img_scale2))
        img_BLD = torch.addcmul(img_BLD, img_gate2, img_mlp)
        txt_BLD = torch.addcmul(txt_BLD, txt_gate1, self.txt_attn.proj(txt_seen))
        txt_mlp = self.txt_mlp(modulate(self.txt_norm2(txt_BLD), txt_shift2, txt_scale2))
        txt_BLD = torch.addcmul(txt_BLD, txt_gate2, txt_mlp)
        return img_BLD, txt_BLD


class SingleStreamBlock(nn.Module):
    """One stream of text + image tokens; attention and MLP run side by side between two wide linear layers."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.widths = (3 * dim, mlp_dim)
        self.linear1 = nn.Linear(dim, 3 * dim + mlp_dim)
        self.linear2 = nn.Linear(dim + mlp_dim, dim)
        self.norm = QKNorm(dim // heads)
        self.pre_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS)
        self.modulation = Modulation(dim, 3)

    def forward(self, x_BLD: Tensor, vec_BD: Tensor, rotation: Rotation) -> Tensor:
        shift, scale, gate = self.modulation(vec_BD)
        qkv, mlp = self.linear1(modulate(self.pre_norm(x_BLD), shift, scale)).split(self.widths, dim=-1)
        q, k, v = self.norm(qkv, self.heads)
        mixed = torch.cat((attend(q, k, v, rotation), functional.gelu(mlp, approximate="tanh")), dim=-1)
        return torch.addcmul(x_BLD, gate, self.linear2(mixed))


class LastLayer(nn.Module):
    """Modulated norm and the projection from the hidden size back to patches."""

    def __init__(self, dim: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS)
        self.linear = nn.Linear(dim, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x_BLD: Tensor, vec_BD: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec_BD)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x_BLD), shift, scale))
