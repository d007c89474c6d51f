"""What `inspect` says about a checkpoint."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import cut, one_line
from ..precision import auto, name_of
from ..safetensors_file import opened
from .contents import GROUPS
from .format import load_checkpoint

LONGEST_KEY, LONGEST_TEXT = 80, 2000
"""Characters shown of a field."""
_GROUP_MEANS = {
    "flow.": "generative prior",
    "vae.": "autoencoder",
    "lora.transformer.": "adapter of the flow",
    "lora.vae_encoder.": "adapter of the encoder",
    "snr_head.": "SNR head",
    "null.": "empty prompt",
}


def describe(path: str | Path) -> str:
    """Configuration, training record and tensor groups of a verified checkpoint, as text ending in a newline.

    Raises AlloSR2Error with the reason when the file is refused.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path)
    with opened(path, path.name) as file:
        metadata = {key: value for key, value in (file.metadata() or {}).items() if not value.startswith("{")}
        dtypes = {name: file.get_slice(name).get_dtype() for name in checkpoint.tensors}
    lines = [f"{one_line(str(path))} ({path.stat().st_size / 2**20:.2f} MiB)"]
    lines += ["", "metadata", *_fields(metadata)]
    lines += ["", "config", *_fields(dataclasses.asdict(checkpoint.config))]
    lines += ["", "training", *(_fields(checkpoint.training) or ["  (not recorded)"])]
    lines += ["", "tensors"]
    for prefix in GROUPS:
        names = [name for name in checkpoint.tensors if name.startswith(prefix)]
        values = sum(checkpoint.tensors[name].numel() for name in names)
        kinds = "/".join(sorted({dtypes[name] for name in names})) or "-"
        meaning = _GROUP_MEANS.get(prefix, "")
        lines.append(
            f"  {prefix + '*':<20} {len(names):>5} tensors {values:>12,} values  {kinds:<8} {meaning}".rstrip()
        )
    total = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    lines.append(f"  {'all':<20} {len(checkpoint.tensors):>5} tensors {total:>12,} values")
    lines += ["", f"computed here in {name_of(auto(torch.device('cpu')))} (upscale --dtype auto)"]
    return "\n".join(lines) + "\n"


def _fields(values: Mapping[str, Any]) -> list[str]:
    """One line a field; text as it is, anything else as JSON; what terminals take for commands as escapes."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        for key, value in values.items()
    }
    return [
        f"  {one_line(cut(key, LONGEST_KEY))}: {one_line(cut(text, LONGEST_TEXT))}"
        for key, text in sorted(texts.items())
    ]
