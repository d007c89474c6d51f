"""One self-contained HTML page about a run: settings, curves of every figure, previews.

python -m train report runs/mini [--out runs/mini/report.html]
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import logging
import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from allosr2_core.errors import AlloSR2Error
from allosr2_core.files import write_atomically
from allosr2_core.image.opening import open_picture

from ..loop.run_log import LOG
from ..loop.state import STATE, has_state, load_state, stage_folder
from ..stages.registry import STAGES

log = logging.getLogger(__name__)
COLUMNS = 4
SMOOTHING = 15
"""Logged values the running mean of a loss term spans."""
PREVIEWS = 6
"""Preview strips shown of each stage, spread over the run; the first and the last always."""
STRIP_WIDTH = 1600
"""px, wider strips are shrunk."""
VALIDATION = "val_"
SPEED = ("steps_per_s", "images_per_s", "seconds")

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }
h1, h2, h3 { font-weight: 600 } img, svg { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .1em .8em .1em 0; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums } figure { margin: 1em 0 } summary { cursor: pointer }
"""


def read_log(path: Path) -> list[dict[str, float]]:
    """Lines of a log.jsonl; a last line cut by a kill is left out. AlloSR2Error where another is no JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise AlloSR2Error(f"{path}: expected JSON in line {number}; {error}") from error
    return rows


def series(rows: list[dict[str, float]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (steps, values)}. Where a run was resumed from an older state, the steps it repeated replace the first."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                values.setdefault(name, {})[int(row["step"])] = float(value)
    return {
        name: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in values.items()
    }


def running_mean(values: np.ndarray, span: int) -> np.ndarray:
    """Mean over a centred window, which shrinks at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - span // 2), np.minimum(len(values), index + span // 2 + 1)
    return (sums[high] - sums[low]) / (high - low)


def curves(named: dict[str, tuple[np.ndarray, np.ndarray]], smoothing: int) -> str:
    """Small multiples, one a name, as inline SVG. `smoothing` > 1 draws a running mean over the raw values."""
    from matplotlib.figure import Figure

    lines = math.ceil(len(named) / COLUMNS)
    figure = Figure(figsize=(12, 2.1 * lines), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis, (name, (steps, values)) in zip(axes, named.items(), strict=False):
        if smoothing > 1 and len(values) > smoothing:
            axis.plot(steps, values, color="#b8c4d6", linewidth=0.6)
            axis.plot(steps, running_mean(values, smoothing), color="#1f4e8c", linewidth=1.3)
        else:
            axis.plot(steps, values, color="#1f4e8c", linewidth=1.3, marker="o", markersize=2.5)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(named) :]:
        axis.set_axis_off()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def spread(items: list[Path], count: int) -> list[Path]:
    """At most `count` of them, evenly spaced, with the first and the last."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def inline_picture(path: Path) -> str:
    """An <img> that holds the picture itself, as JPEG of at most STRIP_WIDTH."""
    with open_picture(path) as image:
        picture = image.convert("RGB")
    if picture.width > STRIP_WIDTH:
        picture = picture.resize((STRIP_WIDTH, round(picture.height * STRIP_WIDTH / picture.width)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return (
        f'<img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def table(pairs: dict[str, Any]) -> str:
    """Two columns; numbers to four digits."""
    rows = []
    for name, value in pairs.items():
        cell = f'<td class="number">{value:.4g}</td>' if isinstance(value, float) else f"<td>{escape(str(value))}</td>"
        rows.append(f"<tr><td>{escape(name)}</td>{cell}</tr>")
    return f"<table>{''.join(rows)}</table>"


def stage_section(folder: Path) -> str:
    """What one stage's folder tells."""
    named = series(read_log(folder / LOG))
    validation = {name: points for name, points in named.items() if name.startswith(VALIDATION)}
    speed = {name: points for name, points in named.items() if name in SPEED}
    terms = {name: points for name, points in named.items() if name not in validation | speed}
    parts = [f"<h2>{escape(folder.name)}</h2>"]
    if has_state(folder):
        state = load_state(folder / STATE)
        parts.append(f"<p>{state['step']} steps, {state['seconds'] / 3600:.2f} hours.</p>")
        settings = table(state.get("settings", {}))
        parts.append(f"<details><summary>Settings</summary>{settings}</details>")
    if validation:
        last = {name.removeprefix(VALIDATION): float(values[-1]) for name, (_, values) in validation.items()}
        parts += ["<h3>Validation</h3>", curves(validation, smoothing=1)]
        parts.append(f"<details><summary>Last figures</summary>{table(last)}</details>")
    if terms:
        parts += ["<h3>Loss terms</h3>", curves(terms, SMOOTHING)]
    if speed:
        parts += ["<h3>Speed</h3>", curves(speed, SMOOTHING)]
    for path in spread(sorted((folder / "previews").glob("*.png")), PREVIEWS):
        parts.append(f"<figure><figcaption>Step {int(path.stem)}</figcaption>{inline_picture(path)}</figure>")
    return "\n".join(parts)


def report(run: Path) -> str:
    """The whole page. AlloSR2Error when the folder holds no stage's log."""
    folders = [stage_folder(run, name) for name in STAGES if (stage_folder(run, name) / LOG).exists()]
    if not folders:
        raise AlloSR2Error(
            f"expected {', '.join(f'{name}/{LOG}' for name in STAGES)} below {run}; there is none of them"
        )
    title = escape(run.name)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return "\n".join([head, f"<h1>{title}</h1>", *map(stage_section, folders), "</html>\n"])


def main(argv: list[str]) -> int:
    """`python -m train report RUN [--out FILE]`."""
    parser = argparse.ArgumentParser(prog="python -m train report", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder ([run] dir of the configuration)")
    parser.add_argument("--out", type=Path, help="default: report.html in the run folder")
    arguments = parser.parse_args(argv)
    page, out = report(arguments.run), arguments.out or arguments.run / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    log.info("%s: %.1f MB", out, len(page) / 1e6)
    return 0
