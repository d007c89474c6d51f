"""Pictures of every kind through the nodes, against the library on the same file and checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy_server import ComfyServer, WorkflowError, WorkflowResult
from PIL import Image
from workflows import DECODE, IMAGE, LOADER, UPSCALE, example, with_node, without_t

from allosr2_core.checkpoint.format import EMBEDDED_NAME, load_checkpoint
from allosr2_core.image.geometry import resize_bicubic
from allosr2_core.image.read import load_image
from allosr2_core.options import UpscaleOptions
from allosr2_core.pipeline import Pipeline, step
from allosr2_core.start_time import estimate_t
from tests.support.parts import encoded

TOLERANCE = 2  # of 255
SMALL = "small.safetensors"


@pytest.fixture(scope="module")
def upscaler(small_checkpoint: Path) -> Pipeline:
    return Pipeline.from_checkpoint(load_checkpoint(small_checkpoint))


def pixels(result: WorkflowResult) -> np.ndarray:
    (path,) = result.images
    return np.asarray(Image.open(path)).astype(int)


def bytes_of(image: torch.Tensor) -> np.ndarray:
    return (image[0] * 255.0).round().clamp(0, 255).numpy().astype(int)


SOCKETS = {"shifted": "shifted_grid"}
"""Where a socket is called something else than the library's argument."""
OF_THE_DECODE = {"realism", "color"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("photo.png", {}),
        ("photo.png", {"scale": 2.5, "realism": 0.4}),
        ("photo.png", {"long_edge": 77}),
        ("wide.png", {}),
        ("wide.png", {"tile": 64, "overlap": 16}),
        ("wide.png", {"tile": 64, "overlap": 16, "shifted": True}),
        ("grey.png", {}),
        ("dot.png", {}),
        ("tiny.png", {}),
    ],
    ids=str,
)
def test_same_picture_as_the_library(
    server: ComfyServer, upscaler: Pipeline, name: str, options: dict[str, Any]
) -> None:
    inputs = {SOCKETS.get(key, key): value for key, value in options.items()}
    decode = {key: inputs.pop(key) for key in OF_THE_DECODE & inputs.keys()}
    if "long_edge" in options:
        inputs["size_by"], options = "long edge", {"scale": None, **options}
    found = pixels(server.run(without_t(example(SMALL, name, n4=inputs, n5=decode))))
    expected = bytes_of(upscaler.upscale(load_image(server.input / name).image_BHWC, UpscaleOptions(**options)))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


def test_alpha_channel_is_kept(server: ComfyServer, upscaler: Pipeline) -> None:
    workflow = without_t(example(SMALL, "rgba.png", n4={"image": ["20", 0]}))
    found = pixels(server.run(with_node(workflow, "20", "JoinImageWithAlpha", image=[IMAGE, 0], alpha=[IMAGE, 1])))
    expected = bytes_of(upscaler.upscale(load_image(server.input / "rgba.png").image_BHWC))
    assert found.shape == expected.shape == (52, 84, 4)
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("method", ["auto", "predicted", "calibrated", "manual"])
def test_estimated_t_reaches_the_upscaler(server: ComfyServer, upscaler: Pipeline, method: str) -> None:
    found = pixels(server.run(example(SMALL, "photo.png", n3={"method": method, "manual_t": 0.45})))
    t = {"auto": None, "manual": 0.45}.get(method, method)
    expected = bytes_of(upscaler.upscale(load_image(server.input / "photo.png").image_BHWC, UpscaleOptions(t=t)))
    assert np.abs(found - expected).max() <= TOLERANCE


def test_paired_estimate_compares_with_the_plain_encoders_latents(
    server: ComfyServer, upscaler: Pipeline, small_checkpoint: Path
) -> None:
    """z_L comes from the adapted encoder, z_H from the untouched one; the step after it sees the adapted one again."""
    image, config = load_image(server.input / "photo.png").image_BHWC, upscaler.config
    plain = Pipeline.from_checkpoint(load_checkpoint(small_checkpoint), strength=0.0)
    z_lr, z_hr = (encoded(pipeline, image)[0] for pipeline in (upscaler, plain))
    estimate = estimate_t(z_lr, config, None, "paired", z_hr=z_hr)

    workflow = example(SMALL, "photo.png", n3={"method": "paired", "hr_reference": ["22", 0]})
    workflow = with_node(workflow, "21", "PreviewAny", source=["3", 2])
    resized = {"upscale_method": "bicubic", "width": 160, "height": 112, "crop": "disabled"}
    result = server.run(with_node(workflow, "22", "ImageScale", image=[IMAGE, 0], **resized))
    shown = float(result.outputs["21"]["text"][0].split("rho = ")[1].split(",")[0])
    assert shown == pytest.approx(float(estimate.rho), abs=2e-3) and shown > 0
    expected = bytes_of(upscaler.upscale(image, UpscaleOptions(t=float(estimate.t))))
    assert np.abs(pixels(result) - expected).max() <= TOLERANCE


def test_map_has_the_pictures_size(server: ComfyServer) -> None:
    workflow = with_node(example(SMALL, "tiny.png"), "6", "SaveImage", images=["3", 3], filename_prefix="map")
    assert pixels(server.run(workflow)).shape == (3, 5, 3)


@pytest.mark.parametrize("options", [{"mode": "blend", "tile": 128}, {"mode": "exact", "tile": 64}], ids=str)
def test_decode_tiles_do_not_show(server: ComfyServer, upscaler: Pipeline, options: dict[str, Any]) -> None:
    found = pixels(server.run(without_t(example(SMALL, "wide.png", n5=options))))
    expected = bytes_of(upscaler.upscale(load_image(server.input / "wide.png").image_BHWC))
    assert np.abs(found - expected).max() <= (TOLERANCE if options["mode"] == "exact" else 8)


def test_colours_are_matched(server: ComfyServer, upscaler: Pipeline) -> None:
    found = pixels(server.run(without_t(example(SMALL, "photo.png", n5={"color": "wavelet"}))))
    expected = bytes_of(
        upscaler.upscale(load_image(server.input / "photo.png").image_BHWC, UpscaleOptions(color="wavelet"))
    )
    assert np.abs(found - expected).max() <= TOLERANCE


def test_core_vae_decode_takes_our_latent(server: ComfyServer, upscaler: Pipeline) -> None:
    workflow = without_t(example(SMALL, "photo.png"))
    found = pixels(server.run(with_node(workflow, DECODE, "VAEDecode", samples=[UPSCALE, 0], vae=[LOADER, 1])))
    with torch.inference_mode():
        z_lr, _ = encoded(upscaler, load_image(server.input / "photo.png").image_BHWC)
        t = estimate_t(z_lr, upscaler.config, upscaler.head, upscaler.config.t_method).t
        z_hr = step(upscaler.backend.velocity, z_lr, t, upscaler.config)
        decoded = (upscaler.backend.decode(z_hr).movedim(1, -1) * 0.5 + 0.5).clamp(0.0, 1.0)
    expected = bytes_of(decoded)
    assert found.shape == expected.shape == (112, 160, 3)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_tiled_decode_takes_the_latent_of_core_nodes(server: ComfyServer) -> None:
    workflow = with_node(without_t(example(SMALL, "photo.png")), "22", "VAEEncode", pixels=[IMAGE, 0], vae=[LOADER, 1])
    tiled = with_node(
        workflow,
        DECODE,
        "TiledDecode",
        vae=[LOADER, 1],
        latent=["22", 0],
        realism=1.0,
        color="none",
        tile=0,
        mode="exact",
    )
    plain = with_node(workflow, DECODE, "VAEDecode", samples=["22", 0], vae=[LOADER, 1])
    for work in (tiled, plain):
        del work[UPSCALE]
    assert np.abs(pixels(server.run(tiled)) - pixels(server.run(plain))).max() <= TOLERANCE


def test_a_pictures_place_in_the_batch_changes_nothing(server: ComfyServer) -> None:
    alone = pixels(server.run(without_t(example(SMALL, "photo.png"))))
    workflow = without_t(example(SMALL, "photo.png", n4={"image": ["24", 0]}))
    workflow = with_node(workflow, "23", "ImageInvert", image=[IMAGE, 0])
    workflow = with_node(workflow, "24", "ImageBatch", image1=["23", 0], image2=[IMAGE, 0])
    result = server.run(workflow)
    assert len(result.images) == 2
    assert np.abs(np.asarray(Image.open(result.images[1])).astype(int) - alone).max() <= 1


def test_pictures_may_be_picked_out_of_the_batch_before_the_decode(server: ComfyServer) -> None:
    """Their own colours, masks and alpha come with them, in any order."""
    both = without_t(example(SMALL, "photo.png", n4={"image": ["24", 0]}, n5={"color": "lab"}))
    both = with_node(both, "23", "ImageInvert", image=[IMAGE, 0])
    both = with_node(both, "24", "ImageBatch", image1=["23", 0], image2=[IMAGE, 0])
    inverted, plain = (np.asarray(Image.open(path)).astype(int) for path in server.run(both).images)
    second = with_node(both, "25", "LatentFromBatch", samples=[UPSCALE, 0], batch_index=1, length=1)
    twice = with_node(second, "26", "RepeatLatentBatch", samples=["25", 0], amount=2)
    for workflow, node_id, count in ((second, "25", 1), (twice, "26", 2)):
        workflow[DECODE]["inputs"]["latent"] = [node_id, 0]
        found = [np.asarray(Image.open(path)).astype(int) for path in server.run(workflow).images]
        assert len(found) == count and all(np.abs(picture - plain).max() <= 1 for picture in found)
    assert np.abs(inverted - plain).max() > 20


@pytest.mark.parametrize("scale", [1.0, 2.0, 6.0])
def test_other_factors_than_the_trained_one(server: ComfyServer, upscaler: Pipeline, scale: float) -> None:
    found = pixels(server.run(without_t(example(SMALL, "photo.png", n4={"scale": scale}))))
    expected = bytes_of(
        upscaler.upscale(load_image(server.input / "photo.png").image_BHWC, UpscaleOptions(scale=scale))
    )
    assert found.shape == expected.shape == (round(28 * scale), round(40 * scale), 3)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_grey_in_grey_out(server: ComfyServer) -> None:
    found = pixels(server.run(without_t(example(SMALL, "grey.png"))))
    assert found.ndim == 2 or (found == found[..., :1]).all()


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 255), (255, 255, 255)], ids=str)
def test_flat_colours_stay(server: ComfyServer, color: tuple[int, int, int]) -> None:
    Image.new("RGB", (20, 16), color).save(server.input / "flat.png")
    found = pixels(server.run(without_t(example(EMBEDDED_NAME, "flat.png"))))
    assert np.abs(found - np.array(color)).max() <= 1


@pytest.mark.parametrize("hidden", [0, 255])
def test_hidden_colours_leave_no_fringe(server: ComfyServer, hidden: int) -> None:
    rows, columns = np.mgrid[0:48, 0:48]
    alpha = np.where(np.hypot(rows - 23.5, columns - 23.5) < 16, 255, 0)
    rgb = np.where(alpha[..., None] > 0, (230, 40, 40), hidden)
    Image.fromarray(np.dstack([rgb, alpha]).astype(np.uint8)).save(server.input / "disc.png")
    workflow = without_t(example(EMBEDDED_NAME, "disc.png", n4={"image": ["20", 0]}))
    found = pixels(server.run(with_node(workflow, "20", "JoinImageWithAlpha", image=[IMAGE, 0], alpha=[IMAGE, 1])))
    share = found[..., 3:] / 255.0
    for paper in (0, 255):
        shown, wanted = (share * color + (1 - share) * paper for color in (found[..., :3], np.array([230, 40, 40])))
        assert np.abs(shown - wanted).max() <= 5


def test_a_mask_keeps_the_plain_enlargement(server: ComfyServer, upscaler: Pipeline) -> None:
    mask = np.zeros((28, 40, 3), dtype=np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).save(server.input / "mask.png")
    workflow = without_t(example(SMALL, "photo.png", n4={"mask": ["26", 0]}))
    workflow = with_node(workflow, "26", "LoadImageMask", image="mask.png", channel="red")
    found = pixels(server.run(workflow))
    image, values = load_image(server.input / "photo.png").image_BHWC, torch.from_numpy(mask[None, ..., 0] / 255.0)
    assert np.abs(found - bytes_of(upscaler.upscale(image, mask=values.float()))).max() <= TOLERANCE
    plain = bytes_of(resize_bicubic(image, 112, 160))
    assert np.abs(found - plain)[:, :76].max() <= 1 and np.abs(found - plain)[:, 84:].max() > 5


@pytest.mark.parametrize(("name", "word"), [("photo.png", "empty 64x64 mask"), ("rgba.png", "own transparency")])
def test_load_images_own_mask_is_not_taken_for_one(server: ComfyServer, name: str, word: str) -> None:
    workflow = without_t(example(SMALL, name, n4={"mask": [IMAGE, 1]}))
    if name == "rgba.png":
        workflow = with_node(workflow, "20", "JoinImageWithAlpha", image=[IMAGE, 0], alpha=[IMAGE, 1])
        workflow[UPSCALE]["inputs"]["image"] = ["20", 0]
    with pytest.raises(WorkflowError, match=word):
        server.run(workflow)
