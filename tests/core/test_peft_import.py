"""Adapters saved by peft on diffusers' networks give the same outputs on ours; a step of the schedule is its time."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from allosr2_core.adapters import lora
from allosr2_core.bases.peft_import import read_peft_encoder, read_peft_transformer, shifted_step_to_t
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import Flux, FluxParams, token_ids
from allosr2_core.networks.kl_autoencoder import KLAutoencoder, KLAutoencoderParams
from tests.support.lora_network import branches
from tests.support.peft_folders import FLUX, VAE

from .peers import Peers, randomize

TOLERANCE = 1e-4
ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_add_out"]
ATTENTION += ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]
MLP = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
OMGSR = ["x_embedder", *ATTENTION, *MLP]
EVERY = [*OMGSR, "context_embedder", "linear_1", "linear_2", "proj_mlp", "proj_out"]
EVERY += ["norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear"]
OMGSR_ENCODER = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0"]
PATTERNS = {
    "rank_pattern": {"to_q": 6, r"single_transformer_blocks\.\d+\.proj_mlp": 2, "^x_embedder": 3},
    "alpha_pattern": {"to_k": 3.0, "transformer_blocks.1.ff.net.2": 1.5, "attn.to_[qv]": 4.0},
}


def plain(params: FluxParams | KLAutoencoderParams) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(params).items()}


def flux(params: FluxParams = FLUX) -> Flux:
    network = Flux(params)
    randomize(network, seed=7)
    return network


def autoencoder() -> KLAutoencoder:
    network = KLAutoencoder(VAE)
    randomize(network, seed=11)
    return network


def same(ours: Tensor, theirs: Tensor, without: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (theirs - without).abs().mean() > 0.05, "an adapter this weak would make the comparison empty"
    assert (ours - theirs).abs().max().item() <= TOLERANCE


Save = Callable[..., dict[str, Any]]


@pytest.fixture
def save_flux(peers: Peers, tmp_path: Path) -> Save:
    """Has peft adapt diffusers' transformer and save under tmp_path / "flux_adapter"; gives outputs and inputs."""

    def save(params: FluxParams = FLUX, **config: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(3)
        ids = token_ids(2, 3, 4, 3, torch.device("cpu"))
        inputs = {
            "hidden_states": torch.randn(2, 12, 16, generator=generator),
            "encoder_hidden_states": torch.randn(2, 5, 20, generator=generator),
            "pooled_projections": torch.randn(2, 12, generator=generator),
            "timestep": torch.tensor([0.5051, 0.9]),
            "img_ids": ids[0],
            "txt_ids": torch.zeros(5, 3),
            "guidance": torch.tensor([1.0, 3.5]) if params.guidance_embed else None,
        }
        job = {"params": plain(params), "state": flux(params).state_dict(), "inputs": inputs}
        job |= {"lora": config, "folder": str(tmp_path), "adapter": "flux_adapter"}
        return peers.ask("peft_flux", **job) | {"inputs": inputs}

    return save


def run(network: Flux, inputs: dict[str, Tensor]) -> Tensor:
    return network(
        img_BLF=inputs["hidden_states"],
        img_ids_BLA=inputs["img_ids"].expand(2, -1, -1),
        txt_BLC=inputs["encoder_hidden_states"],
        txt_ids_BLA=inputs["txt_ids"].expand(2, -1, -1),
        timesteps_B=inputs["timestep"],
        y_BV=inputs["pooled_projections"],
        guidance_B=inputs["guidance"],
    )


def check(saved: dict[str, Any], folder: Path, params: FluxParams = FLUX) -> tuple[Flux, dict[str, Tensor]]:
    network, tensors = flux(params), read_peft_transformer(folder, params)
    lora.import_lora(network, tensors, "diffusion_model.")
    assert lora.export_lora(network, "diffusion_model.").keys() == tensors.keys()
    same(run(network, saved["inputs"]), saved["v"], saved["plain"])
    return network, tensors


@pytest.mark.parametrize("guidance", [True, False])
def test_every_layer_of_the_transformer(save_flux: Save, tmp_path: Path, guidance: bool) -> None:
    params = replace(FLUX, guidance_embed=guidance)
    saved = save_flux(params, r=4, lora_alpha=6, target_modules=EVERY)
    network, _ = check(saved, tmp_path / "flux_adapter", params)
    layers = {name for name, module in flux(params).named_modules() if isinstance(module, torch.nn.Linear)}
    assert branches(network).keys() == layers


def test_the_layers_omgsr_adapts(save_flux: Save, tmp_path: Path) -> None:
    saved = save_flux(r=4, lora_alpha=4, target_modules=OMGSR)
    _, tensors = check(saved, tmp_path / "flux_adapter")
    assert tensors["diffusion_model.single_blocks.1.linear1.lora_A.weight"].shape == (12, 64)
    assert not any("linear2" in key or "mod" in key.removeprefix("diffusion_model.") for key in tensors)


def test_parts_of_a_fused_layer(save_flux: Save, tmp_path: Path) -> None:
    """No rank for k and the MLP; their rows of B are zero."""
    saved = save_flux(r=4, lora_alpha=8, target_modules=["attn.to_q", "attn.to_v"])
    _, tensors = check(saved, tmp_path / "flux_adapter")
    assert len(tensors) == 3 * (2 + 2)
    for layer, rows in (("double_blocks.0.img_attn.qkv", 192), ("single_blocks.0.linear1", 448)):
        up = tensors[f"diffusion_model.{layer}.lora_B.weight"]
        assert up.shape == (rows, 8)
        assert not up[64:128].any() and not up[192:].any()
        assert up[:64, :4].any() and not up[:64, 4:].any()
        assert up[128:192, 4:].any() and not up[128:192, :4].any()
        assert tensors[f"diffusion_model.{layer}.alpha"] == 16


def test_ranks_and_alphas_of_their_own(save_flux: Save, tmp_path: Path) -> None:
    saved = save_flux(r=4, lora_alpha=8, target_modules=EVERY, **PATTERNS)
    _, tensors = check(saved, tmp_path / "flux_adapter")
    ranks = {key: tensor.shape[0] for key, tensor in tensors.items() if key.endswith("lora_A.weight")}
    assert ranks["diffusion_model.double_blocks.1.img_attn.qkv.lora_A.weight"] == 6 + 4 + 4
    assert ranks["diffusion_model.double_blocks.1.txt_attn.qkv.lora_A.weight"] == 4 + 4 + 4
    assert ranks["diffusion_model.single_blocks.0.linear1.lora_A.weight"] == 6 + 4 + 4 + 2
    assert ranks["diffusion_model.img_in.lora_A.weight"] == 3
    alphas = {key: float(tensor) for key, tensor in tensors.items() if key.endswith("alpha")}
    assert alphas["diffusion_model.double_blocks.1.img_mlp.2.alpha"] == 1.5
    assert alphas["diffusion_model.double_blocks.0.img_mlp.2.alpha"] == 8.0
    assert alphas["diffusion_model.double_blocks.1.img_attn.qkv.alpha"] == 14.0  # scales differ: they are in B


def test_rank_stabilized_scale(save_flux: Save, tmp_path: Path) -> None:
    saved = save_flux(r=4, lora_alpha=3, use_rslora=True, target_modules=EVERY, rank_pattern={"to_q": 9})
    _, tensors = check(saved, tmp_path / "flux_adapter")
    assert tensors["diffusion_model.img_in.alpha"] == 4 * 3 / 2


@pytest.mark.parametrize(
    ("whole", "config"),
    [
        (False, {"target_modules": OMGSR_ENCODER}),
        (False, {"target_modules": ["to_q", "conv_shortcut"], "rank_pattern": {"to_q": 3}, "use_rslora": True}),
        (True, {"target_modules": r"encoder\.(.*\.)?(conv(1|2|_in|_out|_shortcut)?|to_[qkv]|to_out\.0)"}),
    ],
    ids=["omgsr", "some", "whole"],
)
def test_the_encoder(peers: Peers, tmp_path: Path, whole: bool, config: dict[str, Any]) -> None:
    picture = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    job = {"params": plain(VAE), "state": autoencoder().state_dict(), "x": picture, "whole": whole}
    job |= {"lora": {"r": 4, "lora_alpha": 4} | config, "folder": str(tmp_path), "adapter": "vae_encoder_adapter"}
    answer = peers.ask("peft_autoencoder", **job)
    network, tensors = autoencoder(), read_peft_encoder(tmp_path / "vae_encoder_adapter", VAE)
    lora.import_lora(network.encoder, tensors, "encoder.")
    raw = network.encode(picture) / VAE.scale_factor + VAE.shift_factor
    same(raw, answer["raw"], answer["plain"])
    if "rank_pattern" not in config:
        layers = (torch.nn.Linear, torch.nn.Conv2d)
        every = {name for name, module in autoencoder().encoder.named_modules() if isinstance(module, layers)}
        assert branches(network.encoder).keys() == every


def test_refuses_an_adapted_decoder(peers: Peers, tmp_path: Path) -> None:
    job = {"params": plain(VAE), "state": autoencoder().state_dict(), "x": torch.zeros(1, 3, 8, 8), "whole": True}
    job |= {"lora": {"r": 2, "target_modules": ["conv1"]}, "folder": str(tmp_path), "adapter": "vae"}
    peers.ask("peft_autoencoder", **job)
    with pytest.raises(AlloSR2Error, match=r"11 layers of a decoder: decoder\.mid_block\.resnets\.0\.conv1"):
        read_peft_encoder(tmp_path / "vae", VAE)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora = true"),
        ({"bias": "lora_only"}, 'bias = "lora_only"'),
        ({"lora_bias": True}, "lora_bias = true"),
        ({"modules_to_save": ["proj_out"]}, r'modules_to_save = \["proj_out"\]'),
    ],
    ids=str,
)
def test_refuses_what_peft_saves_beyond_plain_lora(
    save_flux: Save, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    save_flux(r=2, target_modules=["to_q"], **config)
    with pytest.raises(AlloSR2Error, match=named):
        read_peft_transformer(tmp_path / "flux_adapter", FLUX)


# --- the schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [4096, 1024, 256])
def test_steps_are_times_of_the_schedule_of_diffusers(peers: Peers, tokens: int) -> None:
    evenly = torch.linspace(1, 0, 1000, dtype=torch.float64)[:-1].tolist()  # the scheduler itself ends with zero
    times = peers.ask("diffusers_schedule", sigmas=evenly, tokens=tokens)["t"]
    assert len(times) == 1000
    for step in (0, 1, 244, 295, 433, 998, 999):
        assert shifted_step_to_t(step, tokens=tokens) == pytest.approx(float(times[-(step + 1)]), abs=1e-6)


def test_the_step_of_omgsr(peers: Peers) -> None:
    assert shifted_step_to_t(244) == pytest.approx(0.505112, abs=1e-6)
    assert (shifted_step_to_t(0), shifted_step_to_t(999)) == (0.0, 1.0)
    own = peers.ask("diffusers_schedule", steps=1000, tokens=4096)["t"]  # diffusers' own list: 1000 steps, then zero
    assert float(own[-(244 + 1)]) == pytest.approx(0.5048, abs=1e-4)


@pytest.mark.parametrize("wrong", [{"step": -1}, {"step": 1000}, {"step": 0, "tokens": 0}, {"step": 0, "steps": 1}])
def test_refuses_steps_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(AlloSR2Error, match="expected a step below steps"):
        shifted_step_to_t(**wrong)
