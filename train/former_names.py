"""Names of older versions: commands, stages, configuration keys. Each is answered with what it is called.

And keys that older configurations lack: they stand for what was done before there was a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMMANDS = {
    "allosr2": "sr",
    "head": "snr_head",
    "calibrate": "export",
    "mix": "interpolate",
    "wheels": "downloads",
}
STAGES = {"sr": "allosr2", "snr_head": "head"}
"""Stage -> the name of its folder in older runs."""
_TABLES = {
    "codec": "autoencoder",
    "autoencoder": "stages.autoencoder",
    "prior": "stages.prior",
    "allosr2": "stages.sr",
    "head": "stages.snr_head",
}
_WEIGHTS = (
    *("rec_pixel", "rec_latent", "fatc", "anchor", "atm_match", "atm_fake"),
    *("snr_head", "lattice", "repeat", "grain", "decode"),
)
KEYS = (
    {old: new for old, new in _TABLES.items() if old != "autoencoder"}
    | {f"autoencoder.{key}": f"stages.autoencoder.{key}" for key in ("optim", "pca_patches", "latent_noise")}
    | {"stages.sr.trunks": "stages.sr.perceptual"}
    | {f"stages.sr.{loss}": f"stages.sr.weights.{loss}" for loss in _WEIGHTS}
)
"""Configuration keys -> what they are called."""
GONE = ("stages.sr.checker", "stages.sr.t_fixed", "stages.sr.start_noise")
"""Configuration keys for what only a comparison needs (`train.studies.ablate`), or nothing."""

ADDED: dict[str, Any] = {
    "data.grey": 0.0,
    "stages.sr.sharpen_sigma": 2.0,
    "stages.sr.sharpen_threshold": 4.0,
}
"""Configuration keys that may be missing, and what they are then."""


def completed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's table with the keys of `ADDED` that it lacks, where the table they belong into is there."""
    whole = dict(table)
    for path, value in ADDED.items():
        whole = _with(whole, path.split("."), value)
    return whole


def _with(table: Mapping[str, Any], path: Sequence[str], value: object) -> dict[str, Any]:
    """A table with a value at a path, unless there is one, or no table to hold it."""
    first, *rest = path
    if not rest:
        return {first: value, **table}
    inner = table.get(first)
    return {**table, first: _with(inner, rest, value)} if isinstance(inner, Mapping) else dict(table)


def settings(stored: Mapping[str, str]) -> dict[str, str]:
    """The settings in a run's state, flat, under the keys of today."""
    if "codec.type" not in stored:
        return dict(stored)
    renamed = {}
    for key, value in stored.items():
        table, _, rest = key.partition(".")
        path = f"{_TABLES[table]}.{rest}" if table in _TABLES else key
        weight = "stages.sr.weights.perceptual" if key == "allosr2.perceptual" else None
        renamed[weight or KEYS.get(path, path)] = value
    return renamed
