"""What kind of machine this is, as far as the last bits of float32 results go.

Which kernels torch takes depends on its build, the processor and a few environment variables. What they compute is
looked at here, instead of what the machine says of itself: operations of the kinds and sizes that the networks use, on
fixed values. Nothing of AlloSR2 takes part, so no change to it passes for another machine. Two machines that agree in
all of it are of one kind, and results are compared to the bit between them.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS"),
    *("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA"),
)
"""Of the environment, that choose kernels or how the work is cut."""
_CONVOLUTIONS = (  # of the embedded U-Net and autoencoder: channels in and out, side of the kernel, stride
    *((16, 64, 3, 1), (64, 64, 3, 1), (128, 128, 3, 1), (192, 192, 3, 1), (64, 32, 3, 1), (48, 64, 3, 1)),
    *((19, 16, 3, 1), (16, 3, 3, 1), (64, 256, 1, 1), (64, 128, 2, 2), (3, 16, 4, 4)),
)


def uniform(seed: int, *shape: int) -> Tensor:
    """Values evenly spread over -1 to 1, the same on every machine."""
    count = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    return torch.from_numpy(raw).to(torch.float32).div_(2**15).reshape(shape)


@cache
def kind_of_machine(threads: int) -> str:
    """Torch's version and a digest of what this machine computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    try:
        with torch.inference_mode():
            for result in _results():
                digest.update(result.contiguous().numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    return f"torch {torch.__version__}, {digest.hexdigest()[:12]}"


def kind_of_new_process() -> str:
    """That of a program that is started here and leaves the number of threads to torch, as ComfyUI does."""
    command, root = [sys.executable, "-m", "tests.golden.arithmetic"], Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def describe_machine() -> str:
    """Processor, torch's kernels and the variables that are set."""
    names = {"vendor_id": "", "cpu family": "", "model": "", "model name": ""}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() in names:
            names[key.strip()] = value.strip()
    found = " ".join(filter(None, names.values())) or platform.processor()
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    kernels, cores = torch.backends.cpu.get_cpu_capability(), f"{os.cpu_count()} cores"
    return ", ".join([platform.machine(), found, cores, kernels, *variables])


def _results() -> Iterator[Tensor]:
    yield from _convolutions()
    for rows, inner, columns in ((1, 256, 256), (1, 256, 384), (60, 64, 3072), (51, 3072, 128), (288, 96, 3)):
        yield functional.linear(uniform(1, rows, inner), uniform(2, columns, inner), uniform(3, columns))
        yield uniform(4, 3, rows, inner) @ uniform(5, 3, inner, columns)
    q, k, v = (uniform(seed, 1, 4, 51, 128) for seed in (6, 7, 8))
    yield functional.scaled_dot_product_attention(q, k, v)
    yield from _pointwise(uniform(9, 5, 1000) * 4.0)
    yield from _over_pictures(uniform(10, 1, 64, 37, 50))


def _convolutions() -> Iterator[Tensor]:
    for layout in (torch.channels_last, torch.contiguous_format):
        for number, (into, out, side, stride) in enumerate(_CONVOLUTIONS):
            x = uniform(number, 1, into, 36, 52).contiguous(memory_format=layout)
            weight = uniform(100 + number, out, into, side, side).contiguous(memory_format=layout)
            yield functional.conv2d(x, weight, uniform(200 + number, out), stride=stride)
            if stride > 1:
                yield functional.conv_transpose2d(uniform(number, 1, out, 9, 13), weight, stride=stride)


def _pointwise(x: Tensor) -> Iterator[Tensor]:
    for function in (torch.exp, torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.erf, functional.silu):
        yield function(x)
    yield functional.gelu(x, approximate="tanh")
    positive = x.abs() + 1e-3
    yield from (positive.log(), positive.sqrt(), positive.rsqrt(), positive.pow(1.0 / 2.4), positive.log10())
    yield from (x.softmax(-1), x.sum(), x.mean(-1), x.var(-1), x.square().mean(), x.cumsum(-1), x.norm(dim=-1))
    yield x.quantile(0.25)


def _over_pictures(x: Tensor) -> Iterator[Tensor]:
    yield from (functional.group_norm(x, 32), functional.layer_norm(x, x.shape[-1:]), functional.rms_norm(x, (50,)))
    yield from (
        functional.avg_pool2d(x, 9, 1, 4, count_include_pad=False),
        x.mean((2, 3)),
        x.movedim(1, -1) @ x[0, :, 0],
    )
    for mode in ("bilinear", "bicubic"):
        yield functional.interpolate(x, scale_factor=4.0, mode=mode)
        yield functional.interpolate(x, size=(21, 30), mode=mode, antialias=True)


if __name__ == "__main__":
    sys.stdout.write(kind_of_machine(torch.get_num_threads()) + "\n")
