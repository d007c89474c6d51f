"""From files of a base to an adapter file and back onto the base: the core's picture is the trainer's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allosr2_core.bases.registry import read_base
from allosr2_core.checkpoint.format import Checkpoint, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline
from tests.support.lora_network import branches
from tests.support.tiny_base import base_table
from tests.support.tiny_training import to_toml, write_photos
from train.__main__ import main
from train.config_file import load_config
from train.data.crops import bicubic_up
from train.loop.state import load_export
from train.models.trainable import trainable_networks


@pytest.fixture(scope="module", params=[True, False], ids=["dev", "schnell"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter (out.safetensors), its base and its configuration."""
    root = tmp_path_factory.mktemp("adapter")
    write_photos(root, "train", [(100, 140)])
    write_photos(root, "val", [(80, 70)])
    table = base_table(root, guidance=request.param)
    table["stages"]["sr"]["optim"] |= {"lr": 0.05, "warmup": 0}
    (root / "flux.toml").write_text(to_toml(table), encoding="utf-8")
    assert main(["sr", "--config", str(root / "flux.toml")]) == 0
    command = ["export", "--config", str(root / "flux.toml"), "--out", str(root / "out.safetensors"), "--pairs", "3"]
    assert main(command) == 0
    return root


def on_base(root: Path, strength: float = 1.0) -> tuple[Checkpoint, Pipeline]:
    checkpoint = load_checkpoint(root / "out.safetensors")
    base = read_base(checkpoint.config, root / "transformer.safetensors", root / "ae.safetensors")
    return checkpoint, Pipeline.from_adapter(checkpoint, *base, strength)


def test_the_core_computes_what_was_trained(trained: Path) -> None:
    checkpoint, upscaler = on_base(trained)
    config = load_config(trained / "flux.toml")
    velocity, autoencoder = trainable_networks(config)
    parts = {"velocity": velocity.network, "encoder": autoencoder.network.encoder}
    for name, module in parts.items():
        load_export(module, trained / "run" / "sr" / f"{name}.safetensors")
    z, t, lr = torch.randn(1, 4, 6, 8), torch.tensor([0.4]), torch.rand(1, 3, 10, 12)
    pixels = bicubic_up(lr, 4).mul(2).sub(1)
    with torch.no_grad():
        v, encoded = velocity.network(z, t), autoencoder.network.encode(pixels)
        # the file holds halves in fp16
        torch.testing.assert_close(upscaler.backend.velocity(z, t), v, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(upscaler.backend.encode(pixels), encoded, atol=5e-3, rtol=5e-3)
        with velocity.original() as prior, autoencoder.original() as original:
            assert (prior(z, t) - v).abs().mean() > 0.02
            assert (original.encode(pixels) - encoded).abs().mean() > 0.02
    assert set(branches(velocity.network.adapted)) == {
        name.removeprefix("diffusion_model.").removesuffix(".alpha")
        for name in checkpoint.group("lora.transformer.")
        if name.endswith(".alpha")
    }


def test_strength_scales_both_parts(trained: Path) -> None:
    z, t, x = torch.randn(1, 4, 4, 4), torch.tensor([0.3]), torch.rand(1, 3, 16, 16)
    at = {strength: on_base(trained, strength)[1].backend for strength in (0.0, 0.5, 1.0)}
    checkpoint = load_checkpoint(trained / "out.safetensors")
    _, autoencoder = read_base(checkpoint.config, trained / "transformer.safetensors", trained / "ae.safetensors")
    with torch.no_grad():
        assert torch.allclose(at[0.0].encode(x), autoencoder.encode(x), atol=1e-5)
        encoded = [at[s].encode(x) for s in at]
        moved = [float((encoded[i] - encoded[0]).abs().mean()) for i in (1, 2)]
        speeds = [at[s].velocity(z, t) for s in at]
        turned = [float((speeds[i] - speeds[0]).abs().mean()) for i in (1, 2)]
    assert 0 < moved[0] < moved[1] and 0 < turned[0] < turned[1]


def test_a_whole_picture_goes_through(trained: Path) -> None:
    _, upscaler = on_base(trained)
    image = torch.rand(1, 9, 13, 4)
    whole = upscaler.upscale(image, UpscaleOptions(scale=4.0, t="calibrated"))
    assert whole.shape == (1, 36, 52, 4) and bool(torch.isfinite(whole).all())
    assert not torch.allclose(whole, upscaler.upscale(image, UpscaleOptions(scale=4.0, realism=0.0)), atol=1e-3)


def test_an_adapter_says_what_it_needs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = load_checkpoint(trained / "out.safetensors")
    assert checkpoint.config.adapter and checkpoint.config.base.startswith("flux-16-1+1-with")
    with pytest.raises(AlloSR2Error, match="this one is an adapter for flux-16"):
        Pipeline.from_checkpoint(checkpoint)
    wrong = trained / "ae.safetensors"
    with pytest.raises(AlloSR2Error, match=r"ae.safetensors: expected the tensors of the configured network; missing"):
        read_base(checkpoint.config, wrong, wrong)


def test_a_base_saved_by_a_newer_host(trained: Path, tmp_path: Path) -> None:
    """Newer hosts call the head norms' gains `weight`."""
    tensors = load_file(trained / "transformer.safetensors")
    renamed = {name.replace("_norm.scale", "_norm.weight"): value for name, value in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "newer.safetensors")
    config, vae = load_checkpoint(trained / "out.safetensors").config, trained / "ae.safetensors"
    newer, older = (
        read_base(config, path, vae)[0]
        for path in (tmp_path / "newer.safetensors", trained / "transformer.safetensors")
    )
    for name, value in older.state_dict().items():
        assert torch.equal(newer.state_dict()[name], value)
