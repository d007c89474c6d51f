"""Names of older versions: commands, stages, configuration keys. Each is answered with what it is called."""

from __future__ import annotations

from collections.abc import Mapping

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
