"""What goes wrong says so: in the node, with what was expected and what came; and cancelling works at once."""

import threading
import time

import pytest
from bad_checkpoints import BAD_CHECKPOINTS
from comfy_server import ComfyServer, WorkflowError
from events import watch
from PIL import Image
from workflows import ESTIMATE, IMAGE, LOADER, UPSCALE, example, with_node, without_t

from allosr2_core.checkpoint.format import EMBEDDED_NAME, embedded_path, load_checkpoint
from allosr2_core.layout import Layout, count_ticks

SMALL = "small.safetensors"


def failure(server: ComfyServer, workflow: dict) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        server.run(workflow)
    return caught.value


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoints_are_refused_by_the_loader(server: ComfyServer, name: str) -> None:
    error = failure(server, example(name, "photo.png"))
    assert error.node_type == "AlloSR2Loader"
    assert error.exception_type == "allosr2_core.errors.AlloSR2Error"  # and no folder of this machine
    assert name in str(error) and BAD_CHECKPOINTS[name] in str(error)


def test_names_outside_the_folder_are_refused(server: ComfyServer) -> None:
    for name in ("../small.safetensors", "/etc/hostname", "absent.safetensors"):
        error = failure(server, example(name, "photo.png"))
        assert error.node_type == "AlloSR2Loader" and "to be one of allosr2-mini (embedded)" in str(error)


@pytest.mark.parametrize(
    ("changes", "node_type", "message"),
    [
        ({"n4": {"scale": -1.0}}, "AlloSR2OneStepUpscale", "expected a scale"),
        ({"n4": {"size_by": "long edge", "long_edge": 0}}, "AlloSR2OneStepUpscale", "expected a long edge"),
        ({"n4": {"size_by": "width"}}, "AlloSR2OneStepUpscale", "expected size_by to be 'scale' or 'long edge'"),
        ({"n4": {"tile": -1}}, "AlloSR2OneStepUpscale", "expected a tile of 0 (automatic) or more"),
        ({"n5": {"realism": -0.5}}, "TiledDecode", "expected realism to be a number of 0 to 100"),
        ({"n5": {"color": "purple"}}, "TiledDecode", "purple"),
        ({"n5": {"color": {"a": 1}}}, "TiledDecode", "expected a colour method of none"),
        ({"n5": {"mode": "fast"}}, "TiledDecode", "expected mode to be one of"),
        ({"n2": {"checkpoint": {"a": 1}}}, "AlloSR2Loader", "expected the checkpoint to be a name; got {'a': 1}"),
        ({"n3": {"method": "guess"}}, "SNRTimestepEstimate", "expected method to be one of auto"),
    ],
    ids=str,
)
def test_refused_values_are_said_by_the_node(server: ComfyServer, changes: dict, node_type: str, message: str) -> None:
    """While it runs: a refusal before the run is a red frame without words where another output can be made."""
    workflow = with_node(example(SMALL, "photo.png", **changes), "40", "PreviewImage", images=[IMAGE, 0])
    error = failure(server, workflow)
    assert error.node_type == node_type and message in str(error)


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


def test_paired_without_a_reference_is_refused_before_any_work(server: ComfyServer) -> None:
    """Before what only it needs is made: here by a loader that would fail."""
    workflow = example(SMALL, "photo.png", n3={"method": "paired", "vae": ["41", 1], "allosr2": ["41", 2]})
    error = failure(server, with_node(workflow, "41", "AlloSR2Loader", checkpoint="absent.safetensors", strength=1.0))
    assert error.node_type == "SNRTimestepEstimate" and "hr_reference" in str(error)


def test_a_reference_is_only_made_where_it_is_looked_at(server: ComfyServer) -> None:
    absent = {"class_type": "AlloSR2Loader", "inputs": {"checkpoint": "absent.safetensors", "strength": 1.0}}
    decoded = {"class_type": "VAEDecode", "inputs": {"samples": [UPSCALE, 0], "vae": ["41", 1]}}
    workflow = example(SMALL, "photo.png", n3={"method": "calibrated", "hr_reference": ["42", 0]})
    workflow |= {"41": absent, "42": decoded}
    workflow["42"]["inputs"]["samples"] = ["43", 0]
    workflow["43"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    assert len(server.run(workflow).images) == 1
    workflow[ESTIMATE]["inputs"]["method"] = "paired"
    assert failure(server, workflow).node_type == "AlloSR2Loader"


def test_a_bypassed_estimate_leaves_no_dump(server: ComfyServer) -> None:
    """The front end connects Preview Any to the input of the same number then: the ALLOSR2."""
    workflow = with_node(without_t(example(SMALL, "photo.png")), "44", "PreviewAny", source=[LOADER, 2])
    (text,) = server.run(workflow).outputs["44"]["text"]
    assert text == f"the AlloSR2 checkpoint {SMALL}"


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


def test_the_snr_head_can_be_cancelled_too(server: ComfyServer) -> None:
    """In ticks, which are the same on every machine: cancelled after the head's first, it makes less than half."""
    width, height = 900, 540
    with Image.open(server.input / "wide.png") as wide:
        wide.resize((width, height)).save(server.input / "larger.png")
    checkpoint = load_checkpoint(embedded_path())
    config, head = checkpoint.config, checkpoint.build_snr_head()
    assert head is not None
    layout = Layout.of(height, width, config, scale=config.scale)
    encode, ticks = count_ticks(layout, config, 0, 0)[0], head.ticks(*layout.cells(config))
    workflow = example(EMBEDDED_NAME, "larger.png", n3={"method": "predicted"})
    events = watch(server, workflow, cancel_after=encode + 1)
    (interrupted,) = events.of("execution_interrupted")
    assert interrupted["node_type"] == "SNRTimestepEstimate"
    last = events.of("progress")[-1]
    assert last["max"] == encode + ticks
    assert encode < last["value"] < encode + ticks / 2
