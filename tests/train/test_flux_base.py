"""An adapter on files of a FLUX.1-class base: the real stage on random tiny weights, and the shipped configurations."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from allosr2_core.adapters import lora
from allosr2_core.networks.flux import NullFlux
from tests.support.lora_network import branches
from tests.support.tiny_base import CONFIGS, base_table
from tests.support.tiny_training import to_toml, write_photos
from train.__main__ import main
from train.config import Config
from train.config_file import from_table, load_config
from train.models.build import build_autoencoder, build_velocity, load_autoencoder, load_velocity
from train.stages.sr import SRStage


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
def test_three_steps_on_a_base(tmp_path: Path, guidance: bool) -> None:
    """By the command: branches learn, the base stays what its files say, and only branches are saved."""
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    table = base_table(tmp_path, guidance=guidance)
    config = tmp_path / "flux.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    assert main(["sr", "--config", str(config), "--max-steps", "2"]) == 0
    assert main(["sr", "--config", str(config)]) == 0
    state = torch.load(tmp_path / "run" / "sr" / "state.pt", weights_only=True)
    assert state["step"] == 3
    assert all(".lora." in name or name.startswith("snr_head.") for name in state["trained"])
    moved = [name for name, value in state["trained"].items() if name.endswith("lora.up.weight") and bool(value.any())]
    assert any(name.startswith("velocity.velocity.flux.double_blocks.0.img_attn.qkv") for name in moved)
    assert any(name.startswith("velocity.velocity.flux.single_blocks.0.linear2") for name in moved)
    assert any(name.startswith("encoder.mid.attn_1.q") for name in moved)
    assert main(["snr_head", "--config", str(config)]) == 0
    head = torch.load(tmp_path / "run" / "snr_head" / "state.pt", weights_only=True)["trained"]
    assert any(not torch.equal(value, state["trained"][name]) for name, value in head.items())
    assert head.keys() == {name for name in state["trained"] if name.startswith("snr_head.")}


def test_the_prior_is_the_base_with_its_branches_off(tmp_path: Path) -> None:
    write_photos(tmp_path, "train", [(100, 140)])
    write_photos(tmp_path, "val", [(80, 70)])
    config = from_table(Config, base_table(tmp_path, guidance=True), "x")
    stage, base, autoencoder = SRStage(config), load_velocity(config), load_autoencoder(config)
    for branch in branches(stage.velocity.network.velocity.flux).values():
        torch.nn.init.normal_(branch.up.weight)
    for branch in branches(stage.autoencoder.network.encoder).values():
        torch.nn.init.normal_(branch.up.weight)
    z, t, x = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.6]), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(stage.prior(z, t), base(z, t), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(stage.velocity.network(z, t), base(z, t), atol=1e-3)
        torch.testing.assert_close(stage.encode_hr(x), autoencoder.encode(x), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(stage.autoencoder.network.encode(x), autoencoder.encode(x), atol=1e-3)
    trained = {id(p) for p in stage.trained.parameters() if p.requires_grad}
    grouped = [id(p) for group in stage.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer": "none.safetensors"}, "expected a safetensors file at none.safetensors"),
        ({"transformer": "AE"}, "expected the tensors of the configured network; missing: .* not expected: "),
    ],
)
def test_bases_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, "val", [(80, 70)])
    table = base_table(tmp_path, guidance=False)
    table["base"] |= {k: v.replace("AE", table["base"]["autoencoder"]) for k, v in change.items()}
    config = tmp_path / "flux.toml"
    config.write_text(to_toml(table), encoding="utf-8")
    assert main(["sr", "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert main(["prior", "--config", str(config)]) == 1
    assert "expected no base for a prior of one's own" in capsys.readouterr().err


def test_a_null_conditioning_from_a_file(tmp_path: Path) -> None:
    table = base_table(tmp_path, guidance=False)
    null = {"context": torch.randn(1, 5, 8), "pooled": torch.randn(1, 8)}
    save_file(null, tmp_path / "null.safetensors")
    table["base"]["null"] = str(tmp_path / "null.safetensors")
    network = load_velocity(from_table(Config, table, "x"))
    assert isinstance(network, NullFlux)
    assert torch.equal(network.null_context, null["context"]) and torch.equal(network.null_pooled, null["pooled"])


@pytest.mark.parametrize(("name", "parameters"), [("flux1_dev", 11.90e9), ("flux1_schnell", 11.89e9)])
def test_the_shipped_configurations_describe_flux1(name: str, parameters: float) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    with torch.device("meta"):
        network, autoencoder = build_velocity(config), build_autoencoder(config)
        flux = network.velocity.flux
        assert sum(p.numel() for p in flux.parameters()) == pytest.approx(parameters, rel=1e-3)
        assert sum(p.numel() for p in autoencoder.parameters()) == pytest.approx(83.8e6, rel=1e-2)
    adapted = lora.inject(flux, config.adapter.transformer, config.adapter.rank, config.adapter.alpha)
    assert len(adapted) == 19 * 8 + 38 * 2
    assert len(lora.inject(autoencoder.encoder, config.adapter.encoder, config.adapter.rank, 64.0)) > 20
    assert (config.adapter.rank, config.stages.sr.optim.batch, config.stages.sr.optim.steps) == (64, 16, 10_000)
    assert config.data.crop == 512
