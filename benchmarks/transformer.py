"""The FLUX-class transformer beside the host's (ComfyUI's) and diffusers', same weights, same process, in turns.

Ours and the host's go from latents to latents, diffusers' from tokens to tokens, which are made before the clock
starts. The host is measured twice: with the attention it chooses by itself on this device, and with PyTorch's, which
its option --use-pytorch-cross-attention chooses. Nothing is timed before all give the same velocity. bf16 only where
the processor multiplies it in hardware.

Operations are counted on our network, matrix products of the attention among them, and hold for all of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from allosr2_core.bases.registry import spellings
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import PATCH, Flux, FluxConditioning, FluxParams, FluxVelocity, pack, token_ids, unpack
from tests.core.flux_keys import transformer_to_diffusers
from tests.core.peers import randomize
from train.loop.precision import GEMM, bf16_is_native, gemm_flops

from .host import import_host
from .measure import Row, in_turns, max_difference, medians

log = logging.getLogger(__name__)

BENCH = "transformer"
OURS, HOST, HOST_SDPA, DIFFUSERS = "allosr2", "comfyui", "comfyui, pytorch attention", "diffusers"
PARAMS = FluxParams(
    in_channels=64,
    out_channels=64,
    vec_in_dim=768,
    context_in_dim=512,
    hidden_size=512,
    mlp_ratio=4.0,
    num_heads=4,
    depth=2,
    depth_single_blocks=4,
    axes_dim=(16, 56, 56),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)
TEXT_TOKENS = 256
SIZES = (256, 1024, 4096)
"""Image tokens; square numbers."""
QUICK_SIZES = (256,)
ROUNDS = 15
SECONDS = 60.0
"""After these no further round of a size begins."""
TIME, GUIDANCE = 0.25, 4.0
"""Numbers that bf16 holds exactly after diffusers has multiplied them by 1000."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2}
"""Largest difference between two velocities, in parts of the largest value."""
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Inputs:
    """What the networks are asked; float32."""

    z_BCHW: Tensor
    t_B: Tensor
    cond: FluxConditioning


@dataclass(frozen=True)
class Networks:
    """The same weights three times."""

    ours: Flux
    host: nn.Module
    diffusers: nn.Module
    pytorch_attention: Callable[..., Tensor]
    """The host's attention function on PyTorch's kernel."""

    def to(self, dtype: torch.dtype) -> None:
        """Turn the weights into another type, in place."""
        for network in (self.ours, self.host, self.diffusers):
            network.to(dtype)


def run(quick: bool, sizes: Sequence[int] = ()) -> Iterator[Row]:
    """For every precision and size each network, then ours against each peer; last the machine's matrix product.

    `ratio` is our seconds over those of the peer in `against`: below 1 we are faster. `gflops` is 10^9 operations per
    second, `share_of_gemm` its part of what a large matrix product reaches on this machine.
    """
    networks = build()
    dtypes = [torch.float32]
    if bf16_is_native("cpu"):
        dtypes.append(torch.bfloat16)
    else:
        log.info("bf16 is left out: this processor has no instructions for it")
    for dtype in dtypes:
        if dtype != torch.float32:
            networks.to(dtype)
        peak = gemm_flops(dtype) / 1e9
        for tokens in sizes or (QUICK_SIZES if quick else SIZES):
            yield from measure(networks, dtype, tokens, peak)
        yield Row(BENCH, "matrix product", f"{GEMM} x {GEMM}, {NAMES[dtype]}", figures={"gflops": peak})


def measure(networks: Networks, dtype: torch.dtype, tokens: int, peak: float) -> list[Row]:
    """The rows of one size and precision; `peak` is that of the matrix product, 10^9 operations per second."""
    inputs, size = make_inputs(tokens), f"{tokens} tokens, {NAMES[dtype]}"
    cases = make_cases(networks, inputs, dtype)
    apart = compare(cases, dtype, size)
    gflop = count_gflop(cases[OURS])
    seconds = medians(in_turns(cases, rounds=ROUNDS, seconds=SECONDS))
    rows = []
    for name, taken in seconds.items():
        figures = {"gflops": gflop / taken, "share_of_gemm": gflop / taken / peak}
        rows.append(Row(BENCH, name, size, taken, max_abs_diff=apart[name], figures=figures))
    peers = [name for name in cases if name != OURS]
    return rows + [
        Row(BENCH, OURS, size, seconds[OURS], ratio=seconds[OURS] / seconds[peer], against=peer) for peer in peers
    ]


def compare(cases: dict[str, Callable[[], Tensor]], dtype: torch.dtype, size: str) -> dict[str, float]:
    """Largest difference of each velocity from the host's; an error if one is not the same."""
    with torch.inference_mode():
        velocities = {name: case() for name, case in cases.items()}
    reference = velocities[HOST]
    apart = {name: max_difference(v, reference, float(reference.abs().max())) for name, v in velocities.items()}
    for name, difference in apart.items():
        if not difference <= TOLERANCE[dtype]:
            raise AlloSR2Error(f"{size}: {name} differs from {HOST} by {difference:.2g}, over {TOLERANCE[dtype]:.2g}")
    return apart


def count_gflop(case: Callable[[], Tensor]) -> float:
    """10^9 floating-point operations of one call, counted without the fused attention, which the counter skips."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        case()
    return counter.get_total_flops() / 1e9


def make_inputs(tokens: int) -> Inputs:
    """Latents that make so many tokens, a time, text and a guidance."""
    generator, side = torch.Generator().manual_seed(tokens), math.isqrt(tokens) * PATCH
    return Inputs(
        z_BCHW=torch.randn(1, PARAMS.in_channels // PATCH**2, side, side, generator=generator),
        t_B=torch.tensor([TIME]),
        cond=FluxConditioning(
            context_BLC=torch.randn(1, TEXT_TOKENS, PARAMS.context_in_dim, generator=generator),
            pooled_BV=torch.randn(1, PARAMS.vec_in_dim, generator=generator),
            guidance_B=torch.tensor([GUIDANCE]),
        ),
    )


def make_cases(networks: Networks, inputs: Inputs, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Every network on the inputs, ours first; each gives the velocity of the latents."""
    velocity = FluxVelocity(networks.ours, compute_dtype=dtype)
    z, context, pooled = (x.to(dtype) for x in (inputs.z_BCHW, inputs.cond.context_BLC, inputs.cond.pooled_BV))
    tokens, rows, columns = pack(z)
    positions = token_ids(1, rows, columns, len(PARAMS.axes_dim), z.device)[0]
    text_positions = torch.zeros(TEXT_TOKENS, len(PARAMS.axes_dim))

    def host(**options: Any) -> Tensor:
        return networks.host(z, inputs.t_B, context, pooled, inputs.cond.guidance_B, transformer_options=options)

    def diffusers() -> Tensor:
        given = {"guidance": inputs.cond.guidance_B, "img_ids": positions, "txt_ids": text_positions}
        answer = networks.diffusers(tokens, context, pooled, inputs.t_B, **given, return_dict=False)
        return unpack(answer[0], rows, columns)

    def with_pytorch(_: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return networks.pytorch_attention(*args, **kwargs)

    return {
        OURS: lambda: velocity(z, inputs.t_B, inputs.cond),
        HOST: host,
        HOST_SDPA: lambda: host(optimized_attention_override=with_pytorch),
        DIFFUSERS: diffusers,
    }


# --- the networks -------------------------------------------------------------------------------------------------


def build() -> Networks:
    """Ours with random weights, and the peers with the same."""
    ours = Flux(PARAMS)
    randomize(ours, seed=7)
    host, attention = build_host(ours)
    return Networks(ours, host, build_diffusers(ours), attention)


def build_host(ours: Flux) -> tuple[nn.Module, Callable[..., Tensor]]:
    """ComfyUI's network, and its attention on PyTorch's kernel."""
    import_host()
    import comfy.ldm.flux.model
    import comfy.ldm.modules.attention

    per_pixel = {"in_channels": PARAMS.in_channels // PATCH**2, "out_channels": PARAMS.out_channels // PATCH**2}
    spec = asdict(PARAMS) | per_pixel | {"axes_dim": list(PARAMS.axes_dim), "patch_size": PATCH}
    if any(field.name == "txt_ids_dims" for field in fields(comfy.ldm.flux.model.FluxParams)):  # newer hosts
        spec["txt_ids_dims"] = []
    network = comfy.ldm.flux.model.Flux(**spec, operations=nn)
    names = {spellings(name)[0]: name for name in network.state_dict()}
    network.load_state_dict({names[name]: value for name, value in ours.state_dict().items()}, strict=True)
    return network.eval().requires_grad_(False), comfy.ldm.modules.attention.attention_pytorch


def build_diffusers(ours: Flux) -> nn.Module:
    """diffusers' network. After `build_host`: torchvision loads as the host makes it."""
    from diffusers import FluxTransformer2DModel

    network = FluxTransformer2DModel(
        in_channels=PARAMS.in_channels,
        num_layers=PARAMS.depth,
        num_single_layers=PARAMS.depth_single_blocks,
        attention_head_dim=PARAMS.hidden_size // PARAMS.num_heads,
        num_attention_heads=PARAMS.num_heads,
        joint_attention_dim=PARAMS.context_in_dim,
        pooled_projection_dim=PARAMS.vec_in_dim,
        guidance_embeds=PARAMS.guidance_embed,
        axes_dims_rope=PARAMS.axes_dim,
    )
    network.load_state_dict(transformer_to_diffusers(ours.state_dict(), PARAMS), strict=True)
    return network.eval().requires_grad_(False)
