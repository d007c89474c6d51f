"""A network and a base are one file each: nothing else has to know them for checkpoints, files and pictures."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from allosr2_core.adapters import lora
from allosr2_core.adapters.targets import HOST_ENCODER, HOST_FLOW
from allosr2_core.bases.registry import BASES, FAMILIES, base_name, read_base, recognise, title_of
from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.checkpoint.contents import LORA_ENCODER, LORA_FLOW, NULL
from allosr2_core.checkpoint.format import load_checkpoint, write_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.autoencoders import autoencoder_params, build_autoencoder
from allosr2_core.networks.registry import build_network
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.added_file import TOY_BASE, TOY_NETWORK, added_file
from tests.support.lora_network import fill
from tests.support.small_checkpoint import CHANNELS, save_small_checkpoint, small_config

PICTURE = torch.rand(1, 20, 30, 3, generator=torch.Generator().manual_seed(1))


def test_a_network_is_one_file(tmp_path: Path) -> None:
    path, spec = tmp_path / "toy.safetensors", {"type": "toy", "latent_channels": CHANNELS, "width": 8}
    with added_file("allosr2_core.networks", tmp_path, TOY_NETWORK):
        save_small_checkpoint(path, config=dataclasses.replace(small_config(), network=spec))
        checkpoint = load_checkpoint(path)
        assert checkpoint.config.is_local_flow and checkpoint.config.patch_cells == 2
        tuned, prior = (Pipeline.from_checkpoint(checkpoint, strength).upscale(PICTURE) for strength in (1.0, 0.0))
        assert tuned.shape == (1, 80, 120, 3) and not torch.equal(tuned, prior)
        with pytest.raises(AlloSR2Error, match="network: unknown key 'widht'; did you mean 'width'"):
            build_network({"type": "toy", "latent_channels": CHANNELS, "widht": 8})
        with (
            pytest.raises(ValueError, match="'toy' is taken"),
            added_file("allosr2_core.networks", tmp_path, TOY_NETWORK),
        ):
            pass
    with pytest.raises(AlloSR2Error, match="expected type to be one of flux, unet; got 'toy'"):
        load_checkpoint(path)


@pytest.fixture
def toy_base(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files of a toy base, as a host may have saved it, and an adapter for it."""
    with added_file("allosr2_core.bases", tmp_path, TOY_BASE):
        torch.manual_seed(0)
        base = BASES["toy-1"]
        network, autoencoder = build_network(base.network), build_autoencoder(autoencoder_params(base.autoencoder))
        saved = {
            name.replace("toy_gain.scale", "toy_gain.weight"): v for name, v in network.adapted.state_dict().items()
        }
        save_file(saved, tmp_path / "transformer.safetensors")
        save_file(autoencoder.state_dict(), tmp_path / "ae.safetensors")
        config = AlloSR2Config(
            base=base_name(base.network),
            network=base.network,
            autoencoder=base.autoencoder,
            adapter={"transformer": ["toy_in"], "vae_encoder": ["conv_in"]},
            snr_head={},
            init="aligned",
            t_star=0.3,
            t_min=0.1,
            t_max=0.5,
            t_method="calibrated",
            scale=4,
            trained_size=64,
            tile_size=64,
            latent_channels=4,
            latent_downscale=2,
            latent_scale=0.4,
            latent_shift=0.1,
        )
        tensors = {NULL + "context": torch.ones(1, 5, 3), NULL + "pooled": torch.zeros(1, 2)}
        parts = (
            (network, "transformer", LORA_FLOW, HOST_FLOW),
            (autoencoder, "vae_encoder", LORA_ENCODER, HOST_ENCODER),
        )
        for part, name, group, prefix in parts:
            lora.inject(part.adapted, config.adapter[name], rank=2, alpha=2.0)
            fill(part.adapted)
            tensors |= {group + key: value for key, value in lora.export_lora(part.adapted, prefix).items()}
        path = tmp_path / "adapter.safetensors"
        write_checkpoint(path, config, {}, tensors, dtype=torch.float32, title="Toy", license=base.license)
        yield tmp_path


def test_a_base_is_one_file(toy_base: Path) -> None:
    checkpoint = load_checkpoint(toy_base / "adapter.safetensors")
    assert (checkpoint.config.base, title_of("toy-1")) == ("toy-1", "Toy 1")
    assert not checkpoint.config.only_host_network and not checkpoint.config.is_local_flow

    def pipeline(strength: float) -> Pipeline:
        base = read_base(checkpoint.config, toy_base / "transformer.safetensors", toy_base / "ae.safetensors")
        return Pipeline.from_adapter(checkpoint, *base, strength)

    tuned, plain = (pipeline(strength).upscale(PICTURE, UpscaleOptions(scale=4.0)) for strength in (1.0, 0.0))
    assert tuned.shape == (1, 80, 120, 3) and not torch.equal(tuned, plain)


@pytest.mark.parametrize("gain", ["scale", "weight"])
def test_a_hosts_model_of_it_is_recognised(toy_base: Path, gain: str) -> None:
    assert recognise({"toy_in.weight": (8, 4), f"toy_gain.{gain}": (8,)}) == "toy-base"
    assert recognise({"toy_in.weight": (8, 4)}) is None


def test_what_a_file_registered_is_forgotten() -> None:
    assert "toy-base" not in FAMILIES and "toy-1" not in BASES
