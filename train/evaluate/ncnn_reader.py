"""Reads the two files of an ncnn model (.param text, .bin weights) into named torch tensors.

Only what the peers in peers.py need: convolutions with bias, slopes and constant tensors. Format: the ncnn project's
own description ("param and model file structure"). Weights of a convolution start with a 4-byte tag: 0x01306B47 is
float16, 0 is float32; every block is padded to 4 bytes; biases and constants are plain float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error

MAGIC = "7767517"
TAG_FLOAT16 = 0x01306B47
TAG_FLOAT32 = 0
WEIGHTLESS = frozenset(
    {"Input", "Split", "Concat", "BinaryOp", "Eltwise", "Swish", "Sigmoid", "ReLU", "Interp", "PixelShuffle"}
)


@dataclass(frozen=True)
class NcnnLayer:
    """One layer that carries weights."""

    kind: str  # "Convolution", "PReLU" or "MemoryData"
    name: str
    weight: Tensor  # convolution: out,in,k,k ; PReLU: channels ; constant: its own shape, outermost first
    bias: Tensor | None  # convolution: out


def read_ncnn(param: Path, binary: Path) -> list[NcnnLayer]:
    """Layers with weights, in file order, fp32.

    Raises:
        AlloSR2Error: not an ncnn text file, a layer kind this reader does not know, or a .bin of another length.
    """
    lines = param.read_text().splitlines()
    if not lines or lines[0].strip() != MAGIC:
        raise AlloSR2Error(f"{param} is no ncnn .param file: expected {MAGIC} in line one, got {lines[:1]}")
    source = _Source(binary.read_bytes(), str(binary))
    layers = [layer for line in lines[2:] if (layer := _read_layer(line, source)) is not None]
    if source.offset != len(source.data):
        raise AlloSR2Error(f"{binary}: {param.name} describes {source.offset} bytes, the file has {len(source.data)}")
    return layers


def convolutions(layers: list[NcnnLayer]) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight, bias) of the convolutions in file order; a missing bias is zero."""
    for layer in layers:
        if layer.kind == "Convolution":
            yield layer.weight, layer.bias if layer.bias is not None else torch.zeros(layer.weight.shape[0])


@dataclass
class _Source:
    data: bytes
    label: str
    offset: int = 0

    def take(self, dtype: str, count: int) -> np.ndarray:
        """`count` little-endian values; the offset then moves on to the next multiple of 4 bytes."""
        size = np.dtype(dtype).itemsize * count
        if self.offset + size > len(self.data):
            raise AlloSR2Error(f"{self.label} ends early: {size} bytes expected at offset {self.offset}")
        values = np.frombuffer(self.data, dtype, count, self.offset)
        self.offset += (size + 3) // 4 * 4
        return values


def _read_layer(line: str, source: _Source) -> NcnnLayer | None:
    words = line.split()
    if not words:
        return None
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    options = dict(word.split("=", 1) for word in words[4 + inputs + outputs :])
    if kind in WEIGHTLESS:
        return None
    if kind == "MemoryData":
        # 0 = width, 1 = height, 2 = channels
        shape = [int(options[key]) for key in ("2", "1", "0") if int(options.get(key, 0)) > 0]
        constant = source.take("<f4", int(np.prod(shape))).reshape(shape)
        return NcnnLayer(kind, name, torch.from_numpy(constant.copy()), None)
    if kind == "PReLU":
        return NcnnLayer(kind, name, torch.from_numpy(source.take("<f4", int(options["0"])).copy()), None)
    if kind == "Convolution":
        # 0 = output channels, 1 = kernel side, 5 = has bias, 6 = number of weights
        out, kernel, count = int(options["0"]), int(options["1"]), int(options["6"])
        tag = int(source.take("<u4", 1)[0])
        if tag not in (TAG_FLOAT16, TAG_FLOAT32):
            raise AlloSR2Error(f"{source.label}: {name} has weight tag {tag:#x}, expected float16 or float32")
        values = source.take("<f2" if tag == TAG_FLOAT16 else "<f4", count).astype(np.float32)
        weight = torch.from_numpy(values.reshape(out, -1, kernel, kernel))
        bias = torch.from_numpy(source.take("<f4", out).copy()) if int(options.get("5", 0)) else None
        return NcnnLayer(kind, name, weight, bias)
    raise AlloSR2Error(f"ncnn layer kind {kind} ({name}) is not supported here")
