"""What a run keeps on disk: resumable state and the one before it, averaged weights, exports. Every write is atomic."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically

from .. import former_names

log = logging.getLogger(__name__)
STATE = "state.pt"
"""Name of the resumable state in a stage's folder."""
OLDER = "state.older.pt"
"""The one saved before it, for a disk that loses the last."""
LOCK = ".lock"
RECORD = "training.json"
"""Beside the modules of an unpacked checkpoint: how it was trained."""


def stage_folder(run: Path, stage: str) -> Path:
    """A stage's folder in a run; in an older run, the one it has there."""
    former = run / former_names.STAGES.get(stage, stage)
    return former if former.exists() and not (run / stage).exists() else run / stage


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a stage's folder to one run; the lock ends with the process. AlloSR2Error where another run holds it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AlloSR2Error(
            f"expected {folder} to itself; another run is training in it: wait for it, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def has_state(folder: Path) -> bool:
    """Whether a run was started in a stage's folder."""
    return (folder / STATE).exists() or (folder / OLDER).exists()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a resumable state; one that was there becomes the older one beside it (`OLDER`).

    AlloSR2Error where the disk does not take it, and both are as they were.
    """

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # torch's own files hide what the system says about a full disk
            torch.save(state, file)
        if path.exists():
            _keep(path, path.with_name(OLDER))

    _put(path, write)


def _keep(path: Path, older: Path) -> None:
    """Give a file a second name, whose former file goes; the first name is there all along where links are known."""
    link = older.with_suffix(".part")
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        os.replace(path, older)
    else:
        os.replace(link, older)


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """`write_atomically`, whose errors say in one line what the system said."""
    try:
        write_atomically(path, write)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise AlloSR2Error(f"{path}: could not be written: {_reason(error)}; what was there is kept") from error


def _reason(error: BaseException) -> str:
    """What the system said below an error of a writer, e.g. "No space left on device"; else its own first line."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return (str(error) or type(error).__name__).splitlines()[0]


def load_state(path: Path) -> dict[str, Any]:
    """Read a resumable state, or, where it is damaged or gone, the older one beside it, and say so.

    AlloSR2Error when there is none or it is not one of ours.
    """
    try:
        return _read_state(path)
    except AlloSR2Error as error:
        older = path.with_name(OLDER)
        if path.name != STATE or not older.exists():
            raise
        state = _read_state(older)
        log.warning("%s; going on from %s, of step %d", error, older.name, state["step"])
        return state


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AlloSR2Error(f"expected a resumable state at {path}; there is none") from None
    except Exception as error:  # noqa: BLE001 - whatever unpickling a foreign file raises
        said = (str(error) or "no more is known").splitlines()[0]
        raise AlloSR2Error(f"expected a resumable state at {path}; {type(error).__name__}: {said}") from error
    needed = {"trained", "averaged", "optimizer", "step", "seconds"}
    if not isinstance(state, dict) or not needed <= state.keys():
        raise AlloSR2Error(
            f"expected {sorted(needed)} in {path}; got {sorted(state) if isinstance(state, dict) else state!r}"
        )
    return state


def find_state(place: Path) -> Path:
    """The state a user means by naming a file, a stage's folder, or a run of one stage."""
    return place if place.is_file() else place / STATE


def history_of(folder: Path) -> list[dict[str, Any]]:
    """What led to the modules in a folder, oldest first: runs (steps, hours, settings) or a checkpoint's record."""
    if has_state(folder):
        state = load_state(folder / STATE)
        hours = round(state["seconds"] / 3600, 3)
        return [
            *state.get("history", []),
            {"steps": state["step"], "hours": hours, "settings": state.get("settings", {})},
        ]
    record = folder / RECORD
    return [json.loads(record.read_text(encoding="utf-8"))] if record.exists() else []


def hold(module: nn.Module) -> None:
    """Leave what is trained in a module as it is: not differentiated any more, but saved, averaged and exported."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.requires_grad_(False)
            parameter.held = True  # type: ignore[attr-defined]


def is_trained(parameter: nn.Parameter) -> bool:
    """Whether a parameter is part of what a run makes: it learns, or is held (`hold`)."""
    return parameter.requires_grad or getattr(parameter, "held", False)


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state without frozen parameters: a network trained whole, or the branches of an adapted one."""
    frozen = {name for name, parameter in module.named_parameters() if not is_trained(parameter)}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def load_trained_state(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Set what `trained_state` gives; AlloSR2Error when names or shapes are others."""
    expected = {name: tuple(value.shape) for name, value in trained_state(module).items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        first = other[0]
        raise AlloSR2Error(
            f"{where}: expected the {len(expected)} trained tensors of this configuration; {len(other)} differ, "
            f"first {first!r}: expected {expected.get(first)}, got {found.get(first)}"
        )
    module.load_state_dict(tensors, strict=False)


def export(trained: nn.ModuleDict, folder: Path) -> None:
    """Write each trained module as folder/<name>.safetensors: what the next stage starts from."""
    for name, module in trained.items():
        tensors = {key: value.contiguous() for key, value in trained_state(module).items()}
        _put(folder / f"{name}.safetensors", lambda partial, t=tensors: save_file(t, partial))


def load_export(module: nn.Module, path: Path) -> None:
    """Fill a module, or the branches of an adapted one, from a stage's export.

    AlloSR2Error says which command makes a missing file, or that the file is one of another configuration.
    """
    if not path.exists():
        raise AlloSR2Error(f"expected {path}; run `python -m train {path.parent.name}` first")
    load_trained_state(module, load_file(path), str(path))


class Averages:
    """Exponential moving average of the trained parameters; warms up so that early steps are forgotten quickly."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = {name: p for name, p in module.named_parameters() if is_trained(p)}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), [p.detach() for p in self.parameters.values()], 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Run with the averages in the module; afterwards its own parameters are back, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(own)

    def of(self, name: str) -> dict[str, Tensor]:
        """The averages of one of the modules, by the names of its parameters."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self.values

    @torch.no_grad()
    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        """Set the averages; other tensors (buffers) in `values` are left out."""
        for name, value in self.values.items():
            value.copy_(values[name])
