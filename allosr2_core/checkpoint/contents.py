"""What is in a checkpoint file: the tensors that one of a configuration must have, by name and shape.

Tensors, by prefix (names behind `lora.transformer.` and `lora.vae_encoder.` are ones the host's LoRA loader accepts):

    flow.*               the generative prior (standalone files only)
    vae.*                the autoencoder (likewise)
    lora.transformer.*   what the SR flow adds to the prior: `diffusion_model.X.diff`, `diffusion_model.X.diff_b`; in
                         adapters `diffusion_model.X.lora_A.weight`, `.lora_B.weight`, `.alpha`
    lora.vae_encoder.*   what it adds to the encoder: `encoder.X.diff` ... or `encoder.X.lora_A.weight` ...
    snr_head.*           the head that predicts log rho (adapters may come without)
    null.*               `context` (1, T, D) and `pooled` (1, V): the empty prompt of an adapter (likewise)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..adapters.targets import HOST_ENCODER, HOST_FLOW, Shape, adapter_shapes
from ..adapters.weight_diff import diff_names
from ..bases.registry import FAMILIES
from ..dataclass_reader import read_dataclass
from ..errors import AlloSR2Error, shown
from ..networks.autoencoders import Autoencoder, autoencoder_params, build_autoencoder
from ..networks.registry import VelocityNetwork, build_network
from ..snr import SNRHead, SNRHeadParams
from .config import AlloSR2Config

FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD = "flow.", "vae.", "lora.transformer.", "lora.vae_encoder.", "snr_head."
NULL = "null."
GROUPS = (FLOW, VAE, LORA_FLOW, LORA_ENCODER, HEAD, NULL)


def expected_tensors(config: AlloSR2Config, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of every tensor a file with this configuration must have; nothing is allocated.

    found: shapes in the file. Of these only what the configuration leaves open is taken: an adapter's ranks, and
    whether it has an empty prompt, of how many tokens.
    """
    expected: dict[str, Shape] = {}
    with torch.device("meta"):
        network = None if config.only_host_network else build_network(config.network)
        autoencoder = (
            None if config.only_host_autoencoder else build_autoencoder(autoencoder_params(config.autoencoder))
        )
        if config.snr_head:
            head = SNRHead(read_dataclass(SNRHeadParams, config.snr_head, "snr_head"))
            expected |= _shapes(head, HEAD)
    if config.adapter:
        return expected | _expected_of_adapter(config, network, autoencoder, found)
    if network is None or autoencoder is None or not config.is_local_codec:
        raise AlloSR2Error("expected a standalone file to have a network and a patch autoencoder of its own")
    expected |= _shapes(network, FLOW) | _shapes(autoencoder, VAE)
    expected |= {LORA_FLOW + k: v for k, v in _diff_shapes(network, HOST_FLOW).items()}
    return expected | {LORA_ENCODER + k: v for k, v in _diff_shapes(autoencoder.encoder, HOST_ENCODER).items()}


def _expected_of_adapter(
    config: AlloSR2Config,
    network: VelocityNetwork | None,
    autoencoder: Autoencoder | None,
    found: Mapping[str, Shape],
) -> dict[str, Shape]:
    """Without a network or an autoencoder, which then only a host can build, their part of the file says itself."""
    if network is not None and not network.null:
        kind = shown(config.network.get("type"))
        raise AlloSR2Error(f"expected an adapter's network to be of type {', '.join(FAMILIES)}; got {kind}")
    transformer = None if network is None else network.adapted
    encoder = None if autoencoder is None else autoencoder.adapted
    parts = (
        (transformer, "transformer", LORA_FLOW + HOST_FLOW),
        (encoder, "vae_encoder", LORA_ENCODER + HOST_ENCODER),
    )
    expected: dict[str, Shape] = {}
    for part, name, prefix in parts:
        expected |= adapter_shapes(part, config.adapter[name], prefix, found)
    context, pooled = found.get(NULL + "context"), found.get(NULL + "pooled")
    if context is None and pooled is None:
        return expected
    if network is None:
        return expected | {NULL + "context": context or (), NULL + "pooled": pooled or ()}
    tokens = context[1] if context and len(context) > 1 else 0
    widths = {name: value.shape[-1] for name, value in network.null.items()}
    return expected | {NULL + "context": (1, tokens, widths["context"]), NULL + "pooled": (1, widths["pooled"])}


def _shapes(module: nn.Module, prefix: str) -> dict[str, Shape]:
    return {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}


def _diff_shapes(module: nn.Module, prefix: str) -> dict[str, Shape]:
    parameters = dict(module.named_parameters())
    return {key: tuple(parameters[name].shape) for key, name in diff_names(module, prefix).items()}
