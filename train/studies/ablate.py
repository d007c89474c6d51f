"""What each part of the method is worth: variants of one configuration, equal in steps, data and seeds.

python -m train ablate --config train/ablation.toml [--only full,no_atm] [--seeds 1] [--hours 2.5]
    [--table] [--sheet docs/ablation.jpg [--photos european-honey-bee.jpg,citrus-fruits.jpg]]

Runs what is missing, one variant and seed after the other, and goes on where it stopped when it is called again.
--table and --sheet only show what is there. Figures are those of the validation photographs at the end of each run:
mean and standard deviation over the seeds. The sheet has a row per photograph: the input, the variants in the order of
the file, the photograph itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import shutil
import statistics
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from allosr2_core.image.read import load_image
from allosr2_core.image.write import save_image

from ..arguments import counting
from ..config import Config
from ..config_file import from_table, load_config
from ..config_limits import Side
from ..data.crops import bicubic_up
from ..data.degradation import SCALE
from ..evaluate.crops import evenly
from ..loop.loop import run_stage
from ..loop.preview import centre, tile_rows
from ..loop.run_log import LOG
from ..loop.state import load_export, stage_folder
from ..metrics import MetricSuite, load_metric_suite
from ..models.build import AUTOENCODER_EXPORT, PRIOR_EXPORT
from ..stages.prior import flow_matching_error
from ..stages.sr import SRStage
from ..stages.sr_validation import validation_pairs
from .variant_stage import START_KEYS, Start, VariantStage

log = logging.getLogger(__name__)
FIGURES, PICTURES = "figures.json", "pictures"
COLUMNS = {
    "psnr_y": ("PSNR-Y dB", 2),
    "st_lpips_vgg": ("ST-LPIPS", 4),
    "hed_dists": ("HED-DISTS", 4),
    "niqe": ("NIQE", 2),
    "lattice_4": ("lattice 4", 2),
    "lattice_16": ("lattice 16", 2),
    "repeat_4": ("repeat 4", 3),
    "checker": ("checker", 3),
    "curvature": ("curvature C", 3),
    "gap_4_steps": ("1 step minus 4, dB", 2),
    "drift": ("flow-matching error", 3),
    "drift_prior": ("of the untouched prior", 3),
}
"""Figure -> (title, digits)."""


@dataclass(frozen=True)
class Ablation:
    """An ablation's file: variants of a base configuration."""

    base: str
    """Configuration whose autoencoder and prior all variants share; they must have been trained."""
    dir: str
    """Every run is a folder in here."""
    seeds: tuple[int, ...]
    crop: Side
    """Side of a training crop, px: the base's, or less, to afford more runs."""
    optim: dict[str, Any]
    """Settings of [stages.sr.optim] that differ from the base's, the same in every variant: fewer steps, mostly."""
    sr: dict[str, Any]
    """Settings of [stages.sr] that differ from the base's, likewise."""
    variants: dict[str, Any]
    """Name -> settings of [stages.sr] that differ, and of `Start`."""


def load_ablation(path: Path) -> Ablation:
    """Read the file; AlloSR2Error on a missing file, wrong keys or a variant with an unknown setting."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise AlloSR2Error(f"expected an ablation at {path}; {error}") from error
    return from_table(Ablation, table, path.name)


def variant_config(ablation: Ablation, base: Config, name: str, seed: int) -> Config:
    """The base configuration with one variant's settings, in a run folder of its own."""
    stage = dataclasses.asdict(base.stages.sr)
    settings = ablation.sr | {k: v for k, v in ablation.variants[name].items() if k not in START_KEYS}
    unknown = sorted(settings.keys() - stage.keys())
    if unknown:
        raise AlloSR2Error(f"variants.{name}: expected settings of [stages.sr]; unknown: {', '.join(unknown)}")
    table = dataclasses.asdict(base)
    merged = {
        "optim": stage["optim"] | ablation.optim,
        "weights": stage["weights"] | ablation.sr.get("weights", {}) | settings.get("weights", {}),
    }
    table["stages"]["sr"] = stage | {"perceptual_from": 0, "atm_from": 0} | settings | merged
    table["data"] |= {"crop": ablation.crop}
    run = {"dir": str(Path(ablation.dir) / f"{name}-{seed}"), "seed": seed, "preview_every": 0}
    table["run"] |= run
    return from_table(Config, json.loads(json.dumps(table)), f"variants.{name}")


def variant_start(ablation: Ablation, name: str) -> Start:
    """Where a variant's steps start."""
    settings = {k: v for k, v in ablation.variants[name].items() if k in START_KEYS}
    return from_table(Start, dataclasses.asdict(Start()) | settings, f"variants.{name}")


def run_variant(config: Config, start: Start, base: Config, suite: MetricSuite, deadline: float) -> bool:
    """Train and measure one variant; False when the deadline or an interrupt came first (its state is kept)."""
    run = Path(config.run.dir)
    for export in (AUTOENCODER_EXPORT, PRIOR_EXPORT):
        if not (run / export).exists():
            (run / export).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(base.run.dir) / export, run / export)
    stage = VariantStage(config, start)
    if run_stage(stage, config, deadline=deadline) < config.stages.sr.optim.steps:
        return False
    for name, module in stage.trained.items():
        load_export(module, stage_folder(run, stage.name) / f"{name}.safetensors")
    text = json.dumps(figures(stage, suite, run / PICTURES) | {"hours": _hours(run)}, indent=1)
    write_atomically(run / FIGURES, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return True


@torch.no_grad()
def figures(stage: SRStage, suite: MetricSuite, pictures: Path) -> dict[str, float]:
    """Means over the stage's validation crops, with the weights it has. The results are written into `pictures`."""
    pictures.mkdir(exist_ok=True)
    rows: list[dict[str, float]] = []
    latents: list[Tensor] = []
    for number, pair in enumerate(stage.pairs()):
        result, reference = stage.restore(pair, number), suite.reference(pair.hr)
        measured, four = (suite.measure(picture, reference) for picture in (result.picture, result.four_steps))
        rows.append(measured | {"curvature": result.curvature, "gap_4_steps": measured["psnr_y"] - four["psnr_y"]})
        latents.append(pair.z_hr)
        save_image(pictures / picture_name(number), result.picture[0].permute(1, 2, 0))
    means = {}
    for name in rows[0]:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        if values:  # a metric may need larger pictures
            means[name] = statistics.fmean(values)
    drift, of_prior = (flow_matching_error(velocity, latents) for velocity in (stage.trained["velocity"], stage.prior))
    return means | {"drift": drift, "drift_prior": of_prior}


def _hours(run: Path) -> float:
    lines = (stage_folder(run, SRStage.name) / LOG).read_text(encoding="utf-8").splitlines()
    return max(json.loads(line).get("seconds", 0.0) for line in lines) / 3600


def table(found: Mapping[str, list[Mapping[str, float]]]) -> str:
    """Markdown: a row per variant, mean and standard deviation over its seeds."""
    lines = ["| variant | seeds | " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("|---|---:|" + "---:|" * len(COLUMNS))
    for name, runs in found.items():
        cells = []
        for column, (_, digits) in COLUMNS.items():
            values = [run[column] for run in runs if column in run]
            cell = f"{statistics.fmean(values):.{digits}f}" if values else ""
            cells.append(cell + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""))
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(ablation: Ablation, base: Config, photos: Sequence[str] = (), rows: int = 6, side: int = 192) -> Tensor:
    """Rows of validation photographs' centres, as [1, 3, H, W]: the input, every finished variant, the photograph.

    A variant is shown by its first finished seed. `photos`: file names, in order; else `rows` of them, evenly spread.
    """
    runs = [Path(ablation.dir) / f"{name}-{seed}" for name in ablation.variants for seed in ablation.seeds]
    first = {run.name.rpartition("-")[0]: run for run in reversed(runs) if (run / FIGURES).exists()}
    folders = [first[name] / PICTURES for name in ablation.variants if name in first]
    if not folders:
        raise AlloSR2Error(f"expected finished runs in {ablation.dir}; there is none")
    pairs = validation_pairs(base)
    unknown = sorted(set(photos) - pairs.keys())
    if unknown:
        raise AlloSR2Error(
            f"--photos: expected names of validation photographs ({', '.join(pairs)}); got {', '.join(unknown)}"
        )
    numbers = {photo: number for number, photo in enumerate(pairs)}
    chosen = photos or evenly(list(pairs), rows)
    side = min(side, *(extent for photo in chosen for extent in pairs[photo][0].shape[-2:]))
    grid = []
    for photo in chosen:
        hr, lr = pairs[photo]
        results = [load_image(folder / picture_name(numbers[photo])).rgb_HWC for folder in folders]
        pictures = [bicubic_up(lr, SCALE), *(rgb.permute(2, 0, 1)[None] for rgb in results), hr]
        grid.append([centre(picture, side) for picture in pictures])
    return tile_rows(grid)


def picture_name(number: int) -> str:
    """File of a variant's result for the validation pair of this number."""
    return f"{number:02d}.png"


def collect(ablation: Ablation) -> dict[str, list[Mapping[str, float]]]:
    """Figures of the runs that are finished, by variant."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for name in ablation.variants:
        paths = [Path(ablation.dir) / f"{name}-{seed}" / FIGURES for seed in ablation.seeds]
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        if runs:
            found[name] = runs
    return found


def _listed(names: str | None) -> list[str]:
    return names.split(",") if names else []


def main(argv: list[str]) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="python -m train ablate", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("train/ablation.toml"))
    parser.add_argument("--only", help="variants to run, separated by commas")
    parser.add_argument("--seeds", type=counting, help="only so many of the seeds")
    parser.add_argument("--hours", type=float, default=math.inf, help="stop, resumably, after so many hours")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where the metrics' weights are")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--sheet", type=Path, help="draw the pictures of what is there; run nothing")
    parser.add_argument("--photos", help="validation photographs on the sheet, separated by commas (default: six)")
    arguments = parser.parse_args(argv)
    ablation = load_ablation(arguments.config)
    base = load_config(Path(ablation.base))
    names = _listed(arguments.only) or list(ablation.variants)
    unknown = sorted(set(names) - ablation.variants.keys())
    if unknown:
        raise AlloSR2Error(
            f"--only: expected names of variants ({', '.join(ablation.variants)}); got {', '.join(unknown)}"
        )
    if not arguments.hours >= 0:
        raise AlloSR2Error(f"--hours: expected 0 or more; got {arguments.hours:g}")
    if arguments.photos and not arguments.sheet:
        raise AlloSR2Error("--photos chooses the rows of a sheet: expected --sheet FILE beside it")
    if arguments.sheet:
        arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
        save_image(arguments.sheet, sheet(ablation, base, _listed(arguments.photos))[0].permute(1, 2, 0))
    if not (arguments.table or arguments.sheet):
        suite, deadline = load_metric_suite(arguments.root), time.monotonic() + 3600 * arguments.hours
        for seed in ablation.seeds[: arguments.seeds]:
            for name in names:
                config = variant_config(ablation, base, name, seed)
                if (Path(config.run.dir) / FIGURES).exists():
                    continue
                if not run_variant(config, variant_start(ablation, name), base, suite, deadline):
                    log.info("%s, seed %d: stopped, call again to go on", name, seed)
                    print(table(collect(ablation)))  # noqa: T201
                    return 0
    print(table(collect(ablation)))  # noqa: T201 - the table is the result
    return 0
