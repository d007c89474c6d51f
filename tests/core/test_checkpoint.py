"""The checkpoint file: what goes in comes out, and every kind of wrong file is refused with its reason."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from allosr2_core.checkpoint import format as module
from allosr2_core.checkpoint.format import (
    CONFIG_KEY,
    FORMAT_KEY,
    TRAINING_KEY,
    AlloSR2Config,
    load_checkpoint,
    save_checkpoint,
)
from allosr2_core.errors import AlloSR2Error
from allosr2_core.foreign_json import MOST_CHARACTERS
from allosr2_core.networks.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from allosr2_core.networks.registry import build_network
from allosr2_core.snr import SNRHead, SNRHeadParams
from tests.support.small_checkpoint import small_config


@dataclasses.dataclass(frozen=True)
class Parts:
    """The modules of a checkpoint, every weight random."""

    config: AlloSR2Config
    prior: nn.Module
    network: nn.Module
    autoencoder: PatchAutoencoder
    encoder: nn.Module
    snr_head: SNRHead

    def save(self, path: Path, training: dict[str, Any] | None = None, **options: Any) -> None:
        training = training or {"steps": 7, "note": "größer"}
        modules = {k: v for k, v in vars(self).items() if k != "config"}
        save_checkpoint(path, self.config, training, **modules, **options)


def shaken(network: nn.Module, amount: float = 0.05) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return network


@pytest.fixture
def parts() -> Parts:
    torch.manual_seed(0)
    config = small_config()
    prior, autoencoder = build_network(config.network), PatchAutoencoder(PatchAutoencoderParams(**config.autoencoder))
    shaken(prior), shaken(autoencoder)
    return Parts(
        config=config,
        prior=prior,
        network=shaken(copy.deepcopy(prior)),
        autoencoder=autoencoder,
        encoder=shaken(copy.deepcopy(autoencoder.encoder)),
        snr_head=SNRHead(SNRHeadParams(**config.snr_head)),
    )


def distance(one: nn.Module, two: nn.Module) -> float:
    """Largest difference of two state dicts of the same names."""
    ours, theirs = one.state_dict(), two.state_dict()
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


# ---- round trip ----


def test_round_trip_in_fp32(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path / "new" / "a.safetensors", dtype=torch.float32)
    loaded = load_checkpoint(tmp_path / "new" / "a.safetensors")
    assert loaded.config == dataclasses.replace(parts.config)
    assert loaded.training == {"steps": 7, "note": "größer"}
    assert distance(loaded.build_prior(), parts.prior) == 0.0
    assert distance(loaded.build_snr_head(), parts.snr_head) == 0.0
    assert distance(loaded.build_network(0.0), parts.prior) == 0.0
    assert distance(loaded.build_autoencoder(0.0), parts.autoencoder) == 0.0
    assert distance(loaded.build_network(), parts.network) < 2e-8  # one rounding of the sum
    assert distance(loaded.build_autoencoder().encoder, parts.encoder) < 2e-8
    assert distance(loaded.build_autoencoder().decoder, parts.autoencoder.decoder) == 0.0


def test_round_trip_in_fp16_is_rounded_once(parts: Parts, tmp_path: Path) -> None:
    """The difference is taken from the rounded prior, so the tuned weights carry the difference's rounding only."""
    parts.save(tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    prior, network = loaded.build_prior(), loaded.build_network()
    for name, value in parts.prior.state_dict().items():
        assert torch.equal(prior.state_dict()[name], value.half().float())
    for name, value in parts.network.state_dict().items():
        difference = (value - parts.prior.state_dict()[name].half().float()).abs()
        off = (network.state_dict()[name] - value).abs()
        assert bool((off <= difference * 2**-11 + 1e-7).all()), name
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
        assert file.metadata()["license"] == file.metadata()["modelspec.license"] == "Apache-2.0"


def test_a_record_that_could_not_be_read_is_not_written(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    for training, message in (
        ({"note": "x" * MOST_CHARACTERS}, "expected JSON of at most"),
        ({"loss": float("nan")}, "finite"),
    ):
        with pytest.raises(AlloSR2Error, match=rf"a\.safetensors: allosr2\.training: .*{message}"):
            parts.save(tmp_path / "a.safetensors", training=training)
    assert (tmp_path / "a.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_strength_scales_the_adapter(parts: Parts, tmp_path: Path, strength: float) -> None:
    parts.save(tmp_path / "a.safetensors", dtype=torch.float32)
    network = load_checkpoint(tmp_path / "a.safetensors").build_network(strength).state_dict()
    for name, base in parts.prior.state_dict().items():
        expected = base + strength * (parts.network.state_dict()[name] - base)
        torch.testing.assert_close(network[name], expected, atol=1e-6, rtol=0)


def test_built_networks_are_frozen_and_independent(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    before = {name: value.clone() for name, value in loaded.tensors.items()}
    one, two = loaded.build_network(), loaded.build_network()
    assert not one.training and not any(p.requires_grad for p in one.parameters())
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.fill_(9.0)
    assert distance(two, loaded.build_network()) == 0.0
    assert all(torch.equal(value, loaded.tensors[name]) for name, value in before.items())


# ---- saving ----


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    parts.save(path)
    old = path.read_bytes()

    def half_written(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "save_file", half_written)
    with pytest.raises(AlloSR2Error, match="could not be written: No space"):
        parts.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_weights_that_could_not_be_read_again_are_not_written(parts: Parts, tmp_path: Path) -> None:
    """A diverged run, or a value beyond fp16, must not replace a good file by one that is refused."""
    path = tmp_path / "a.safetensors"
    parts.save(path)
    old = path.read_bytes()
    for value in (float("nan"), 1e6):
        with torch.no_grad():
            next(parts.network.parameters()).flatten()[0] = value
        with pytest.raises(AlloSR2Error, match="finite"):
            parts.save(path)
        assert path.read_bytes() == old


def test_modules_that_do_not_fit_the_config_are_not_written(parts: Parts, tmp_path: Path) -> None:
    other = dataclasses.replace(parts, snr_head=SNRHead(SNRHeadParams(16, 4, 1)))
    with pytest.raises(AlloSR2Error, match="snr_head"):
        other.save(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---- wrong files ----


def test_files_that_are_no_checkpoints(parts: Parts, tmp_path: Path) -> None:
    parts.save(tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    contents = {
        "empty": b"",
        "text": b"not weights" * 20,
        "short": good[:4],
        "header only": good[:200],
        "truncated": good[:-100],
        "longer": good + b"\0" * 64,
        "pickle": pickle.dumps({"state_dict": {"w": [1.0, 2.0]}}),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(AlloSR2Error, match=rf"^{name}\.safetensors: expected a"):
            load_checkpoint(path)
    torch.save({"w": torch.zeros(3)}, tmp_path / "torch.safetensors")
    for path in (tmp_path / "torch.safetensors", tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(AlloSR2Error, match="expected a"):
            load_checkpoint(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    for metadata in (None, {"format": "pt"}, {"modelspec.architecture": "flux-1-dev/lora"}):
        save_file({"lora_unet.alpha": torch.tensor(1.0)}, path, metadata=metadata)
        with pytest.raises(AlloSR2Error, match="this is another file"):
            load_checkpoint(path)


Change = Callable[[dict[str, Tensor], dict[str, str]], None]


def in_config(**changes: Any) -> Change:
    """Replace keys of the configuration; a value of None drops the key, a function maps the old value."""

    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        config = json.loads(metadata[CONFIG_KEY])
        for key, value in changes.items():
            if value is None:
                del config[key]
            else:
                config[key] = value(config[key]) if callable(value) else value
        metadata[CONFIG_KEY] = json.dumps(config)

    return change


NAME = "flow.conv_in.weight"
WRONG: dict[str, tuple[Change, str]] = {
    "newer format": (lambda _, m: m.update({FORMAT_KEY: "2"}), "expected allosr2.format 1; got '2'"),
    "format in words": (lambda _, m: m.update({FORMAT_KEY: "one"}), "got 'one'"),
    "no config": (lambda _, m: m.pop(CONFIG_KEY), "expected JSON"),
    "broken config": (lambda _, m: m.update({CONFIG_KEY: "{"}), "expected JSON"),
    "config is a list": (lambda _, m: m.update({CONFIG_KEY: "[1]"}), "expected JSON objects"),
    "broken training": (lambda _, m: m.update({TRAINING_KEY: "nan,"}), "expected JSON"),
    "unknown key": (in_config(t_maximum=0.5), "unknown.*'t_maximum'"),
    "missing key": (in_config(t_min=None), "missing t_min"),
    "t_star out of range": (in_config(t_star=0.9), "t_star <= t_max"),
    "t_star NaN": (in_config(t_star=float("nan")), "expected finite numbers; got NaN"),
    "t_star text": (in_config(t_star="0.2"), "t_star: expected float; got '0.2'"),
    "base number": (in_config(base=5), "base: expected str; got 5"),
    "t_method": (in_config(t_method="paired"), "t_method must be one of"),
    "init": (in_config(init="noise"), "init must be one of"),
    "tile": (in_config(tile_size=0), "tile_size: expected at least 1"),
    "latent scale": (in_config(latent_scale=0.0), "latent_scale"),
    "network is text": (in_config(network="unet"), "network: expected a table; got 'unet'"),
    "network type": (in_config(network=lambda n: {**n, "type": "dit"}), "network: expected type"),
    "network key": (in_config(network=lambda n: {**n, "dropout": 0}), "unknown.*'dropout'"),
    "network float": (in_config(network=lambda n: {**n, "channels": [16.5, 24]}), "channels"),
    "autoencoder list": (in_config(autoencoder=[4, 16]), r"autoencoder: expected a table; got \[4, 16\]"),
    "autoencoder key": (in_config(autoencoder=lambda a: {**a, "depth": 2}), "unknown.*'depth'"),
    "head": (in_config(snr_head=lambda h: {**h, "hidden": "8"}), "hidden: expected int; got '8'"),
    "head width": (
        in_config(snr_head=lambda h: {**h, "hidden": 0}),
        "snr_head.hidden: expected at",
    ),
    "autoencoder blocks": (
        in_config(autoencoder=lambda a: {**a, "blocks": -1}),
        "blocks: expected at",
    ),
    "channels disagree": (in_config(latent_channels=12), "latent_channels"),
    "downscale disagrees": (in_config(latent_downscale=8), "latent_downscale"),
    "missing tensor": (lambda t, _: t.pop(NAME), f"missing: {NAME}"),
    "extra tensor": (lambda t, _: t.update({"flow.extra": torch.zeros(())}), "not expected: flow.extra"),
    "shape": (lambda t, _: t.update({NAME: t[NAME][:, :-1].clone()}), f"{NAME}: expected shape"),
    "dtype": (lambda t, _: t.update({NAME: t[NAME].double()}), f"{NAME}: expected F16, BF16 or F32; got F64"),
    "integers": (lambda t, _: t.update({NAME: t[NAME].to(torch.int8)}), f"{NAME}: expected F16, BF16 or F32"),
    "NaN": (lambda t, _: t[NAME].view(-1)[3:4].fill_(float("nan")), f"NaN or infinite values in {NAME}"),
    "infinite": (lambda t, _: t[NAME].view(-1)[3:4].fill_(float("-inf")), f"NaN or infinite values in {NAME}"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_checkpoint_with_one_thing_wrong_is_refused(parts: Parts, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    parts.save(path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    change, reason = WRONG[kind]
    save_file(tensors, path, metadata=metadata)
    load_checkpoint(path)  # the way through load_file and save_file is not what is refused
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(AlloSR2Error, match=reason) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith("a.safetensors: ")


def test_bf16_and_mixed_files_are_read(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    parts.save(path, dtype=torch.bfloat16)
    loaded = load_checkpoint(path)
    assert {value.dtype for value in loaded.tensors.values()} == {torch.float32}
    assert distance(loaded.build_prior(), parts.prior) < 0.01
