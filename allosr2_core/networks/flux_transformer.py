"""FLUX.1's multimodal diffusion transformer (MMDiT), on tokens.

Compatible with Black Forest Labs' files by state-dict names and shapes; parity with other implementations is a test.
The architecture comes from the public description of FLUX.1 (19 double and 38 single blocks, hidden size 3072, 24
heads, positions on three axes 16 + 56 + 56); the small network of AlloSR2's own checkpoints is the same class.

Shape letters: B batch, L tokens, D hidden size, F channels of a patch token, A position axes.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..dataclass_reader import Length, Range, check_fields
from ..errors import AlloSR2Error
from .flux_layers import (
    TIME_FEATURES,
    DoubleStreamBlock,
    LastLayer,
    MLPEmbedder,
    Modulation,
    SingleStreamBlock,
    rotary_angles,
    sinusoidal_features,
)


@dataclass(frozen=True)
class FluxParams:
    """The architecture, all of it; no field has a default, so a checkpoint must say what it is."""

    in_channels: Annotated[int, Range(1, 65536)]
    """Channels of an image token: latent channels times 4 (64 in FLUX.1)."""
    out_channels: Annotated[int, Range(1, 65536)]
    """Channels of an output token (64 in FLUX.1)."""
    vec_in_dim: Annotated[int, Range(1, 65536)]
    """Width of the pooled text vector (768 in FLUX.1)."""
    context_in_dim: Annotated[int, Range(1, 65536)]
    """Width of a text token (4096 in FLUX.1)."""
    hidden_size: Annotated[int, Range(1, 65536)]
    """D, the width of every token inside (3072 in FLUX.1)."""
    mlp_ratio: Annotated[float, Range(0, 64, above=True)]
    """Width of the MLPs over the hidden size (4.0 in FLUX.1)."""
    num_heads: Annotated[int, Range(1, 4096)]
    """Attention heads; must divide the hidden size (24 in FLUX.1)."""
    depth: Annotated[int, Range(0, 128)]
    """Number of double-stream blocks (19 in FLUX.1)."""
    depth_single_blocks: Annotated[int, Range(0, 128)]
    """Number of single-stream blocks (38 in FLUX.1)."""
    axes_dim: Annotated[tuple[int, ...], Range(2, 4096), Length(1, 8)]
    """Head channels given to each position axis (index, row, column); even, adding up to the head size."""
    theta: Annotated[int, Range(1, 1e9)]
    """Base of the rotary frequencies (10 000 in FLUX.1)."""
    qkv_bias: bool
    """Whether the double blocks' qkv projections have a bias (true in FLUX.1)."""
    guidance_embed: bool
    """Whether the network takes a guidance strength (true in FLUX.1-dev, false in schnell)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes_dim", tuple(self.axes_dim))  # JSON gives a list
        check_fields(self)
        if self.hidden_size % self.num_heads:
            raise AlloSR2Error(f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}")
        head = self.hidden_size // self.num_heads
        if sum(self.axes_dim) != head or any(dim <= 0 or dim % 2 for dim in self.axes_dim):
            raise AlloSR2Error(f"axes_dim must be even numbers adding up to the head size {head}, got {self.axes_dim}")


class Flux(nn.Module):
    """The transformer on tokens.

    Args:
        params: the architecture.
    """

    gradient_checkpointing = False
    """Keep only the block inputs for the backward pass and compute the rest again."""

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        self.params = params
        dim, heads, mlp_dim = params.hidden_size, params.num_heads, int(params.hidden_size * params.mlp_ratio)

        self.img_in = nn.Linear(params.in_channels, dim)
        self.txt_in = nn.Linear(params.context_in_dim, dim)
        self.time_in = MLPEmbedder(TIME_FEATURES, dim)
        self.vector_in = MLPEmbedder(params.vec_in_dim, dim)
        self.guidance_in = MLPEmbedder(TIME_FEATURES, dim) if params.guidance_embed else None
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(dim, heads, mlp_dim, params.qkv_bias) for _ in range(params.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(dim, heads, mlp_dim) for _ in range(params.depth_single_blocks)
        )
        self.final_layer = LastLayer(dim, params.out_channels)

    def forward(
        self,
        img_BLF: Tensor,
        img_ids_BLA: Tensor,
        txt_BLC: Tensor,
        txt_ids_BLA: Tensor,
        timesteps_B: Tensor,
        y_BV: Tensor,
        guidance_B: Tensor | None = None,
    ) -> Tensor:
        """Velocity tokens for image tokens.

        Args:
            img_BLF: image tokens (B, L, in_channels).
            img_ids_BLA: their positions (B, L, axes).
            txt_BLC: text tokens (B, T, context_in_dim).
            txt_ids_BLA: their positions (B, T, axes), zeros in FLUX.1.
            timesteps_B: t in [-1, 1]; its sign tells the two flows of ATM apart.
            y_BV: pooled text (B, vec_in_dim).
            guidance_B: guidance strength, exactly when the network was made for it.

        Returns:
            (B, L, out_channels).

        Raises:
            AlloSR2Error: a shape does not fit, or guidance is missing or not wanted.
        """
        self._check(img_BLF, img_ids_BLA, txt_BLC, txt_ids_BLA, timesteps_B, y_BV, guidance_B)
        vec_BD = self.time_in(sinusoidal_features(timesteps_B, TIME_FEATURES).to(img_BLF.dtype))
        if self.guidance_in is not None and guidance_B is not None:
            vec_BD = vec_BD + self.guidance_in(sinusoidal_features(guidance_B, TIME_FEATURES).to(img_BLF.dtype))
        vec_BD = vec_BD + self.vector_in(y_BV)
        rotation = rotary_angles(torch.cat((txt_ids_BLA, img_ids_BLA), dim=1), self.params.axes_dim, self.params.theta)

        img_BLD, txt_BLD = self.img_in(img_BLF), self.txt_in(txt_BLC)
        for block in self.double_blocks:
            img_BLD, txt_BLD = self._run(block, img_BLD, txt_BLD, vec_BD, rotation)
        x_BLD = torch.cat((txt_BLD, img_BLD), dim=1)
        for block in self.single_blocks:
            x_BLD = self._run(block, x_BLD, vec_BD, rotation)
        return self.final_layer(x_BLD[:, txt_BLD.shape[1] :], vec_BD)

    def init_for_training(self) -> None:
        """Start values for training from nothing (adaLN-zero): every block is the identity, the velocity zero."""
        zero = [module.lin for module in self.modules() if isinstance(module, Modulation)]
        zero += [self.final_layer.adaLN_modulation[1], self.final_layer.linear]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in zero:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def _run(self, block: nn.Module, *args: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def _check(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None,
    ) -> None:
        params, batch = self.params, img.shape[0]
        axes = len(params.axes_dim)
        expect_shape("img", img, (batch, None, params.in_channels))
        expect_shape("img_ids", img_ids, (batch, img.shape[1], axes))
        expect_shape("txt", txt, (batch, None, params.context_in_dim))
        expect_shape("txt_ids", txt_ids, (batch, txt.shape[1], axes))
        expect_shape("timesteps", timesteps, (batch,))
        expect_shape("y", y, (batch, params.vec_in_dim))
        if (guidance is not None) != params.guidance_embed:
            wanted = "a guidance of shape (B,)" if params.guidance_embed else "no guidance (guidance_embed is false)"
            raise AlloSR2Error(f"expected {wanted}, got {None if guidance is None else tuple(guidance.shape)}")
        if guidance is not None:
            expect_shape("guidance", guidance, (batch,))


def expect_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """AlloSR2Error unless a tensor has this shape; None is any length."""
    fits = tensor.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape) + "," * (len(shape) == 1)
        raise AlloSR2Error(f"{name}: expected shape ({wanted}), got {tuple(tensor.shape)}")
