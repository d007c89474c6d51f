"""What `python -m train evaluate` compares: our checkpoint and the peers as one callable each; results kept on disk.

A stored result is found by the sha256 of everything it depends on. A restored picture: the method's weights and
settings and the pixels of the input; our own also on every source file of the core. Its figures: that, the pixels of
the reference, and METRICS_VERSION.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import allosr2_core
from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from allosr2_core.image.read import load_image
from allosr2_core.image.write import save_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline

from ..data.degradation import SCALE
from ..downloads.wheels import SOURCES, sha256_of
from ..metrics import quantise
from ..metrics.suite import METRICS_VERSION
from .crops import tensor_digest
from .peers import PEERS, load_peer

OURS = "allosr2"
AT_SCALE = UpscaleOptions(scale=float(SCALE))
AT_SIZE = "allosr2-at-size"
"""Ours, but the network restores a picture of the result's own size, not one of four times the input."""
METHODS = ("bicubic", OURS, *(name for name in PEERS if name != "bicubic"))
ANY_FACTOR = ("bicubic", OURS, AT_SIZE)
"""The methods that do not always enlarge by 4."""
Restore = Callable[[Tensor], Tensor]  # 1,3,h,w in [0, 1] -> 1,3,h*factor,w*factor in [0, 1]


@dataclass(frozen=True)
class Method:
    """One upscaler. `identity` changes whenever its results could."""

    name: str
    identity: str
    restore: Restore


def load_method(name: str, root: Path, checkpoint: Path | None = None, options: UpscaleOptions = AT_SCALE) -> Method:
    """A method by name; networks are built when they first run. checkpoint: of ours.

    options: of ours; their whole `scale` is everybody's factor. AlloSR2Error for a method that has another.
    """
    factor = int(options.scale or SCALE)
    if factor != SCALE and name not in ANY_FACTOR:
        raise AlloSR2Error(f"expected methods of {', '.join(ANY_FACTOR)} at a factor of {factor}; got {name}")
    if name in (OURS, AT_SIZE):
        return our_method(checkpoint, options, name)
    source = PEERS.get(name)
    identity = f"{name} {SOURCES[source].sha256 if source else factor}"
    return Method(name=name, identity=identity, restore=_lazy(lambda: load_peer(name, root, factor)))


def our_method(checkpoint: Path | None = None, options: UpscaleOptions = AT_SCALE, name: str = OURS) -> Method:
    """Our checkpoint through the same pipeline as `python -m allosr2_core upscale` and the nodes; or `AT_SIZE`."""
    path = checkpoint or embedded_path()
    if not path.is_file():
        raise AlloSR2Error(f"{path.name}: expected a checkpoint file at {path.parent}; there is none")
    identity = f"{name} {sha256_of(path)} {options} {core_digest()}"
    return Method(name=name, identity=identity, restore=_lazy(lambda: _load_ours(path, options, name == AT_SIZE)))


def _load_ours(path: Path, options: UpscaleOptions, at_size: bool) -> Restore:
    checkpoint = load_checkpoint(path)
    if at_size:
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, scale=int(options.scale or SCALE)))
    upscaler = Pipeline.from_checkpoint(checkpoint)

    def restore(lr_BCHW: Tensor) -> Tensor:
        image_BHWC = lr_BCHW.permute(0, 2, 3, 1)
        return upscaler.upscale(image_BHWC, options).permute(0, 3, 1, 2)

    return restore


def _lazy(load: Callable[[], Restore]) -> Restore:
    loaded = functools.cache(load)
    return lambda lr_BCHW: loaded()(lr_BCHW)


def core_digest() -> str:
    """sha256 over the source files of the core."""
    folder = Path(allosr2_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ResultStore:
    """Metric values, and restored pictures, by key; `folder` None keeps nothing."""

    folder: Path | None

    @staticmethod
    def restored_key(method: Method, lr_digest: str) -> str:
        """Of a restored picture and the seconds it took; it outlives a change of the metrics."""
        return hashlib.sha256(f"{method.identity}\n{lr_digest}".encode()).hexdigest()

    @staticmethod
    def measured_key(restored_key: str, hr_digest: str) -> str:
        """Of the metric values of a restored picture against a reference."""
        return hashlib.sha256(f"metrics {METRICS_VERSION}\n{restored_key}\n{hr_digest}".encode()).hexdigest()

    def restored(self, method: Method, lr_BCHW: Tensor, shape: torch.Size) -> tuple[Tensor, dict[str, float]]:
        """A method's picture, rounded to 8 bit, and {"seconds": it took}: stored, or made and stored.

        AlloSR2Error where it has another shape than the reference's.
        """
        key = self.restored_key(method, tensor_digest(lr_BCHW))
        made, picture = self.load(key), self.load_picture(key)
        if made is None or picture is None:
            started = time.perf_counter()
            picture = quantise(method.restore(lr_BCHW))
            made = {"seconds": time.perf_counter() - started}
            if picture.shape != shape:
                raise AlloSR2Error(
                    f"{method.name}: expected a picture of shape {tuple(shape)}, got {tuple(picture.shape)}"
                )
            self.save_picture(key, picture)
            self.save(key, made)
        return picture, made

    def load(self, key: str) -> dict[str, float] | None:
        """Stored values, None when there are none."""
        path = self._path(key, ".json")
        if path is None or not path.is_file():
            return None
        return {name: float("nan") if value is None else value for name, value in json.loads(path.read_text()).items()}

    def save(self, key: str, values: dict[str, float]) -> None:
        """Atomic; NaN is stored as null."""
        path = self._path(key, ".json")
        if path is None:
            return
        text = json.dumps({n: None if v != v else v for n, v in values.items()})
        write_atomically(path, lambda partial: partial.write_text(text))

    def load_picture(self, key: str) -> Tensor | None:
        """Stored restored picture 1,3,H,W."""
        path = self._path(key, ".png")
        if path is None or not path.is_file():
            return None
        return load_image(path).rgb_HWC.permute(2, 0, 1)[None]

    def save_picture(self, key: str, sr_BCHW: Tensor) -> None:
        path = self._path(key, ".png")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, sr_BCHW[0].permute(1, 2, 0))

    def _path(self, key: str, suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}{suffix}"
