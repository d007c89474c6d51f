"""Checkpoints that were changed: each is loaded and works, or is refused in one line; by the command line too."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from allosr2_core.checkpoint.format import CONFIG_KEY, TRAINING_KEY, load_checkpoint
from allosr2_core.cli.main import main
from allosr2_core.errors import AlloSR2Error
from allosr2_core.pipeline import Pipeline
from tests.support.command_line import save_tiny_checkpoint

from .suites import cases

HOSTILE: tuple[Any, ...] = (
    *(None, True, [], {}, "", "x", 0, -1, 1, 2, 3, 1.5, 1e-300, 1e308, -1e308, 10**6, 10**9, 10**30, 10**39),
    *(
        "x" * 300_000,
        "\x1b[2J\n\r",
        "\u202e",
        [1] * 1000,
        [10**6] * 3,
        {"type": []},
        {"a": {"b": [[]]}},
        "unet",
        "flux",
    ),
    *([[[[[[1]]]]]], "aligned", "flux1-dev", "host", "kl", 64, 65535, 0.5, [4, 8], ["(x+x+)+y"], [".*"] * 5000),
)
NUMBERS = (0, -1, 3, 65, 129, 10**4, 10**6, 10**9, 2**31, 2**63, 10**30, 1e-300, 1e19, 1e308, -1e308, 0.5)
RAW = (
    *("NaN", "Infinity", "1e999", "9" * 5000, "-" + "9" * 60, "[" * 1000 + "]" * 1000, '{"a":' * 500 + "1" + "}" * 500),
    *('{"type": "unet", "type": "flux"}', "tru", '"\\ud800"', "0x10", "01", "'a'", "1 2"),
)
FLUX = {"type": "flux", "latent_channels": 4, "vec_in_dim": 4, "context_in_dim": 4, "hidden_size": 8, "mlp_ratio": 4.0}
FLUX |= {"num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [2, 2], "theta": 100, "qkv_bias": True}
FLUX |= {"guidance_embed": False, "guidance": None}


@functools.cache
def good() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_tiny_checkpoint(Path(folder) / "tiny.safetensors")
        return (Path(folder) / "tiny.safetensors").read_bytes()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack_from("<Q", data)[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: object, tensors: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + tensors


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """Every key and index in nested tables and lists, as paths."""
    found = [path] if path else []
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return found + [place for key in keys for place in places(value[key], (*path, key))]


def hostile(rng: random.Random) -> Any:  # noqa: ANN401
    """A copy, which the next change may change."""
    return copy.deepcopy(rng.choice(HOSTILE))


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:  # noqa: ANN401
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def changed_config(rng: random.Random, config: dict[str, Any]) -> str:
    """As text, with one to three values, keys or tables changed."""
    if rng.random() < 0.2:
        config["network"] = dict(FLUX)
    if rng.random() < 0.15:
        config["adapter"] = {
            "transformer": rng.choice((["."], ["(a|b"], [r"\d+" * 200], ["x" * 600])),
            "vae_encoder": [],
        }
    for _ in range(rng.randint(1, 3)):
        parts = [place for place in places(config) if len(place) > 1]  # of networks, whose numbers build something
        place = rng.choice(parts if parts and rng.random() < 0.5 else places(config))
        kind = rng.random()
        if kind < 0.4:
            put(config, place, rng.choice(NUMBERS))
        elif kind < 0.7:
            put(config, place, hostile(rng))
        elif kind < 0.85:
            key = rng.choice(("x", "k" * 10**5, "type", "a\nb")) if isinstance(place[-1], str) else place[-1]
            put(config, (*place[:-1], key), hostile(rng))
        else:
            put(config, place, "RAW")
    return json.dumps(config).replace('"RAW"', rng.choice(RAW))


def changed_header(rng: random.Random, header: dict[str, Any]) -> None:
    name = rng.choice([key for key in header if key != "__metadata__"])
    other = rng.choice([key for key in header if key != "__metadata__"])
    start, end = header[name]["data_offsets"]
    kind = rng.randrange(9)
    if kind == 0:
        header[name]["data_offsets"] = rng.choice(
            (
                [start, end + 2],
                [end, start],
                header[other]["data_offsets"],
                [0, 1 << 60],
                [-4, 4],
                [start],
                "x",
                [1.5, 2],
            )
        )
    elif kind == 1:
        header[name]["shape"] = rng.choice(([], [1 << 62, 4], [-1], [0], [1] * 500, "x", [2.5], [end - start], [[1]]))
    elif kind == 2:
        header[name]["dtype"] = rng.choice(
            ("F64", "I8", "U8", "BOOL", "F8_E4M3", "X", "", 7, None, "BF16", "F32", "I64")
        )
    elif kind == 3:
        del header[name]
    elif kind == 4:
        header[rng.choice(("x", "flow." + "y" * 10**5, "", "flow.a\nb", "vae.\x1b[2J", "lora.transformer.x.diff"))] = (
            header.pop(name)
        )
    elif kind == 5:
        header[name] = rng.choice((None, [], 1, {}, {"dtype": "F16"}))
    elif kind == 6:
        header["__metadata__"] = rng.choice((None, [], {}, {"a": 1}, {"allosr2.format": "1"}, {"x": "y" * 10**6}))
    elif kind == 7:
        header["__metadata__"][rng.choice(list(header["__metadata__"]))] = rng.choice(
            ("", "\x1b", "x" * 10**6, "{", "[]")
        )
    else:
        for each in range(rng.choice((1, 3000))):
            header[f"flow.extra.{each}"] = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}


def changed(rng: random.Random, data: bytes) -> bytes:
    kind = rng.random()
    header, tensors = split(data)
    if kind < 0.5:
        key = CONFIG_KEY if rng.random() < 0.85 else TRAINING_KEY
        header["__metadata__"][key] = changed_config(rng, json.loads(header["__metadata__"][key]))
        return joined(header, tensors)
    if kind < 0.75:
        changed_header(rng, header)
        return joined(header, tensors)
    flipped = bytearray(data)
    if kind < 0.9:
        for _ in range(rng.randint(1, 8)):
            flipped[rng.randrange(len(flipped) if rng.random() < 0.3 else len(flipped) - len(tensors))] = rng.randrange(
                256
            )
        return bytes(flipped)
    if kind < 0.95:
        return bytes(flipped[: rng.randrange(len(flipped))]) + rng.choice((b"", b"\0", bytes(1000)))
    length = rng.choice((0, 1, 7, 1 << 20, 1 << 30, 1 << 62, (1 << 64) - 1, len(data), len(data) - 8))
    return struct.pack("<Q", length) + data[8:]


@cases("checkpoints", quick=120, full=2000)
def case(number: int, folder: Path) -> Callable[[], None]:
    rng = random.Random(f"checkpoints/{number}")
    path = folder / "a.safetensors"
    path.write_bytes(changed(rng, good()))
    return (lambda: by_command(path)) if number % 5 == 0 else (lambda: by_library(path))


def by_library(path: Path) -> None:
    try:
        checkpoint = load_checkpoint(path)
        if checkpoint.config.adapter:
            return
        result = Pipeline.from_checkpoint(checkpoint).upscale(torch.full((1, 4, 5, 3), 0.5))
    except AlloSR2Error as error:
        assert "\n" not in str(error) and 10 < len(str(error)) <= 1500, str(error)
        return
    assert bool(torch.isfinite(result).all())


def by_command(path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["inspect", str(path)])
    assert code in (0, 1), f"exit code {code}"
    assert len(err.getvalue().splitlines()) == code, err.getvalue()
    assert (code == 0) == bool(out.getvalue()) and not {"\x1b", "\r", "\u202e"} & set(out.getvalue() + err.getvalue())
    assert len(err.getvalue()) < 1600
