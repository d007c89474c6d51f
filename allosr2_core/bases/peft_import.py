"""Adapters that the peft library saved for diffusers' FLUX.1 networks, as LoRA tensors under our names.

An adapter is a folder with adapter_model.safetensors and adapter_config.json. One-step super-resolution is published
this way: OMGSR-F has one on FluxTransformer2DModel and one on the encoder of AutoencoderKL. Names, layout and scale are
those of peft 0.21 and diffusers 0.42; the tests compare outputs with both.

Layers that diffusers keeps apart and we keep as rows of one (q, k, v; in single blocks the way into the MLP too) give
one branch whose rank is the sum of theirs: A stacked, B block diagonal,

    [B_q A_q]   [B_q  0 ] [A_q]
    [   0   ] = [ 0   0 ] [A_v]     here k has no branch: its rows of B are zero and it takes no rank
    [B_v A_v]   [ 0  B_v]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..adapters.lora import ALPHA_KEY, DOWN_KEY, UP_KEY
from ..adapters.targets import HOST_ENCODER, HOST_FLOW, Shape
from ..adapters.weight_diff import listed
from ..errors import AlloSR2Error, shown
from ..networks.flux_transformer import Flux, FluxParams
from ..networks.kl_autoencoder import KLAutoencoder, KLAutoencoderParams
from .diffusers_names import SHIFT_SCALE, encoder_layer, transformer_parts
from .peft_folder import CONFIG_FILE, PeftFolder, read_folder

DECODER_NAMES = ("decoder.", "up_blocks.", "post_quant_conv")

# The schedule of FLUX.1-dev's scheduler config.
BASE_SHIFT, MAX_SHIFT, BASE_TOKENS, MAX_TOKENS = 0.5, 1.15, 256, 4096


def read_peft_transformer(folder: Path, params: FluxParams) -> dict[str, Tensor]:
    """The adapter of a FluxTransformer2DModel, for `lora.import_lora(flux, ..., "diffusion_model.")`.

    Args:
        folder: has adapter_model.safetensors and adapter_config.json.
        params: the architecture of the transformer it belongs to.

    Returns:
        For each adapted layer X of `Flux`: diffusion_model.X.lora_A.weight (rank, in), .lora_B.weight (out, rank), in
        the stored float type (float32 where parts of a fused layer differ in scale or type), and .alpha (), float32.

    Raises:
        AlloSR2Error: a file is missing or broken, has NaN or infinite values, asks for more than plain LoRA, or does
            not fit the transformer to the last key.
    """
    with torch.device("meta"):
        shapes = _layer_shapes(Flux(params))
    places = {}
    for layer, shape in shapes.items():
        names = transformer_parts(layer)
        widths = [params.hidden_size] * (len(names) - 1)  # q, k, v; the last part has the rest
        widths.append(shape[0] - sum(widths))
        for index, name in enumerate(names):
            places[name] = _Place(layer, first=sum(widths[:index]), shape=torch.Size((widths[index], *shape[1:])))
    return _named(_placed(read_folder(folder), places), shapes, HOST_FLOW)


def read_peft_encoder(folder: Path, params: KLAutoencoderParams) -> dict[str, Tensor]:
    """The adapter of AutoencoderKL's encoder, for `lora.import_lora(autoencoder.encoder, ..., "encoder.")`.

    It may have been saved from the encoder (OMGSR) or from the whole autoencoder with nothing but the encoder adapted.

    Args:
        folder: has adapter_model.safetensors and adapter_config.json.
        params: the architecture of the autoencoder it belongs to.

    Returns:
        For each adapted layer X of the encoder: encoder.X.lora_A.weight (rank, in, kh, kw), .lora_B.weight
        (out, rank, 1, 1), in the stored float type, and .alpha (), float32.

    Raises:
        AlloSR2Error: as `read_peft_transformer`; also when the decoder is adapted, for the decoder is the user's.
    """
    with torch.device("meta"):
        shapes = _layer_shapes(KLAutoencoder(params).encoder)
    adapter = read_folder(folder)
    decoder = [name for name in adapter.shapes if name.startswith(DECODER_NAMES)]
    if decoder:
        raise AlloSR2Error(
            f"{adapter.where}: expected the encoder alone; {len(decoder)} layers of a decoder: {listed(decoder)}"
        )
    outer = "encoder." if any(name.startswith("encoder.") for name in adapter.shapes) else ""
    places = {outer + encoder_layer(layer): _Place(layer, 0, shape) for layer, shape in shapes.items()}
    return _named(_placed(adapter, places), shapes, HOST_ENCODER)


def shifted_step_to_t(step: int, *, tokens: int = MAX_TOKENS, steps: int = 1000) -> float:
    """The time t of a step of FLUX's shifted schedule, as OMGSR-F counts them: 244 is t = 0.5051, 295 is t = 0.5696.

    Our reading, from OMGSR's public inference, training and search scripts (github.com/wuer5/OMGSR): the schedule is
    1000 times evenly from 1 to 0, *both included*, each shifted for 1024 px whatever the picture's size; a step counts
    from the clean end. So step k has sigma = k / 999 before the shift (not k / 1000, which is diffusers' own list of
    1000 and gives 0.5048), step 0 is data, step 999 noise, and

        t = e^mu / (e^mu + 1 / sigma - 1),   mu = 0.5 + (1.15 - 0.5) (tokens - 256) / (4096 - 256).

    Args:
        step: 0 to steps - 1.
        tokens: of the picture the schedule is shifted for, a token being 16 x 16 px; 4096 at 1024 px.
        steps: length of the schedule.

    Raises:
        AlloSR2Error: a number out of its range.
    """
    if steps < 2 or not 0 <= step < steps or tokens < 1:
        raise AlloSR2Error(
            f"expected a step below steps, steps >= 2 and tokens >= 1; got step {step}, steps {steps}, tokens {tokens}"
        )
    if step == 0:
        return 0.0
    mu = BASE_SHIFT + (MAX_SHIFT - BASE_SHIFT) * (tokens - BASE_TOKENS) / (MAX_TOKENS - BASE_TOKENS)
    return math.exp(mu) / (math.exp(mu) + ((steps - 1) / step - 1))


def _layer_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Weight shapes of all Linear and Conv2d by name."""
    return {name: m.weight.shape for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


@dataclass(frozen=True)
class _Place:
    """Where a layer of diffusers is in our network."""

    layer: str
    """Our layer."""
    first: int
    """Its first row there."""
    shape: torch.Size
    """Its weight's shape, (rows, in[, kh, kw])."""


@dataclass(frozen=True)
class _Part:
    """A branch on a layer of diffusers: scale * up(down(x))."""

    place: _Place
    down: Tensor
    up: Tensor
    scale: float


def _placed(adapter: PeftFolder, places: Mapping[str, _Place]) -> dict[str, list[_Part]]:
    """Our layer -> the branches that go into it, from its top row, read after checking names and shapes."""
    _check_fit(adapter, places)
    adapted: dict[str, list[_Part]] = {}
    pairs = adapter.read()
    for name, pair in sorted(pairs.items(), key=lambda item: places[item[0]].first):
        place = places[name]
        down, up = (half.reshape(_as_conv(tuple(half.shape), place)) for half in (pair["A"], pair["B"]))
        adapted.setdefault(place.layer, []).append(_Part(place, down, up, adapter.config.scale_of(name)))
    return adapted


def _check_fit(adapter: PeftFolder, places: Mapping[str, _Place]) -> None:
    pairs, where = adapter.shapes, adapter.where
    unknown = [name for name in pairs if name not in places]
    if unknown:
        raise AlloSR2Error(
            f"{where}: expected layers of the network given; {len(unknown)} of {len(pairs)} fit none: {listed(unknown)}"
        )
    misfits = []
    for name, pair in pairs.items():
        place, rank = places[name], adapter.config.rank_of(name)
        rows, *inner = place.shape
        wanted = {"A": (rank, *inner), "B": (rows, rank, *(1 for _ in inner[1:]))}
        for half, shape in wanted.items():
            if _as_conv(pair[half], place) != shape:
                misfits.append(f"{name}.lora_{half} {shown(_as_conv(pair[half], place))} for {shape}")
    if misfits:
        raise AlloSR2Error(
            f"{where}: expected the shapes of the network and the ranks of {CONFIG_FILE}; {len(misfits)} of "
            f"{2 * len(pairs)} halves differ: {listed(misfits)}"
        )


def _as_conv(half: Shape, place: _Place) -> Shape:
    """The shape of a half; diffusers' attention has linear layers where the encoder has 1x1 convolutions."""
    return (*half, 1, 1) if tuple(place.shape[2:]) == (1, 1) and len(half) == 2 else half


def _joined(parts: Sequence[_Part], rows: int) -> tuple[Tensor, Tensor, float]:
    """The branches of one layer with so many rows as one branch: its halves and its alpha."""
    dtypes = {half.dtype for part in parts for half in (part.down, part.up)}
    one_scale = len({part.scale for part in parts}) == 1
    dtype = dtypes.pop() if one_scale and len(dtypes) == 1 else torch.float32  # a scale folded in wants its digits
    down = torch.cat([part.down.to(dtype) for part in parts])
    up = torch.zeros(rows, down.shape[0], *parts[0].up.shape[2:], dtype=dtype)
    column = 0
    for part in parts:
        top, (height, rank) = part.place.first, part.up.shape[:2]
        block = part.up.to(dtype)
        up[top : top + height, column : column + rank] = block if one_scale else block * part.scale
        column += rank
    return down, up, column * (parts[0].scale if one_scale else 1.0)


def _named(adapted: Mapping[str, Sequence[_Part]], shapes: Mapping[str, torch.Size], prefix: str) -> dict[str, Tensor]:
    tensors = {}
    for layer, parts in adapted.items():
        down, up, alpha = _joined(parts, shapes[layer][0])
        if layer == SHIFT_SCALE:
            up = torch.cat(up.chunk(2)[::-1])
        tensors[prefix + layer + DOWN_KEY] = down
        tensors[prefix + layer + UP_KEY] = up
        tensors[prefix + layer + ALPHA_KEY] = torch.tensor(alpha, dtype=torch.float32)
    return tensors
