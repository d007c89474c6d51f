"""One browser and one page for all tests of this folder, on a real server, with each of two front ends."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import chromium
import front_ends
import pytest
from canvas import Canvas
from comfy_server import ComfyServer
from package_archive import FetchError
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[2]
FRONT_ENDS = {"classic": front_ends.installed, "newer": front_ends.newer}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        found = chromium.find()
    except FetchError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"runs where there is a Chromium, and always under CI: {error}")
    environment = os.environ | found.environment
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found.program, args=["--no-sandbox"], env=environment)


@pytest.fixture(scope="package", params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    """Every test runs with the front end ComfyUI 0.3.75 asks for, and with one that has Vue nodes."""
    return request.param


@pytest.fixture(scope="package")
def server(
    front_end: str, browser: Browser, comfyui_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComfyServer]:
    """With what a fresh ComfyUI has in its input folder, a photograph, one that has many tiles, and a user's video."""
    base = tmp_path_factory.mktemp("comfyui")
    pictures = base / "input"
    pictures.mkdir()
    for shipped in (comfyui_root / "input").glob("*.png"):
        (pictures / shipped.name).write_bytes(shipped.read_bytes())
    with Image.open(REPOSITORY / "demo" / "input.jpg") as photo:
        photo.save(pictures / "photo.png")
        photo.resize((1440, 960)).save(pictures / "large.png")
    write_video(pictures / "video.mp4")
    with ComfyServer(comfyui_root, base, front_end=FRONT_ENDS[front_end]()) as running:
        yield running


@pytest.fixture(scope="package")
def canvas(browser: Browser, server: ComfyServer, front_end: str, request: pytest.FixtureRequest) -> Iterator[Canvas]:
    """The page, opened once; --screenshots FOLDER keeps pictures of it in FOLDER/FRONT_END."""
    folder = request.config.getoption("--screenshots")
    shots = None if folder is None else folder / front_end
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    canvas = Canvas(page, server, vue=front_end == "newer", shots=shots)
    canvas.open()
    yield canvas
    page.close()


@pytest.fixture(autouse=True)
def clean(canvas: Canvas) -> Iterator[None]:
    """Every test starts on an empty canvas, and leaves no error in the console."""
    canvas.clear()
    canvas.errors()
    yield
    assert not canvas.errors()


def write_video(path: Path) -> None:
    """Four frames of 64x48 px."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height = 64, 48
        for level in range(4):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (60 * level,) * 3))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
