"""Folders of the peft library that were changed: each is read, or refused in one line; by the command line too."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from allosr2_core.bases.peft_folder import CONFIG_FILE, WEIGHTS_FILE
from allosr2_core.bases.peft_import import read_peft_encoder, read_peft_transformer
from allosr2_core.cli.main import main
from allosr2_core.errors import AlloSR2Error
from tests.support.peft_folders import FLUX, PROJ, VAE, Q, pair, write

from .checkpoints import RAW, changed_header, hostile, joined, places, put, split
from .suites import Limits, Lost, cases

PATTERNS = (
    "(",
    "(x+x+)+y",
    "a{1,99}",
    "[",
    "to_q",
    "^to_q$",
    r"attn\.to_.*",
    ".*" * 200,
    "(a|a)" * 90,
    "\\",
    "x" * 600,
)
PATTERNS += (
    "(?P<a>.)",
    "é",
    "a\nb",
    "",
    "transformer_blocks.0.attn.to_q",
    "to_[qk]",
    r"\1",
    "*",
    "(((((((((((((((((((a",
)
FIELDS = (
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "bias",
    "peft_type",
    "init_lora_weights",
    "new",
)


def changed_config(rng: random.Random, folder: Path) -> None:
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text())
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.4:
            patterns = {
                rng.choice(PATTERNS): rng.choice((1, 2, 4, 4096, 5000, 1e308, "x", None, 10**30)) for _ in range(3)
            }
            config[rng.choice(("rank_pattern", "alpha_pattern"))] = patterns
        elif kind < 0.7:
            config[rng.choice(FIELDS)] = hostile(rng)
        elif kind < 0.9:
            put(config, rng.choice(places(config)), hostile(rng))
        else:
            config[rng.choice(FIELDS)] = "RAW"
    path.write_text(json.dumps(config).replace('"RAW"', rng.choice(RAW)))


def changed_files(rng: random.Random, folder: Path) -> None:
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    kind = rng.randrange(11)
    path = rng.choice((config, weights))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    elif kind == 2:
        with path.open("r+b") as file:  # sparse
            file.truncate(8 << 30)
    elif kind == 3:
        path.unlink()
        path.mkdir()
    elif kind == 4:
        path.unlink()
        os.mkfifo(path)
    elif kind == 5:
        path.unlink()
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "nowhere", path.name)))
    elif kind == 6:
        weights.rename(folder / "adapter_model.bin")
    elif kind == 7:
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 9)):
            data[rng.randrange(min(len(data), 2000))] = rng.randrange(256)
        path.write_bytes(data)
    elif kind == 8:
        config.write_bytes(rng.choice((b"\xff\xfe{}", b"[]", b"null", b"{" * 10**5, b" " * 10**6, b'"' + b"x" * 10**6)))
    else:
        header, tensors = split(weights.read_bytes())
        header.setdefault("__metadata__", {"format": "pt"})
        changed_header(rng, header)
        weights.write_bytes(joined(header, tensors))


def changed_tensors(rng: random.Random) -> dict[str, Any]:
    layer = rng.choice(
        (Q, PROJ, "x", "transformer_blocks.99.attn.to_q", "a" * 5000, "a\nb", "..", "é", "1" * 300, "decoder.a")
    )
    tensors = pair(layer, rank=rng.choice((1, 2, 4)), width=rng.choice((1, 32, 64)), rows=rng.choice((1, 64)))
    kind = rng.randrange(6)
    if kind == 0:
        tensors = {key: value * rng.choice((float("nan"), float("inf"), 1e38)) for key, value in tensors.items()}
    elif kind == 1:
        tensors = {key: value.to(rng.choice((torch.float64, torch.int8, torch.bool))) for key, value in tensors.items()}
    elif kind == 2:
        tensors = {key: value.flatten() for key, value in tensors.items()}
    elif kind == 3:
        tensors |= {f"{layer}.{number}.lora_A.weight": torch.zeros(1) for number in range(rng.choice((1, 2000)))}
    elif kind == 4:
        tensors = {key: torch.zeros(0, *value.shape[1:]) for key, value in tensors.items()}
    return tensors


@cases("peft_folders", quick=80, full=1000, limits=Limits(seconds=2.0, mib=512.0))
def case(number: int, folder: Path) -> Callable[[], None]:
    rng = random.Random(f"peft_folders/{number}")
    adapter = folder / rng.choice(("adapter", "a\nb", "red\x1b[31m", "x" * 200))
    adapter.mkdir()
    write(adapter, changed_tensors(rng) if rng.random() < 0.3 else pair(Q) | pair(PROJ))
    if rng.random() < 0.6:
        changed_config(rng, adapter)
    else:
        changed_files(rng, adapter)
    return (lambda: by_command(adapter)) if number % 20 == 0 else (lambda: by_library(adapter))


def by_library(adapter: Path) -> None:
    for read in (lambda: read_peft_transformer(adapter, FLUX), lambda: read_peft_encoder(adapter, VAE)):
        try:
            tensors = read()
        except AlloSR2Error as error:
            assert "\n" not in str(error) and 10 < len(str(error)) <= 1500, str(error)
        else:
            assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def by_command(adapter: Path) -> None:
    """Against the full size of FLUX.1, of whose layers these fit none."""
    target, out, err = adapter.parent / "out.safetensors", io.StringIO(), io.StringIO()
    arguments = ["import-peft", "--transformer", str(adapter), "--base", "flux1-schnell", "--t", "0.5", "--init", "raw"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*arguments, str(target)])
    assert code in (0, 2), f"exit code {code}"
    if code and (target.exists() or len(list(adapter.parent.iterdir())) > 1):
        raise Lost("half a file is left")
    assert len(err.getvalue().splitlines()) == (1 if code else 0), err.getvalue()
    assert len(err.getvalue()) < 1600 and "\x1b" not in err.getvalue()
