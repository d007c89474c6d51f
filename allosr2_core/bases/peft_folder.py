"""A folder of the peft library, adapter_model.safetensors and adapter_config.json, read strictly: plain LoRA only.

Layout and scale are those of peft 0.21.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.layer_patterns import LayerPattern, read_patterns
from ..adapters.targets import Shape
from ..adapters.weight_diff import listed
from ..errors import AlloSR2Error, cut, shown
from ..foreign_json import parse_json
from ..safetensors_file import opened

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
LONGEST_KEY = 512
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])(\.(?P<adapter>[^.]+))?\.weight")
DTYPES = ("F16", "BF16", "F32")
MOST_RANK, MOST_ALPHA = 4096, 2.0**24
MOST_CONFIG = 1 << 20
"""Bytes of adapter_config.json; those of peft have some thousand."""

# Fields of adapter_config.json. The neutral ones say how an adapter was made and where it belongs; the file's keys and
# shapes say the same. Any further field, known or new, must be empty: it would change what a branch computes.
READ_FIELDS = frozenset("peft_type r lora_alpha rank_pattern alpha_pattern use_rslora bias init_lora_weights".split())
NEUTRAL_FIELDS = frozenset(
    "auto_mapping base_model_name_or_path inference_mode peft_version revision task_type target_modules "
    "exclude_modules layers_to_transform layers_pattern lora_dropout corda_config eva_config loftq_config "
    "lora_ga_config megatron_core qalora_group_size".split()
)
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")  # others rewrite base weights too, as PiSSA does


@dataclass(frozen=True)
class PeftConfig:
    """What adapter_config.json says about ranks and scales."""

    rank: int
    alpha: float
    rank_pattern: tuple[tuple[LayerPattern, int], ...]
    """Patterns of layer names, or of their ends after a dot, with a rank; the first that fits counts."""
    alpha_pattern: tuple[tuple[LayerPattern, float], ...]
    rank_stabilized: bool
    """Scale alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023) instead of alpha / rank."""

    def rank_of(self, name: str) -> int:
        return _first_fitting(self.rank_pattern, name, self.rank)

    def scale_of(self, name: str) -> float:
        alpha, rank = _first_fitting(self.alpha_pattern, name, self.alpha), self.rank_of(name)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def _first_fitting(patterns: Iterable[tuple[LayerPattern, Any]], name: str, otherwise: Any) -> Any:
    return next((value for pattern, value in patterns if pattern.fits_end(name)), otherwise)


@dataclass(frozen=True)
class PeftFolder:
    """What a folder holds, as far as its configuration and the header of its weights tell."""

    path: Path
    config: PeftConfig
    shapes: Mapping[str, Mapping[str, Shape]]
    """Layer as the file calls it -> the shapes of its halves, {"A": ..., "B": ...}."""
    keys: Mapping[str, Mapping[str, str]]
    """Likewise the halves' names in the file."""

    @property
    def where(self) -> str:
        """The file of weights, as messages name it."""
        return f"{self.path.name}/{WEIGHTS_FILE}"

    def read(self) -> dict[str, dict[str, Tensor]]:
        """Layer -> its halves. AlloSR2Error for NaN and infinite values."""
        with opened(self.path / WEIGHTS_FILE, self.where) as file:
            pairs = {
                layer: {half: file.get_tensor(key) for half, key in halves.items()}
                for layer, halves in self.keys.items()
            }
        broken = [
            self.keys[layer][half]
            for layer, halves in pairs.items()
            for half, tensor in halves.items()
            if not bool(torch.isfinite(tensor).all())
        ]
        if broken:
            raise AlloSR2Error(
                f"{self.where}: expected finite weights; NaN or infinite in {len(broken)}: {listed(broken)}"
            )
        return pairs


def read_folder(folder: Path) -> PeftFolder:
    """Ranks, scales and the layers' names and shapes; no weight is read yet.

    AlloSR2Error: a file is missing or broken, or asks for more than plain LoRA.
    """
    if not folder.is_dir():
        raise AlloSR2Error(f"{folder.name}: expected the folder of an adapter at {folder}; there is none")
    for path in (folder / WEIGHTS_FILE, folder / CONFIG_FILE):
        if not path.is_file():
            raise AlloSR2Error(f"{folder.name}/{path.name}: {_why_missing(folder, path.name)}")
        if path.stat().st_size == 0:
            raise AlloSR2Error(f"{folder.name}/{path.name}: expected an adapter saved by peft; this file is empty")
    config = _read_config(folder / CONFIG_FILE)
    return PeftFolder(folder, config, *_read_header(folder / WEIGHTS_FILE))


def _why_missing(folder: Path, name: str) -> str:
    if name == WEIGHTS_FILE and (folder / PICKLE_FILE).is_file():
        return (
            f"expected a safetensors file, got {PICKLE_FILE} alone. A pickle can run code while it is read and is not "
            "read here: where you trust it, load it with peft and save it with safe_serialization=True"
        )
    inside = sorted(path.parent.name for path in folder.glob(f"*/{name}"))
    hint = f" (folders in it have one: {listed(inside)})" if inside else ""
    return f"expected a file at {folder}; there is none{hint}"


def _read_config(path: Path) -> PeftConfig:
    where = f"{path.parent.name}/{path.name}"
    size = path.stat().st_size
    if size > MOST_CONFIG:
        raise AlloSR2Error(f"{where}: expected at most {MOST_CONFIG} bytes; got {size}")
    try:
        content = parse_json(path.read_bytes().decode("utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise AlloSR2Error(f"{where}: expected JSON; {error}") from error
    if not isinstance(content, dict):
        raise AlloSR2Error(f"{where}: expected a JSON object, got {type(content).__name__}")
    plain = {
        **{key: not value for key, value in content.items() if key not in READ_FIELDS | NEUTRAL_FIELDS},
        "peft_type": content.get("peft_type") == "LORA",
        "bias": content.get("bias", "none") == "none",
        "init_lora_weights": any(content.get("init_lora_weights") == init for init in PLAIN_INITS),
    }
    beyond = [f"{key} = {cut(json.dumps(content.get(key)), 60)}" for key, is_plain in plain.items() if not is_plain]
    if beyond:
        raise AlloSR2Error(f"{where}: expected a plain LoRA; what cannot be brought over: {listed(beyond)}")
    rank: Any = content.get("r")
    alpha: Any = content.get("lora_alpha")
    ranks, alphas = content.get("rank_pattern") or {}, content.get("alpha_pattern") or {}
    stabilized = content.get("use_rslora", False)
    if not isinstance(ranks, dict) or not isinstance(alphas, dict) or type(stabilized) is not bool:
        raise AlloSR2Error(
            f"{where}: expected objects as rank_pattern and alpha_pattern and a truth value as use_rslora"
        )
    odd = [f"{key} = {shown(value)}" for key, value in (("r", rank), *ranks.items()) if not _is_rank(value)]
    odd += [
        f"{key} = {shown(value)}" for key, value in (("lora_alpha", alpha), *alphas.items()) if not _is_alpha(value)
    ]
    if odd:
        raise AlloSR2Error(
            f"{where}: expected whole ranks of 1 to {MOST_RANK} and alphas of at most {MOST_ALPHA:g}, got {listed(odd)}"
        )
    try:
        rank_patterns, alpha_patterns = read_patterns(ranks), read_patterns(alphas)
    except AlloSR2Error as error:
        raise AlloSR2Error(f"{where}: {error}") from error
    return PeftConfig(
        rank,
        alpha,
        tuple(zip(rank_patterns, ranks.values(), strict=True)),
        tuple(zip(alpha_patterns, alphas.values(), strict=True)),
        stabilized,
    )


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST_RANK


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= MOST_ALPHA


def _read_header(path: Path) -> tuple[dict[str, dict[str, Shape]], dict[str, dict[str, str]]]:
    """Layer as the file calls it -> its halves' shapes, and their names in the file; all of a known float type."""
    where = f"{path.parent.name}/{path.name}"
    with opened(path, where) as file:
        pieces = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        found = {key: (tuple(piece.get_shape()), piece.get_dtype()) for key, piece in pieces.items()}
    matches = {key: KEY.fullmatch(key) if len(key) <= LONGEST_KEY else None for key in found}
    unknown = [key for key, match in matches.items() if match is None]
    adapters = {match["adapter"] or "(no name)" for match in matches.values() if match}
    shapes: dict[str, dict[str, Shape]] = {}
    keys: dict[str, dict[str, str]] = {}
    for key, match in matches.items():
        if match:
            shapes.setdefault(match["layer"], {})[match["half"]] = found[key][0]
            keys.setdefault(match["layer"], {})[match["half"]] = key
    halves = [name for name, pair in shapes.items() if len(pair) == 1]
    if unknown or halves or not shapes:
        raise AlloSR2Error(
            f"{where}: expected base_model.model.LAYER.lora_A.weight and .lora_B.weight for each layer; {len(found)} "
            f"keys, of these {len(unknown)} of another form: {listed(unknown)}; "
            f"{len(halves)} layers with half a pair: {listed(halves)}"
        )
    if len(adapters) > 1:
        raise AlloSR2Error(f"{where}: expected one adapter, got {len(adapters)}: {listed(list(adapters))}")
    odd = [f"{key} ({dtype})" for key, (_, dtype) in found.items() if dtype not in DTYPES]
    if odd:
        raise AlloSR2Error(f"{where}: expected F16, BF16 or F32; {len(odd)} others: {listed(odd)}")
    return shapes, keys
