"""FLUX-class velocity networks: the transformer on latent images, and one that sees no text.

The network of the base FLUX.1, and of checkpoints that train a small transformer of its class.
Shape letters: B batch, L tokens, T text tokens, F channels of a patch token, A position axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..dataclass_reader import Range, read_dataclass
from ..errors import AlloSR2Error, shown
from .flux_transformer import Flux, FluxParams, expect_shape
from .registry import VelocityNetwork, network

PATCH = 2
"""Latent cells along one side of a token."""


@dataclass(frozen=True)
class FluxConditioning:
    """What the transformer is told besides image and time; a batch of one serves every sample."""

    context_BLC: Tensor
    """Text tokens (B or 1, T, context_in_dim)."""
    pooled_BV: Tensor
    """Pooled text (B or 1, vec_in_dim)."""
    guidance_B: Tensor | None
    """Guidance strength (B or 1,), None for networks without guidance; 3.5 is FLUX.1-dev's usual value."""


class FluxVelocity(nn.Module):
    """The project's protocol, velocity(z_BCHW, t_B, cond) -> v_BCHW, on a FLUX-class transformer.

    The latent image is cut into 2x2 tokens. An odd height or width is padded first with the opposite edge (circular, as
    ComfyUI does) and the extra row or column is cropped from the result.

    Args:
        flux: the transformer; input and output channels must agree.
        compute_dtype: what z, context and pooled text are cast to; the velocity comes back in the dtype of z.
    """

    def __init__(self, flux: Flux, *, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if flux.params.in_channels != flux.params.out_channels or flux.params.in_channels % PATCH**2:
            raise AlloSR2Error(
                "a velocity needs in_channels equal to out_channels and divisible by 4, got "
                f"{flux.params.in_channels} and {flux.params.out_channels}"
            )
        self.flux = flux
        self.compute_dtype = compute_dtype

    def forward(self, z_BCHW: Tensor, t_B: Tensor, cond: FluxConditioning | None = None) -> Tensor:
        """Velocity of a scaled latent.

        Args:
            z_BCHW: state of the flow, any height and width from 1 up.
            t_B: its time, in [-1, 1] (negative: the flow of the network's own outputs, see ATM).
            cond: text and guidance; required, the default only fits the protocol.

        Returns:
            (B, C, H, W) in the dtype of z.

        Raises:
            AlloSR2Error: a shape does not fit the network, or the conditioning is missing.
        """
        if cond is None:
            raise AlloSR2Error("expected a FluxConditioning (context, pooled text, guidance), got None")
        expect_shape("z", z_BCHW, (None, self.flux.params.in_channels // PATCH**2, None, None))
        batch, _, height, width = z_BCHW.shape
        if 0 in z_BCHW.shape:
            raise AlloSR2Error(f"z: expected at least one cell, got shape {tuple(z_BCHW.shape)}")
        tokens_BLF, rows, columns = pack(z_BCHW.to(self.compute_dtype))
        context_BLC = _to_batch("context", cond.context_BLC.to(tokens_BLF), batch)
        v_BLF = self.flux(
            img_BLF=tokens_BLF,
            img_ids_BLA=token_ids(batch, rows, columns, len(self.flux.params.axes_dim), z_BCHW.device),
            txt_BLC=context_BLC,
            txt_ids_BLA=z_BCHW.new_zeros(
                (batch, context_BLC.shape[1], len(self.flux.params.axes_dim)), dtype=torch.float32
            ),
            timesteps_B=t_B,
            y_BV=_to_batch("pooled", cond.pooled_BV.to(tokens_BLF), batch),
            guidance_B=None if cond.guidance_B is None else _to_batch("guidance", cond.guidance_B.to(t_B), batch),
        )
        return unpack(v_BLF, rows, columns)[..., :height, :width].to(z_BCHW.dtype)


def pack(z_BCHW: Tensor) -> tuple[Tensor, int, int]:
    """Latent (B, C, H, W) -> tokens (B, rows * columns, 4 C), rows, columns; odd sizes are padded circularly."""
    height, width = z_BCHW.shape[-2:]
    if height % PATCH or width % PATCH:
        z_BCHW = functional.pad(z_BCHW, (0, width % PATCH, 0, height % PATCH), mode="circular")
    rows, columns = z_BCHW.shape[2] // PATCH, z_BCHW.shape[3] // PATCH
    return rearrange(z_BCHW, "b c (row y) (col x) -> b (row col) (c y x)", y=PATCH, x=PATCH), rows, columns


def unpack(tokens_BLF: Tensor, rows: int, columns: int) -> Tensor:
    """Tokens (B, rows * columns, 4 C) -> latent (B, C, 2 rows, 2 columns)."""
    cells = {"row": rows, "col": columns, "y": PATCH, "x": PATCH}
    return rearrange(tokens_BLF, "b (row col) (c y x) -> b c (row y) (col x)", **cells)


def token_ids(batch: int, rows: int, columns: int, axes: int, device: torch.device) -> Tensor:
    """Positions (B, rows * columns, axes) float32: zeros but for the last two axes, row and column."""
    ids = torch.zeros(rows, columns, axes, device=device)
    ids[..., -2] = torch.arange(rows, device=device)[:, None]
    ids[..., -1] = torch.arange(columns, device=device)[None]
    return ids.flatten(0, 1).expand(batch, -1, -1)


def _to_batch(name: str, tensor: Tensor, batch: int) -> Tensor:
    if tensor.ndim == 0 or tensor.shape[0] not in (1, batch):
        raise AlloSR2Error(f"{name}: expected a batch of 1 or {batch}, got shape {tuple(tensor.shape)}")
    return tensor.expand(batch, *tensor.shape[1:])


@dataclass(frozen=True)
class NullFluxParams:
    """What a checkpoint says of a `NullFlux`: the transformer's parameters, by its latent channels, and a guidance."""

    flux: FluxParams
    guidance: Annotated[float | None, Range(-1e4, 1e4)]
    """Strength told to a transformer with a guidance embedding, None for one without."""

    def __post_init__(self) -> None:
        if (self.guidance is not None) != self.flux.guidance_embed:
            wanted = "a number" if self.flux.guidance_embed else "none (guidance_embed is false)"
            raise AlloSR2Error(f"guidance: expected {wanted}; got {shown(self.guidance)}")

    @property
    def latent_channels(self) -> int:
        """A token is a patch of latents."""
        return self.flux.in_channels // PATCH**2

    @property
    def stride(self) -> int:
        """Latent cells along one side of a token."""
        return PATCH

    @property
    def radius(self) -> None:
        """Attention sees the whole."""
        return None

    @classmethod
    def read(cls, spec: Mapping[str, Any], where: str) -> NullFluxParams:
        """From a checkpoint's table: FluxParams, with `latent_channels` for the widths of tokens, and `guidance`."""
        values = dict(spec)
        channels, guidance = values.pop("latent_channels", None), values.pop("guidance", None)
        if type(channels) is not int or channels < 1:
            raise AlloSR2Error(f"{where}: latent_channels must be a positive integer, got {shown(channels)}")
        for key in ("in_channels", "out_channels"):
            if key in values:
                raise AlloSR2Error(f"{where}: unknown key {shown(key)}; it follows from latent_channels")
        width = channels * PATCH**2
        flux = read_dataclass(FluxParams, values | {"in_channels": width, "out_channels": width}, where)
        return read_dataclass(cls, {"flux": vars(flux), "guidance": guidance}, where)


@network("flux", NullFluxParams)
class NullFlux(VelocityNetwork):
    """A FLUX-class velocity network that sees no text: a null conditioning of its own, by default one token."""

    def __init__(self, params: NullFluxParams) -> None:
        super().__init__()
        flux = Flux(params.flux)
        flux.init_for_training()
        self.params = params
        self.velocity = FluxVelocity(flux)
        self.null_context = nn.Parameter(torch.zeros(1, 1, params.flux.context_in_dim))
        self.null_pooled = nn.Parameter(torch.zeros(1, params.flux.vec_in_dim))

    def forward(self, z: Tensor, t: Tensor, cond: FluxConditioning | None = None) -> Tensor:
        if cond is None:
            guidance = self.params.guidance
            guidance_1 = None if guidance is None else torch.tensor([guidance], device=z.device)
            cond = FluxConditioning(self.null_context, self.null_pooled, guidance_1)
        return self.velocity(z, t.expand(z.shape[0]), cond)

    @property
    def adapted(self) -> Flux:
        """The transformer."""
        return self.velocity.flux

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Double-stream and single-stream blocks."""
        return [*self.adapted.double_blocks, *self.adapted.single_blocks]

    @property
    def null(self) -> Mapping[str, Tensor]:
        """Text tokens [1, T, context_in_dim] and pooled text [1, vec_in_dim]."""
        return {"context": self.null_context, "pooled": self.null_pooled}

    def set_null(self, null: Mapping[str, Tensor], where: str) -> None:
        for name, old in self.null.items():
            value = null.get(name, torch.zeros(old.shape)).float()
            if value.ndim != old.ndim or value.shape[-1] != old.shape[-1] or value.shape[0] != 1:
                raise AlloSR2Error(
                    f"{where}: {name}: expected a shape like {tuple(old.shape)}; got {tuple(value.shape)}"
                )
            setattr(self, f"null_{name}", nn.Parameter(value))

    def compute_in(self, dtype: torch.dtype) -> None:
        self.adapted.to(dtype)
        self.velocity.compute_dtype = dtype

    def set_gradient_checkpointing(self, on: bool) -> None:
        self.adapted.gradient_checkpointing = on
