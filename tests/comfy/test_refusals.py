"""What goes wrong says so: in the node, with what was expected and what came; and cancelling works at once."""

import threading
import time

import pytest
from bad_checkpoints import BAD_CHECKPOINTS
from comfy_server import ComfyServer, WorkflowError
from PIL import Image
from workflows import LOADER, UPSCALE, example, with_node, without_t

SMALL = "small.safetensors"


def failure(server: ComfyServer, workflow: dict) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        server.run(workflow)
    return caught.value


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoints_are_refused_by_the_loader(server: ComfyServer, name: str) -> None:
    error = failure(server, example(name, "photo.png"))
    assert error.node_type == "AlloSR2Loader"
    assert error.exception_type.endswith("AlloSR2Error")
    assert name in str(error) and BAD_CHECKPOINTS[name] in str(error)


def test_names_outside_the_folder_are_refused(server: ComfyServer) -> None:
    for name in ("../small.safetensors", "/etc/hostname", "absent.safetensors"):
        assert "expected one of allosr2-mini (embedded)" in str(failure(server, example(name, "photo.png")))


def test_native_models_are_not_taken_yet(server: ComfyServer) -> None:
    workflow = with_node(
        example(SMALL, "photo.png"), "30", "AlloSR2Loader", checkpoint=SMALL, strength=1.0, model=[LOADER, 0]
    )
    workflow[UPSCALE]["inputs"]["model"] = ["30", 0]
    error = failure(server, workflow)
    assert error.node_type == "AlloSR2Loader" and "brings its own MODEL and VAE" in str(error)


def test_another_vae_is_refused(server: ComfyServer) -> None:
    workflow = with_node(without_t(example(SMALL, "photo.png")), "31", "VAELoader", vae_name="pixel_space")
    workflow[UPSCALE]["inputs"]["vae"] = ["31", 0]
    error = failure(server, workflow)
    assert error.node_type == "AlloSR2OneStepUpscale" and "needs the VAE of the AlloSR2 Loader" in str(error)


def test_resized_latents_are_refused(server: ComfyServer) -> None:
    workflow = without_t(example(SMALL, "photo.png", n5={"latent": ["32", 0]}))
    workflow = with_node(
        workflow, "32", "LatentUpscaleBy", samples=[UPSCALE, 0], upscale_method="bilinear", scale_by=2.0
    )
    error = failure(server, workflow)
    assert error.node_type == "TiledDecode" and "expected latents" in str(error)


def test_changed_latents_are_refused(server: ComfyServer) -> None:
    workflow = without_t(example(SMALL, "photo.png", n5={"latent": ["33", 0]}))
    workflow = with_node(workflow, "33", "LatentFlip", samples=[UPSCALE, 0], flip_method="x-axis: vertically")
    error = failure(server, workflow)
    assert error.node_type == "TiledDecode" and "another node has changed them" in str(error)


def test_paired_without_a_reference_is_refused(server: ComfyServer) -> None:
    assert "hr_reference" in str(failure(server, example(SMALL, "photo.png", n3={"method": "paired"})))


def cancelled(server: ComfyServer, workflow: dict, after: float) -> tuple[WorkflowError, float]:
    """Run, cancel `after` seconds; the error, and how many seconds the cancelling took."""
    prompt = server.queue(workflow)
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.02)
    moments: list[float] = []
    timer = threading.Timer(after, lambda: (moments.append(time.monotonic()), server.interrupt()))
    timer.start()
    with pytest.raises(WorkflowError) as caught:
        server.wait(prompt)
    timer.join()
    return caught.value, time.monotonic() - moments[0]


def test_cancelling_takes_effect_within_a_tile(server: ComfyServer) -> None:
    with Image.open(server.input / "wide.png") as wide:
        wide.resize((450, 270)).save(server.input / "large.png")
    many_tiles = without_t(example(SMALL, "large.png", n4={"tile": 16, "overlap": 8}))
    error, seconds = cancelled(server, many_tiles, after=0.7)
    assert error.interrupted and error.node_type == "AlloSR2OneStepUpscale"
    assert seconds < 3.0
    again = server.run(without_t(example(SMALL, "dot.png")))  # and the next workflow runs as if nothing had been
    assert len(again.images) == 1


def test_the_decode_can_be_cancelled_too(server: ComfyServer) -> None:
    with Image.open(server.input / "wide.png") as wide:
        wide.resize((450, 270)).save(server.input / "large.png")
    server.run(without_t(example(SMALL, "large.png")))  # its latents are kept by the host
    many_tiles = without_t(example(SMALL, "large.png", n5={"tile": 8}))
    error, seconds = cancelled(server, many_tiles, after=0.5)
    assert error.interrupted and error.node_type == "TiledDecode"
    assert seconds < 3.0
