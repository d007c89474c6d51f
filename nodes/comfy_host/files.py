"""Checkpoints in the host's model folders: the folder, the names in it, the file behind a name."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...allosr2_core.checkpoint.format import EMBEDDED_NAME, embedded_path
from ...allosr2_core.errors import AlloSR2Error, shown

FOLDER = "allosr2"
SUFFIXES = {".safetensors"}


def register_folder() -> None:
    """Let the host look for checkpoints in models/allosr2 (and wherever the user's path file points it)."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    # a folder that is new to the host has no suffixes, which means every file; no function of the host adds some
    folders, suffixes = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (folders, set(suffixes) | SUFFIXES)


def checkpoint_names() -> list[str]:
    """The loader's choices: the embedded checkpoint, then the files of models/allosr2."""
    return [EMBEDDED_NAME, *folder_paths.get_filename_list(FOLDER)]


def checkpoint_path(name: str) -> Path:
    """The file behind a choice. AlloSR2Error for a name outside the folder or a file that is gone."""
    if name == EMBEDDED_NAME:
        return embedded_path()
    if not isinstance(name, str):
        raise AlloSR2Error(f"expected the checkpoint to be a name; got {shown(name)}")
    outside = Path(name).is_absolute() or ".." in Path(name).parts
    found = None if outside else folder_paths.get_full_path(FOLDER, name)
    if found is None:
        raise AlloSR2Error(
            f"expected the checkpoint to be one of {', '.join(checkpoint_names())} (files of models/{FOLDER}); "
            f"got {shown(name)}"
        )
    return Path(found)


def fingerprint(name: str) -> tuple[str, int, int]:
    """The file behind a choice: changes when it is replaced."""
    state = checkpoint_path(name).stat()
    return name, state.st_mtime_ns, state.st_size
