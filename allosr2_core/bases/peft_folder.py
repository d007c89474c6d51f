"""A folder of the peft library, adapter_model.safetensors and adapter_config.json, read strictly: plain LoRA only.

Layout and scale are those of peft 0.21.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..adapters.weight_diff import listed
from ..errors import AlloSR2Error

CONFIG_FILE, WEIGHTS_FILE, PICKLE_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])(\.(?P<adapter>[^.]+))?\.weight")
FITTING = r"(.*\.)?({})$"  # around a pattern, as peft has it: the whole layer name or its end after a dot
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

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
    rank_pattern: Mapping[str, int]
    """Regular expressions of layer names, or their last components -> rank; the first that fits counts."""
    alpha_pattern: Mapping[str, float]
    rank_stabilized: bool
    """Scale alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023) instead of alpha / rank."""

    def rank_of(self, name: str) -> int:
        return _first_fitting(self.rank_pattern, name, self.rank)

    def scale_of(self, name: str) -> float:
        alpha, rank = _first_fitting(self.alpha_pattern, name, self.alpha), self.rank_of(name)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def _first_fitting(patterns: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    return next((value for key, value in patterns.items() if re.match(FITTING.format(key), name)), otherwise)


def read_folder(folder: Path) -> tuple[PeftConfig, dict[str, dict[str, Tensor]]]:
    """Ranks and scales, and layer as the file calls it -> its halves {"A": ..., "B": ...}.

    AlloSR2Error: a file is missing or broken, has NaN or infinite values, or asks for more than plain LoRA.
    """
    if not folder.is_dir():
        raise AlloSR2Error(f"{folder.name}: expected the folder of an adapter at {folder}; there is none")
    for path in (folder / WEIGHTS_FILE, folder / CONFIG_FILE):
        if not path.is_file():
            raise AlloSR2Error(f"{folder.name}/{path.name}: {_why_missing(folder, path.name)}")
        if path.stat().st_size == 0:
            raise AlloSR2Error(f"{folder.name}/{path.name}: expected an adapter saved by peft; this file is empty")
    return _read_config(folder / CONFIG_FILE), _read_pairs(folder / WEIGHTS_FILE)


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AlloSR2Error(f"{where}: expected JSON; {error}") from error
    if not isinstance(content, dict):
        raise AlloSR2Error(f"{where}: expected a JSON object, got {type(content).__name__}")
    plain = {
        **{key: not value for key, value in content.items() if key not in READ_FIELDS | NEUTRAL_FIELDS},
        "peft_type": content.get("peft_type") == "LORA",
        "bias": content.get("bias", "none") == "none",
        "init_lora_weights": content.get("init_lora_weights") in PLAIN_INITS,
    }
    beyond = [f"{key} = {json.dumps(content.get(key))[:60]}" for key, is_plain in plain.items() if not is_plain]
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
    odd = [f"{key} = {value!r}" for key, value in {"r": rank, **ranks}.items() if type(value) is not int or value < 1]
    odd += [f"{key} = {value!r}" for key, value in {"lora_alpha": alpha, **alphas}.items() if not _is_finite(value)]
    if odd:
        raise AlloSR2Error(f"{where}: expected whole ranks >= 1 and finite alphas, got {listed(odd)}")
    for pattern in (*ranks, *alphas):
        try:
            re.compile(FITTING.format(pattern))
        except re.error as error:
            raise AlloSR2Error(f"{where}: expected a regular expression, got {pattern!r}: {error}") from error
    return PeftConfig(rank, alpha, ranks, alphas, stabilized)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= torch.finfo(torch.float32).max


def _read_pairs(path: Path) -> dict[str, dict[str, Tensor]]:
    """Layer as the file calls it -> its halves {"A": ..., "B": ...}, all finite and of a known float type."""
    where = f"{path.parent.name}/{path.name}"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AlloSR2Error(f"{where}: expected a complete safetensors file; {error}") from error
    matches = {key: KEY.fullmatch(key) for key in tensors}
    unknown = [key for key, match in matches.items() if match is None]
    adapters = {match["adapter"] or "(no name)" for match in matches.values() if match}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, match in matches.items():
        if match:
            pairs.setdefault(match["layer"], {})[match["half"]] = tensors[key]
    halves = [name for name, pair in pairs.items() if len(pair) == 1]
    if unknown or halves or not pairs:
        raise AlloSR2Error(
            f"{where}: expected base_model.model.LAYER.lora_A.weight and .lora_B.weight for each layer; {len(tensors)} "
            f"keys, of these {len(unknown)} of another form: {listed(unknown)}; "
            f"{len(halves)} layers with half a pair: {listed(halves)}"
        )
    if len(adapters) > 1:
        raise AlloSR2Error(f"{where}: expected one adapter, got {len(adapters)}: {listed(list(adapters))}")
    odd = [f"{key} ({tensor.dtype})" for key, tensor in tensors.items() if tensor.dtype not in DTYPES]
    if odd:
        raise AlloSR2Error(f"{where}: expected float16, bfloat16 or float32; {len(odd)} others: {listed(odd)}")
    broken = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise AlloSR2Error(f"{where}: expected finite weights; NaN or infinite in {len(broken)}: {listed(broken)}")
    return pairs
