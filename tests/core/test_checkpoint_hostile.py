"""Checkpoints from strangers: each ends quickly in one short line, before anything large is made."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from allosr2_core.adapters.targets import adapter_shapes, check_targets
from allosr2_core.checkpoint.describe import describe
from allosr2_core.checkpoint.format import CONFIG_KEY, FORMAT_KEY, TRAINING_KEY, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from tests.support.command_line import CommandLine


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def refused(path: Path, message: str) -> None:
    started = time.process_time()
    with pytest.raises(AlloSR2Error) as caught:
        load_checkpoint(path)
    assert message in str(caught.value), str(caught.value)
    assert time.process_time() - started < 2.0
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "t_star of 400 digits": ({"t_star": 10**400}, "at most 40 digits"),
    "t_star of 30 digits": ({"t_star": 10**30}, "t_star: expected at least 0 and at most 1"),
    "scale": ({"scale": 10**30}, "scale: expected at least 1 and at most 16"),
    "tile": ({"tile_size": 10**30}, "tile_size: expected at least 1 and at most 65535"),
    "latent scale": ({"latent_scale": 1e308}, "latent_scale: expected at"),
    "latent shift": ({"latent_shift": -1e308}, "latent_shift: expected at"),
    "long value": ({"init": "x" * 300_000}, "init must be one of"),
    "commands for a terminal": ({"t_method": "\x1b[2J\n" * 99}, r"got '\x1b[2J\n"),
    "long key": ({"k" * 300_000: 1}, "unknown key 'kkk"),
    "list for a type": ({"network": {"type": []}}, "network: expected type"),
    "deep": ({"base": json.loads("[" * 30 + "]" * 30)}, "base: expected str"),
}
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"channels": [10**9, 8]}, "network.channels: expected at least 1 and at most 8192"),
    "blocks": ({"blocks": [10**6] * 2}, "network.blocks: expected at least 1 and at most 64"),
    "levels": ({"channels": [4] * 99, "blocks": [1] * 99}, "network.channels: expected 1 to 8 values; got 99"),
    "time": ({"time_dim": 10**12}, "network.time_dim: expected at least 2 and at most 8192"),
    "allowed but not in the file": ({"channels": [8192] * 8, "blocks": [64] * 8}, "tensors missing: "),
    "flux depth": ({"type": "flux", "depth": 10**6}, "network: "),
}
FLUX = {"type": "flux", "latent_channels": 4, "vec_in_dim": 4, "context_in_dim": 4, "hidden_size": 8, "mlp_ratio": 4.0}
FLUX |= {"num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [2, 2], "theta": 100, "qkv_bias": True}
FLUX |= {"guidance_embed": False, "guidance": None}


@pytest.mark.parametrize("kind", [*CONFIGS, *NETWORKS])
def test_values_that_would_build_anything_are_refused(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    metadata = metadata_of(tiny_checkpoint)
    config = json.loads(metadata[CONFIG_KEY])
    if kind in CONFIGS:
        changes, message = CONFIGS[kind]
        config |= changes
    else:
        changes, message = NETWORKS[kind]
        config["network"] |= changes
    path = tmp_path / "a.safetensors"
    save_file(load_file(tiny_checkpoint), path, metadata=metadata | {CONFIG_KEY: json.dumps(config)})
    refused(path, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 10**6}, "network.depth: expected at least 0 and at most 128"),
        ({"depth_single_blocks": 129}, "network.depth_single_blocks: expected at"),
        ({"mlp_ratio": 1e300}, "network.mlp_ratio: expected above 0 and at most 64"),
        ({"mlp_ratio": float("nan")}, "expected finite numbers; got NaN"),
        ({"hidden_size": 10**9}, "network.hidden_size: expected at"),
        ({"latent_channels": 10**39}, "latent_channels is 4 here and 1000"),
        ({"axes_dim": [2] * 10**5}, "network.axes_dim: expected 1 to 8 values"),
        ({"theta": 0}, "network.theta: expected at"),
        ({"depth": 128, "depth_single_blocks": 128, "hidden_size": 65536, "axes_dim": [4096] * 8}, "tensors missing"),
    ],
    ids=str,
)
def test_transformers_of_any_size_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    metadata = metadata_of(tiny_checkpoint)
    config = json.loads(metadata[CONFIG_KEY]) | {"network": FLUX | change}
    path = tmp_path / "a.safetensors"
    save_file(load_file(tiny_checkpoint), path, metadata=metadata | {CONFIG_KEY: json.dumps(config)})
    refused(path, message)


@pytest.mark.parametrize("key", [CONFIG_KEY, TRAINING_KEY])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' * 1000 + "1" + "}" * 1000, "nested at most 200 deep"),
        ('{"a": ' + "9" * 5000 + "}", "at most 40 digits"),
        ('{"a": 1, "a": 1}', "each key once"),
        ('{"a": Infinity}', "expected finite numbers; got Infinity"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "at most 1048576 characters"),
        ('{"a": "\ud83d"', "expected JSON"),
    ],
    ids=["deep", "long number", "twice", "infinite", "long", "no JSON"],
)
def test_json_that_takes_readers_apart(
    tiny_checkpoint: Path, tmp_path: Path, key: str, text: str, message: str
) -> None:
    path = tmp_path / "a.safetensors"
    metadata = metadata_of(tiny_checkpoint) | {key: text.encode("utf-8", "replace").decode()}
    save_file(load_file(tiny_checkpoint), path, metadata=metadata)
    refused(path, message)


def with_header(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


NAME, OTHER = "flow.conv_in.bias", "flow.conv_in.weight"
HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "longer than the file": lambda data: struct.pack("<Q", len(data)) + data[8:],
    "a header of 2^63 bytes": lambda data: struct.pack("<Q", 1 << 63) + data[8:],
    "no header": lambda data: struct.pack("<Q", 0) + data[8:],
    "four bytes": lambda data: data[:4],
    "cut": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "overlapping": lambda data: with_header(data, lambda h: h[NAME].update(data_offsets=h[OTHER]["data_offsets"])),
    "far behind the end": lambda data: with_header(data, lambda h: h[NAME].update(data_offsets=[1 << 40, 1 << 41])),
    "backwards": lambda data: with_header(data, lambda h: h[NAME].update(data_offsets=[8, 0])),
    "huge shape": lambda data: with_header(data, lambda h: h[NAME].update(shape=[1 << 62, 1 << 62])),
    "negative shape": lambda data: with_header(data, lambda h: h[NAME].update(shape=[-4])),
    "unknown dtype": lambda data: with_header(data, lambda h: h[NAME].update(dtype="X9")),
    "no dtype": lambda data: with_header(data, lambda h: h[NAME].pop("dtype")),
    "metadata of numbers": lambda data: with_header(data, lambda h: h["__metadata__"].update({FORMAT_KEY: 1})),
    "deep": lambda data: struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(HEADERS[kind](tiny_checkpoint.read_bytes()))
    refused(tmp_path / "a.safetensors", "a.safetensors: expected")


def test_a_header_that_fills_the_memory_is_not_read(tmp_path: Path) -> None:
    """Sparse: 20 GiB that take no room on the disk."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 34))
        file.truncate(20 << 30)
    refused(path, "expected a header of at most 16777216 bytes; got 17179869184")


def test_what_is_no_file_is_named_at_once(tmp_path: Path, run: CommandLine) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    paths = {
        tmp_path / "pipe.safetensors": "found a pipe",
        tmp_path / "folder.safetensors": "found a folder",
        tmp_path / "loop.safetensors": "symbolic links",
        tmp_path / "none.safetensors": "there is none",
        tmp_path / ("n" * 300): "File name too long",
        Path("/dev/zero"): "found a pipe, a device or a socket",
        Path("/dev/null"): "found a pipe, a device or a socket",
    }
    for path, message in paths.items():
        refused(path, message)
        outcome = run("inspect", path)
        assert outcome.code == 1 and len(outcome.err.splitlines()) == 1


def test_what_a_checkpoint_says_is_no_command_for_a_terminal(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path, metadata = tmp_path / "a.safetensors", metadata_of(tiny_checkpoint)
    metadata |= {"note\x1b[2J": "red\x1b[31m\r\nerror: all lost", "license": "L" * 10**6}
    metadata[TRAINING_KEY] = json.dumps({"data": "\x1b]0;title\x07", "long": ["x"] * 10**5})
    save_file(load_file(tiny_checkpoint), path, metadata=metadata)
    odd = path.rename(tmp_path / "a\n\x1b[31m.safetensors")
    text = describe(odd)
    assert "\x1b" not in text and "\r" not in text and "\x07" not in text
    assert r"red\x1b[31m\r\nerror: all lost" in text
    assert max(map(len, text.splitlines())) < 2200


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"transformer": ["(x+x+)+y"], "vae_encoder": []}, "adapter.transformer: expected a regular expression"),
        ({"transformer": ["("], "vae_encoder": []}, "adapter.transformer: expected a regular expression"),
        ({"transformer": ["a"] * 5000, "vae_encoder": []}, "adapter.transformer: expected at most 4096 patterns"),
        ({"transformer": ["a" * 10**6], "vae_encoder": []}, "adapter.transformer: expected a pattern of at most 512"),
        ({"transformer": [7], "vae_encoder": []}, "adapter.transformer: expected a list of regular expressions"),
        ({"transformer": ["a"], "vae_encoder": [], "x" * 10**6: 1}, "adapter: expected the fields"),
    ],
    ids=["endless", "open", "many", "long", "number", "field"],
)
def test_patterns_of_an_adapter(adapter: dict[str, Any], message: str) -> None:
    problems = check_targets(adapter)
    assert message in problems[0]
    assert sum(map(len, problems)) < 400


def test_names_in_a_file_that_are_made_for_a_pattern() -> None:
    found = {f"p.{'1' * 400}{number}.lora_A.weight": (1, 1) for number in range(200)}
    started = time.process_time()
    with pytest.raises(AlloSR2Error, match="it fits none"):
        adapter_shapes(None, [r"\d+\d+\d+\d+x"], "p.", found)
    assert time.process_time() - started < 2.0
