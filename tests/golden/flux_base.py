"""The files that the FLUX.1 example workflow names, with random weights: a base of one block of each kind, an adapter.

flux_files.json has the adapter's configuration and the names and shapes of all tensors, so that nothing but the files'
format is taken from the library. The transformer has FLUX.1's width, by which ComfyUI recognises it.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .arithmetic import uniform

FILES = {
    "transformer": "diffusion_models/flux1-dev.safetensors",
    "autoencoder": "vae/ae.safetensors",
    "adapter": "allosr2/allosr2-flux1-dev.safetensors",
}
"""Below the models folder, as the workflow has them."""


@contextmanager
def flux_files(models: Path) -> Iterator[None]:
    """Put the files into a models folder, 1.3 GB for as long as the block runs."""
    document = json.loads(Path(__file__).with_name("flux_files.json").read_text(encoding="utf-8"))
    metadata = {"allosr2.format": "1", "allosr2.config": json.dumps(document["config"])}
    try:
        for part, name in FILES.items():
            path = models / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(_random(document[part]), path, metadata if part == "adapter" else None)
        yield
    finally:
        for name in FILES.values():
            (models / name).unlink(missing_ok=True)


def _random(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: _values(name, tuple(shape)).half() for name, shape in shapes.items()}


def _values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Under which every tensor matters and a picture stays visible; each name has a seed of its own."""
    values = uniform(zlib.crc32(name.encode()), *shape)
    if name.endswith(".alpha"):
        return torch.tensor(2.0)
    if len(shape) == 1:
        is_gain = name.endswith("scale") or (".norm" in name and name.endswith("weight"))
        return values.mul_(0.1).add_(float(is_gain))
    spread = 0.3 if name.endswith(("decoder.conv_out.weight", "lora_B.weight")) else 1.0
    return values.mul_(spread * math.sqrt(3.0 / math.prod(shape[1:])))  # variance 1 / inputs
