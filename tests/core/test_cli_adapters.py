"""`export-lora`, `import-peft`, and `upscale` of an adapter, by the command line."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from allosr2_core.adapters import lora
from allosr2_core.bases.peft_import import read_peft_encoder, read_peft_transformer, shifted_step_to_t
from allosr2_core.bases.registry import BASES, Base, read_base
from allosr2_core.checkpoint.format import LORA_FLOW, embedded_path, load_checkpoint
from allosr2_core.cli import adapters as cli_adapters
from allosr2_core.cli import main as cli
from allosr2_core.pipeline import Pipeline
from tests.support.lora_network import branches
from tests.support.peft_folders import FLUX, PROJ, VAE, Q, pair, write
from tests.support.pictures import size, write_photo
from tests.support.sparse import sparse_safetensors
from tests.support.tiny_base import write_base

CONV = {
    "base_model.model.conv_in.lora_A.weight": torch.randn(2, 3, 3, 3),
    "base_model.model.conv_in.lora_B.weight": torch.randn(32, 2, 1, 1),
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folders of a small base (transformer.safetensors, ae.safetensors, null.safetensors) and of an adapter for it."""
    params = asdict(FLUX)
    del params["in_channels"], params["out_channels"]
    base = Base(
        title="FLUX.1-dev",
        network={"type": "flux", "latent_channels": 4, **params, "guidance": 1.0},
        autoencoder={"type": "kl", **asdict(VAE)},
        license="FLUX.1 [dev] Non-Commercial License",
    )
    monkeypatch.setitem(cli_adapters.BASES, "flux1-dev", base)
    write_base(tmp_path, params, asdict(VAE), seed=4)
    for name, tensors in (("flux_adapter", pair(Q) | pair(PROJ)), ("vae_encoder_adapter", CONV)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, tensors)
    return tmp_path


def take_in(folder: Path, *options: Any) -> int:  # noqa: ANN401
    command = ["import-peft", "--transformer", folder / "flux_adapter", "--vae-encoder", folder / "vae_encoder_adapter"]
    given = ["--base", "flux1-dev", "--init", "raw", "--null", folder / "null.safetensors", folder / "out.safetensors"]
    return cli.main([str(part) for part in (*command, *options, *given)])


def test_an_imported_adapter_is_the_folders(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert take_in(tiny, "--shifted-step", 244) == 0
    assert '{"transformer": 2, "vae_encoder": 1} layers, t = 0.5051, init = raw' in capsys.readouterr().out
    checkpoint = load_checkpoint(tiny / "out.safetensors")
    config = checkpoint.config
    assert config.t_star == shifted_step_to_t(244) and config.t_method == "calibrated" and config.init == "raw"
    assert config.base == "flux1-dev" and config.network["guidance"] == 1.0
    upscaler = Pipeline.from_adapter(
        checkpoint, *read_base(config, tiny / "transformer.safetensors", tiny / "ae.safetensors")
    )
    network, autoencoder = read_base(config, tiny / "transformer.safetensors", tiny / "ae.safetensors")
    flux = network.adapted
    z, t, x = torch.randn(1, 4, 4, 6), torch.tensor([0.5]), torch.rand(1, 3, 16, 16)
    bare = Pipeline.from_adapter(
        checkpoint, *read_base(config, tiny / "transformer.safetensors", tiny / "ae.safetensors"), 0
    )
    lora.import_lora(flux, read_peft_transformer(tiny / "flux_adapter", FLUX), "diffusion_model.")
    lora.import_lora(autoencoder.encoder, read_peft_encoder(tiny / "vae_encoder_adapter", VAE), "encoder.")
    with torch.no_grad():
        assert torch.allclose(upscaler.backend.encode(x), autoencoder.encode(x), atol=1e-5)
        assert not torch.allclose(upscaler.backend.encode(x), bare.backend.encode(x), atol=1e-3)
        moved = upscaler.backend.velocity(z, t) - bare.backend.velocity(z, t)
    assert float(moved.abs().mean()) > 1e-3
    assert {name: branch.rank for name, branch in branches(flux).items()} == {
        "double_blocks.0.img_attn.qkv": 2,
        "double_blocks.0.img_attn.proj": 2,
    }


def test_an_adapter_upscales_on_the_files_of_its_base(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert take_in(tiny, "--t", 0.4) == 0
    source, target = write_photo(tiny / "in.png", 9, 12), tiny / "big.png"
    command = ["upscale", str(source), str(target), "--checkpoint", str(tiny / "out.safetensors")]
    files = ["--transformer", str(tiny / "transformer.safetensors"), "--vae", str(tiny / "ae.safetensors")]
    assert cli.main([*command, *files]) == 0
    assert size(target) == (36, 48)
    capsys.readouterr()
    assert cli.main(command) == 2
    assert (
        "expected --transformer FILE and --vae FILE: the checkpoint is an adapter for flux1-dev"
        in capsys.readouterr().err
    )
    assert cli.main(["upscale", str(source), str(target), *files]) == 2
    assert "expected no --transformer and no --vae" in capsys.readouterr().err
    assert cli.main(["inspect", str(tiny / "out.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "empty prompt" in told and "FLUX.1 [dev] Non-Commercial License" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--t", "1.0"), "expected 0 < t_min"),
        (("--t", "nan"), "must be a finite number"),
        (("--shifted-step", 1000), "expected a step below steps"),
        (("--shifted-step", 0), "expected 0 < t_min"),
    ],
)
def test_bad_times_leave_no_file(
    tiny: Path, capsys: pytest.CaptureFixture[str], options: tuple[Any, ...], message: str
) -> None:
    assert take_in(tiny, *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tiny.glob("*out*"))


def test_a_null_file_that_does_not_fit_is_refused(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"context": torch.zeros(1, 3, 21), "pooled": torch.zeros(1, 12)}, tiny / "null.safetensors")
    assert take_in(tiny, "--t", 0.4) == 2
    assert "null.context: expected shape (1, 3, 20); got (1, 3, 21)" in capsys.readouterr().err


def test_a_full_size_base_takes_an_adapter(tmp_path: Path) -> None:
    """The real FLUX.1-dev, never allocated: an adapter of two layers at its widths."""
    folder = tmp_path / "flux_adapter"
    folder.mkdir()
    last = "single_transformer_blocks.37.proj_out"
    write(folder, pair(Q, width=3072, rows=3072) | pair(last, width=15360, rows=3072))
    out = tmp_path / "out.safetensors"
    layers = cli_adapters.import_peft(
        folder, None, "flux1-dev", BASES["flux1-dev"], t=0.5, init="raw", guidance=1.0, null=None, target=out
    )
    assert layers == {"transformer": 2, "vae_encoder": 0}
    checkpoint = load_checkpoint(out)
    assert checkpoint.null is None and checkpoint.build_snr_head() is None
    assert checkpoint.group(LORA_FLOW)["diffusion_model.single_blocks.37.linear2.lora_A.weight"].shape == (2, 15360)


def test_the_exported_lora_is_the_flows_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lora.safetensors"
    assert cli.main(["export-lora", str(embedded_path()), str(out)]) == 0
    tensors, expected = load_file(out), load_checkpoint(embedded_path()).group(LORA_FLOW)
    assert f"{len(expected)} tensors" in capsys.readouterr().out
    assert tensors.keys() == expected.keys() and all(torch.equal(tensors[k], expected[k]) for k in tensors)
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["license"] == "Apache-2.0"
    assert cli.main(["export-lora", str(embedded_path()), str(out)]) == 0  # its own output may be replaced


@pytest.mark.parametrize("name", ["lora.png", "other.safetensors"])
def test_export_replaces_nothing_of_the_users(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    before = other.read_bytes()
    assert cli.main(["export-lora", str(embedded_path()), str(tmp_path / name)]) == 2
    assert "expected a n" in capsys.readouterr().err
    assert other.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_files_of_another_base_are_not_read(tiny: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    """Their headers are enough: these say that they have 12 GiB."""
    assert take_in(tiny, "--t", 0.4) == 0
    other = sparse_safetensors(tiny / "other.safetensors", ("img_in.weight", "encoder.conv_in.weight"))
    files = {"transformer": tiny / "transformer.safetensors", "vae": tiny / "ae.safetensors"} | {part: other}
    command = ["upscale", str(write_photo(tiny / "in.png")), str(tiny / "big.png")]
    command += ["--checkpoint", str(tiny / "out.safetensors")]
    capsys.readouterr()
    started = time.process_time()
    assert cli.main([*command, *(text for name, path in files.items() for text in (f"--{name}", str(path)))]) == 2
    assert time.process_time() - started < 4.0
    said = capsys.readouterr().err
    assert "other.safetensors: expected the tensors of the configured network; missing: " in said
    assert len(said.splitlines()) == 1
