"""Run inside ComfyUI's own modules: adapters on small random host models of every family. Prints one JSON object.

python family_worker.py COMFYUI_ROOT PACK FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from host_worker import load_pack


@torch.inference_mode()
def main(root: str, pack: str, folder: str) -> dict[str, Any]:
    sys.path.insert(0, str(Path(pack) / "tools"))
    from launch_comfyui import host_modules

    host_modules(root, cpu=True)
    load_pack(Path(pack))
    import family_cases as cases
    from host_families import MODELS, adapter_of, model_of, vae_of

    models = {family: model_of(family) for family in MODELS}
    vaes = {family: vae_of(family) for family in MODELS}
    adapters = {family: adapter_of(family, models[family], Path(folder)) for family in MODELS}
    out: dict[str, Any] = {
        family: cases.one_step(family, models[family], vaes[family], adapters[family]) for family in MODELS
    }
    flux = (models["flux"], vaes["flux"], adapters["flux"])
    return out | {
        "refusals": cases.refusals(models, vaes, adapters),
        "namings": cases.namings(*flux[1:]),
        "strips": cases.strips(vaes["flux"]),
        "starts": cases.starts(*flux),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
