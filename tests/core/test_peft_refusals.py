"""Adapters in peft's form written by hand: what is kept, and what is refused."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from allosr2_core.adapters import lora
from allosr2_core.bases.peft_import import read_peft_encoder, read_peft_transformer
from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import Flux
from tests.support.peft_folders import FLUX, PROJ, VAE, Q, pair, write
from tests.support.sparse import sparse_safetensors


def test_an_adapter_name_inside_the_keys(tmp_path: Path) -> None:
    plain_keys = read_peft_transformer(write(tmp_path, pair(Q)), FLUX)
    named_keys = read_peft_transformer(write(tmp_path, pair(Q, name=".default")), FLUX)
    assert plain_keys.keys() == named_keys.keys()
    assert all(torch.equal(plain_keys[key], named_keys[key]) for key in plain_keys)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_halves_keep_their_float_type(tmp_path: Path, dtype: torch.dtype) -> None:
    """Float32 only where scales of a fused layer differ."""
    given = {key: tensor.to(dtype) for key, tensor in (pair(Q) | pair(Q.replace("to_q", "to_k")) | pair(PROJ)).items()}
    tensors = read_peft_transformer(write(tmp_path, given), FLUX)
    assert {tensor.dtype for key, tensor in tensors.items() if not key.endswith("alpha")} == {dtype}
    up = tensors["diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight"]
    assert torch.equal(up[64:128, 2:], given["base_model.model.transformer_blocks.0.attn.to_k.lora_B.weight"])
    tensors = read_peft_transformer(write(tmp_path, given, alpha_pattern={"to_k": 1}), FLUX)
    types = {key.split(".")[-3]: tensor.dtype for key, tensor in tensors.items() if key.endswith("lora_A.weight")}
    assert types == {"qkv": torch.float32, "proj": dtype}
    up = tensors["diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight"]
    assert torch.equal(up[:64, :2], 2 * given[f"base_model.model.{Q}.lora_B.weight"].float())
    assert torch.equal(
        up[64:128, 2:], 0.5 * given["base_model.model.transformer_blocks.0.attn.to_k.lora_B.weight"].float()
    )


def test_halves_of_two_float_types_become_float32(tmp_path: Path) -> None:
    tensors = pair(PROJ)
    tensors[f"base_model.model.{PROJ}.lora_A.weight"] = tensors[f"base_model.model.{PROJ}.lora_A.weight"].half()
    read = read_peft_transformer(write(tmp_path, tensors), FLUX)
    assert {tensor.dtype for tensor in read.values()} == {torch.float32}
    lora.import_lora(Flux(FLUX), read, "diffusion_model.")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, r'adapter_config\.json: expected a plain LoRA; .*: peft_type = "LOHA"'),
        ({"peft_type": None}, "peft_type = null"),
        ({"bias": "all"}, 'bias = "all"'),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = true"),
        ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices = \[1, 2\]"),
        ({"target_parameters": ["weight"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, 'init_lora_weights = "pissa_niter_4"'),
        ({"a_new_feature": {"on": 1}, "use_dora": True}, r'a_new_feature = {"on": 1}, use_dora = true'),
        ({"r": None}, "whole ranks of 1 to 4096 and alphas of at most 1.67772e\\+07, got r = None"),
        ({"r": 0}, "r = 0"),
        ({"r": True}, "r = True"),
        ({"lora_alpha": float("nan")}, r"adapter_config\.json: expected finite numbers; got NaN"),
        ({"lora_alpha": 10**400}, r"expected numbers of at most 40 digits; got 1000"),
        ({"lora_alpha": 1e308}, r"lora_alpha = 1e\+308"),
        ({"r": 5000}, "r = 5000"),
        ({"lora_alpha": "4"}, "lora_alpha = '4'"),
        ({"rank_pattern": {"to_q": 1.5}}, "to_q = 1.5"),
        ({"alpha_pattern": {"to_q": None}}, "to_q = None"),
        ({"alpha_pattern": {"to_(q": 1}}, r"expected a regular expression of .*, got 'to_\(q'"),
        ({"rank_pattern": {"(x+x+)+y": 1}}, r"adapter_config\.json: expected a regular expression .*, got '\(x\+x"),
        ({"alpha_pattern": ["to_q"]}, "expected objects"),
        ({"target_modules": [[[[]] * 9] * 9] * 9, "use_dora": "x" * 300_000}, 'use_dora = "x*\\.\\.\\.$'),
        ({"use_rslora": "yes"}, "truth value as use_rslora"),
        ({"r": 4}, r"2 of 2 halves differ: .*lora_A \(2, 64\) for \(4, 64\)"),
        ({"rank_pattern": {"attn.to_q": 3}}, r"lora_B \(64, 2\) for \(64, 3\)"),
    ],
    ids=str,
)
def test_refuses_configurations(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = write(tmp_path, pair(Q), **config)
    with pytest.raises(AlloSR2Error, match=message):
        read_peft_transformer(folder, FLUX)


def test_reads_what_has_no_part_in_the_result(tmp_path: Path) -> None:
    config = {"init_lora_weights": "gaussian", "lora_dropout": 0.1, "inference_mode": True, "eva_config": {"rho": 2}}
    config |= {"use_dora": False, "modules_to_save": None, "layer_replication": [], "rank_pattern": None}
    assert len(read_peft_transformer(write(tmp_path, pair(Q), **config), FLUX)) == 3


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "0 keys"),
        (pair("transformer_blocks.2.attn.to_q"), r"1 of 1 fit none: transformer_blocks\.2\.attn\.to_q"),
        (pair("transformer_blocks.00.attn.to_q"), "1 of 1 fit none"),
        (pair(Q) | pair("down_blocks.0.resnets.0.conv1"), r"1 of 2 fit none: down_blocks\.0"),
        (
            {"transformer.x.weight": torch.zeros(1)} | pair(Q),
            "3 keys, of these 1 of another form: transformer.x.weight",
        ),
        ({f"base_model.model.{Q}.lora_embedding_A": torch.zeros(2, 2)}, "1 of another form"),
        (dict([*pair(Q).items()][:1]), f"1 layers with half a pair: {Q}"),
        (pair(Q) | pair(PROJ, name=".other"), r"expected one adapter, got 2: \(no name\), other"),
        (pair(Q, width=32), r"1 of 2 halves differ: .*to_q\.lora_A \(2, 32\) for \(2, 64\)"),
        (pair(Q, rows=192), r"lora_B \(192, 2\) for \(64, 2\)"),
        (pair("single_transformer_blocks.0.proj_mlp"), r"lora_B \(64, 2\) for \(256, 2\)"),
        ({key: tensor * float("nan") for key, tensor in pair(Q).items()}, "NaN or infinite in 2: "),
        ({key: tensor.double() for key, tensor in pair(Q).items()}, r"2 others: .*\(F64\)"),
    ],
)
def test_refuses_tensors(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    folder = write(tmp_path, tensors)
    with pytest.raises(AlloSR2Error, match=message):
        read_peft_transformer(folder, FLUX)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("up_blocks.0.resnets.0.conv1", r"1 layers of a decoder: up_blocks\.0"),
        ("decoder.conv_in", r"1 layers of a decoder: decoder\.conv_in"),
        ("quant_conv", "1 of 1 fit none: quant_conv"),
        (Q, "1 of 1 fit none"),
        ("down_blocks.2.downsamplers.0.conv", "1 of 1 fit none"),  # the last level has none
        ("encoder.conv_in", r"lora_A \(2, 64\) for \(2, 3, 3, 3\)"),
    ],
)
def test_refuses_tensors_for_the_encoder(tmp_path: Path, layer: str, message: str) -> None:
    folder = write(tmp_path, pair(layer))
    with pytest.raises(AlloSR2Error, match=message):
        read_peft_encoder(folder, VAE)


def test_refuses_broken_folders(tmp_path: Path) -> None:
    def refused(message: str, folder: Path = tmp_path) -> None:
        for read, params in ((read_peft_transformer, FLUX), (read_peft_encoder, VAE)):
            with pytest.raises(AlloSR2Error, match=message):
                read(folder, params)

    refused("there is none", tmp_path / "nowhere")
    refused("adapter_model.safetensors: expected a file at")
    (tmp_path / "flux_adapter").mkdir()
    write(tmp_path / "flux_adapter", pair(Q))
    refused(r"folders in it have one: flux_adapter")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    refused("adapter_model.bin alone. A pickle can run code")
    weights, config = (tmp_path / name for name in ("adapter_model.safetensors", "adapter_config.json"))
    weights.write_bytes(b"")
    refused("adapter_model.safetensors: .* this file is empty")
    write(tmp_path, pair(Q))
    for content, message in ((b"", "empty"), (b"{", "JSON"), (b"\xff", "JSON"), (b"[1]", "JSON object, got list")):
        config.write_bytes(content)
        refused(f"adapter_config.json: expected .*{message}")
    config.unlink()
    refused("adapter_config.json: expected a file at")
    write(tmp_path, pair(Q))
    weights.write_bytes(weights.read_bytes()[:-10])
    refused("expected a complete safetensors file")


def test_the_files_are_left_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path, pair(Q))
    before = (folder / "adapter_model.safetensors").read_bytes()
    for tensor in read_peft_transformer(folder, FLUX).values():
        tensor.zero_()
    assert (folder / "adapter_model.safetensors").read_bytes() == before
    assert load_file(folder / "adapter_model.safetensors").keys() == pair(Q).keys()


def test_a_sparse_configuration_of_8_gib_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path, pair(Q))
    with (folder / "adapter_config.json").open("r+b") as file:
        file.truncate(8 << 30)
    with pytest.raises(AlloSR2Error, match=r"adapter_config\.json: expected at most 1048576 bytes; got 8589934592"):
        read_peft_transformer(folder, FLUX)


def test_weights_of_another_shape_are_not_read(tmp_path: Path) -> None:
    """Sparse: 12 GiB of zeros that would have to be looked through."""
    folder = write(tmp_path, pair(Q))
    names = [f"base_model.model.{Q}.lora_{half}.weight" for half in "AB"]
    sparse_safetensors(folder / "adapter_model.safetensors", names)
    started = time.process_time()
    with pytest.raises(AlloSR2Error, match="2 of 2 halves differ"):
        read_peft_transformer(folder, FLUX)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    ("pattern", "rank"),
    [("to_q", 3), ("attn.to_q", 3), (r"attn\.to_[qk]", 3), (f"^{Q}$", 3), (".*", 3), ("^to_q", 2), ("o_q", 2)],
)
def test_patterns_fit_whole_names_or_their_ends(tmp_path: Path, pattern: str, rank: int) -> None:
    """As peft has it: the end after a dot, or after ^ the whole name."""
    folder = write(tmp_path, pair(Q, rank=rank), rank_pattern={pattern: 3})
    assert len(read_peft_transformer(folder, FLUX)) == 3
