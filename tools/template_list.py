"""The example workflows: their nodes, and where they stand on the canvas."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PICTURE = "example.png"
"""What ComfyUI brings in its input folder."""
NOTES = Path(__file__).with_name("template_notes")
"""What the notes say, by the names of the templates."""
EMBEDDED = "allosr2-mini (embedded)"


@dataclass(frozen=True)
class Output:
    """A node's output, as a value of another one's input."""

    node: int
    number: int = 0


@dataclass(frozen=True)
class Node:
    """A node, its inputs that are connected or are not at their defaults, and its place."""

    kind: str
    pos: tuple[int, int]
    size: tuple[int, int]
    inputs: dict[str, Any] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class Template:
    """A workflow for the template browser."""

    name: str
    nodes: dict[int, Node]
    note_pos: tuple[int, int] = (-420, 60)
    note_size: tuple[int, int] = (380, 400)
    zoom: float = 0.8
    offset: tuple[int, int] = (520, 190)

    @property
    def note(self) -> str:
        """What stands beside the nodes, Markdown."""
        return (NOTES / f"{self.name}.md").read_text(encoding="utf-8")


def _load(**inputs: Any) -> Node:
    return Node("LoadImage", (0, 60), (320, 330), {"image": PICTURE, **inputs})


def _loader(pos: tuple[int, int] = (0, 450), **inputs: Any) -> Node:
    return Node("AlloSR2Loader", pos, (320, 140), {"checkpoint": EMBEDDED, **inputs})


def _upscale(image: Output, pos: tuple[int, int] = (380, 60), **inputs: Any) -> Node:
    return Node("AlloSR2Upscale", pos, (340, 440), {"image": image, "checkpoint": EMBEDDED, **inputs})


def _estimate(loader: int, image: Output, pos: tuple[int, int], size: tuple[int, int], title: str = "") -> Node:
    inputs = {"image": image, "vae": Output(loader, 1), "allosr2": Output(loader, 2)}
    return Node("SNRTimestepEstimate", pos, size, inputs, title)


def _step(loader: int, pos: tuple[int, int], **inputs: Any) -> Node:
    of_loader = {name: Output(loader, number) for number, name in enumerate(("model", "vae", "allosr2"))}
    return Node("AlloSR2OneStepUpscale", pos, (320, 340), {**of_loader, **inputs})


def _save(images: Output, pos: tuple[int, int], prefix: str) -> Node:
    return Node("SaveImage", pos, (440, 480), {"images": images, "filename_prefix": prefix})


QUICK = Template(
    "allosr2_quick",
    {
        1: _load(),
        2: _upscale(Output(1)),
        3: _save(Output(2), (780, 60), "allosr2"),
    },
    note_size=(380, 400),
)
FULL = Template(
    "allosr2_upscale",
    {
        1: _load(),
        2: _loader(),
        3: _estimate(2, Output(1), (380, 60), (320, 420)),
        4: _step(2, (760, 60), image=Output(1), t=Output(3, 0)),
        5: Node("TiledDecode", (1140, 60), (300, 420), {"vae": Output(2, 1), "latent": Output(4)}),
        6: _save(Output(5), (1500, 60), "allosr2"),
        7: Node("PreviewAny", (380, 540), (320, 160), {"source": Output(3, 2)}, "The estimate in words"),
        8: Node(
            "ImageScaleBy",
            (760, 460),
            (320, 90),
            {"image": Output(1), "upscale_method": "bicubic", "scale_by": 4.0},
            "Before: bicubic",
        ),
        9: Node("ImageStitch", (760, 610), (320, 150), {"image1": Output(8), "image2": Output(5), "spacing_width": 8}),
        10: Node("PreviewImage", (1140, 540), (300, 260), {"images": Output(9)}, "Before, after"),
    },
    zoom=0.6,
    offset=(560, 250),
)
FOLDER = Template(
    "allosr2_folder",
    {
        1: Node("LoadImageDataSetFromFolder", (0, 60), (320, 60), {"folder": "photos"}),
        2: _upscale(Output(1)),
        3: _save(Output(2), (780, 60), "allosr2_folder"),
    },
)
MASK = Template(
    "allosr2_mask",
    {
        1: _load(),
        2: Node("GetImageSize", (0, 450), (320, 110), {"image": Output(1)}),
        3: Node(
            "SolidMask",
            (380, 560),
            (300, 110),
            {"value": 0.0, "width": Output(2, 0), "height": Output(2, 1)},
            "Keep",
        ),
        4: Node(
            "SolidMask",
            (380, 720),
            (300, 110),
            {"value": 1.0, "width": Output(2, 0), "height": Output(2, 1)},
            "Restore",
        ),
        5: Node(
            "MaskComposite",
            (740, 640),
            (300, 150),
            {"destination": Output(3), "source": Output(4), "x": 384, "y": 0, "operation": "add"},
            "From 384 px on",
        ),
        6: _upscale(Output(1), mask=Output(5)),
        7: _save(Output(6), (1100, 60), "allosr2_mask"),
    },
    zoom=0.75,
)
TRANSPARENT = Template(
    "allosr2_transparent",
    {
        1: _load(),
        2: Node("JoinImageWithAlpha", (0, 450), (320, 60), {"image": Output(1), "alpha": Output(1, 1)}),
        3: _upscale(Output(2)),
        4: _save(Output(3), (780, 60), "allosr2_transparent"),
    },
)
LARGE = Template(
    "allosr2_4k",
    {
        1: _load(),
        2: _loader(),
        3: _step(2, (380, 60), image=Output(1), size_by="long edge", long_edge=3840, tile=512),
        4: Node("TiledDecode", (760, 60), (300, 420), {"vae": Output(2, 1), "latent": Output(3), "tile": 512}),
        5: _save(Output(4), (1120, 60), "allosr2_4k"),
    },
    zoom=0.75,
)
VIDEO = Template(
    "allosr2_video",
    {
        1: Node("LoadVideo", (0, 60), (320, 300), {"file": "video.mp4"}),
        2: Node("GetVideoComponents", (0, 420), (320, 90), {"video": Output(1)}),
        3: _loader((0, 570)),
        4: _estimate(3, Output(2), (380, 560), (340, 380), "One t for all frames"),
        5: _upscale(Output(2), size_by="scale", scale=2.0, t=Output(4)),
        6: Node(
            "CreateVideo", (780, 60), (300, 100), {"images": Output(5), "audio": Output(2, 1), "fps": Output(2, 2)}
        ),
        7: Node("SaveVideo", (780, 220), (400, 360), {"video": Output(6), "filename_prefix": "video/allosr2"}),
    },
    zoom=0.75,
)
FLUX = Template(
    "allosr2_flux",
    {
        1: _load(),
        2: Node("UNETLoader", (0, 450), (320, 90), {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}),
        3: Node("VAELoader", (0, 600), (320, 60), {"vae_name": "ae.safetensors"}),
        4: Node(
            "AlloSR2Loader",
            (400, 450),
            (320, 140),
            {"model": Output(2), "vae": Output(3), "checkpoint": "allosr2-flux1-dev.safetensors"},
        ),
        5: _step(4, (780, 60), image=Output(1)),
        6: Node("TiledDecode", (1160, 60), (300, 200), {"vae": Output(4, 1), "latent": Output(5), "color": "wavelet"}),
        7: _save(Output(6), (1520, 60), "allosr2_flux"),
    },
    zoom=0.6,
    offset=(560, 250),
)
STOCK = Template(
    "allosr2_stock_sampler",
    {
        1: _load(),
        2: _loader(),
        3: _estimate(2, Output(1), (400, 60), (320, 400)),
        4: Node(
            "ImageScaleBy",
            (400, 520),
            (320, 90),
            {"image": Output(1), "upscale_method": "bicubic", "scale_by": 4.0},
        ),
        5: Node("VAEEncode", (800, 310), (260, 60), {"pixels": Output(4), "vae": Output(2, 1)}),
        6: Node("BasicScheduler", (400, 670), (320, 120), {"model": Output(2), "scheduler": "simple", "steps": 1}),
        7: Node("SetFirstSigma", (800, 120), (260, 90), {"sigmas": Output(6), "sigma": Output(3)}),
        8: Node("BasicGuider", (800, 430), (260, 60), {"model": Output(2), "conditioning": Output(2, 3)}),
        9: Node("DisableNoise", (800, 550), (260, 40)),
        10: Node("KSamplerSelect", (800, 640), (260, 60), {"sampler_name": "euler"}),
        11: Node(
            "SamplerCustomAdvanced",
            (1140, 310),
            (260, 120),
            {
                "noise": Output(9),
                "guider": Output(8),
                "sampler": Output(10),
                "sigmas": Output(7),
                "latent_image": Output(5),
            },
        ),
        12: Node("VAEDecode", (1140, 490), (260, 60), {"samples": Output(11), "vae": Output(2, 1)}),
        13: _save(Output(12), (1480, 60), "allosr2_stock"),
    },
    zoom=0.6,
    offset=(560, 250),
)
TEMPLATES = (QUICK, FULL, FOLDER, MASK, TRANSPARENT, LARGE, VIDEO, FLUX, STOCK)

OUTSIDE = -10
"""The node at the left of a subgraph that stands for its inputs."""


@dataclass(frozen=True)
class Blueprint:
    """Nodes to be added as one, which can be opened and changed."""

    title: str
    description: str
    nodes: dict[int, Node]
    inputs: tuple[str, ...]
    """Of the whole; a node's input that takes one of them is an Output of OUTSIDE with its number."""
    output: tuple[str, Output]


BLUEPRINT = Blueprint(
    "AlloSR2 (four nodes)",
    "Upscale and restore photographs: loader, estimate, step and decode, to be opened and changed.",
    {
        1: _loader((0, 300)),
        2: _estimate(1, Output(OUTSIDE, 0), (380, 0), (320, 400)),
        3: _step(
            1,
            (760, 0),
            image=Output(OUTSIDE, 0),
            t=Output(2),
            mask=Output(OUTSIDE, 1),
            size_by=Output(OUTSIDE, 2),
            scale=Output(OUTSIDE, 3),
            long_edge=Output(OUTSIDE, 4),
        ),
        4: Node(
            "TiledDecode",
            (1140, 0),
            (300, 200),
            {
                "vae": Output(1, 1),
                "latent": Output(3),
                "realism": Output(OUTSIDE, 5),
                "color": Output(OUTSIDE, 6),
            },
        ),
    },
    ("image", "mask", "size_by", "scale", "long_edge", "realism", "color"),
    ("IMAGE", Output(4)),
)
