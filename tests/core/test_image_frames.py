"""Animations and pages: how many, what is shown in each, for how long; and files of several frames out again."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from allosr2_core.errors import AlloSR2Error
from allosr2_core.image.metadata import Metadata
from allosr2_core.image.read import load_image, read_header
from allosr2_core.image.write import Frame, SaveOptions, check_writable, holds_frames, save_frames
from tests.support.awkward_pictures import apng, chunk, png, tiff
from tests.support.pictures import photo

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(colour: tuple[int, ...], height: int = 4, width: int = 6) -> np.ndarray:
    return np.tile(np.array(colour, dtype=np.uint8), (height, width, 1))


def shown(path: Path, frame: int) -> np.ndarray:
    """RGBA, 0..255, of one frame."""
    loaded = load_image(path, frame)
    alpha = torch.ones(loaded.rgb_HWC.shape[:2]) if loaded.alpha_HW is None else loaded.alpha_HW
    return (torch.cat((loaded.rgb_HWC, alpha[..., None]), dim=-1) * 255).round().numpy().astype(np.uint8)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_as_pillow_writes_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frames = [Image.fromarray(flat(colour)) for colour in (RED, GREEN, BLUE)]
    settings = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 50], loop=4, **settings)
    header = read_header(path)
    assert (header.frames, header.animated, header.transparent) == (3, True, False)
    assert header.loop == (5 if suffix == ".gif" else 4)  # GIF counts repetitions
    for index, (colour, duration) in enumerate(zip((RED, GREEN, BLUE), (100, 200, 50), strict=True)):
        loaded = load_image(path, index)
        assert loaded.alpha_HW is None and loaded.duration_ms == duration
        assert loaded.rgb_HWC[1, 2].tolist() == [c / 255 for c in colour]
    with pytest.raises(AlloSR2Error, match="frame from 0 to 2, got 3"):
        load_image(path, 3)


def test_gif_without_a_loop_plays_once(tmp_path: Path) -> None:
    frames = [Image.fromarray(flat(colour)) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], comment=b"hello")
    assert read_header(tmp_path / "a.gif").loop == 1
    assert load_image(tmp_path / "a.gif", 1).metadata.comment == b"hello"
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:], loop=0)
    assert read_header(tmp_path / "b.gif").loop == 0


def gif_frame(
    colour: int, width: int, height: int, left: int, top: int, disposal: int, transparent: int | None = None
) -> bytes:
    """One frame of a single palette index, LZW with a clear code before every pixel (no table to build)."""
    codes = [code for _ in range(width * height) for code in (4, colour)] + [5]
    bits = "".join(format(code, "03b")[::-1] for code in codes)
    data = bytes(int(bits[at : at + 8].ljust(8, "0")[::-1], 2) for at in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    flags = disposal << 2 | (transparent is not None)
    control = b"!\xf9\x04" + struct.pack("<BHBB", flags, 7, transparent or 0, 0)
    return control + b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02" + blocks + b"\0"


def gif(width: int, height: int, *frames: bytes) -> bytes:
    palette = bytes((*RED, *GREEN, *BLUE, 255, 255, 255))
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 1, 0) + palette + b"".join(frames) + b";"


def visible(path: Path, frame: int) -> np.ndarray:
    """The same, without the colours of what is transparent."""
    found = shown(path, frame)
    return np.where(found[..., 3:] == 0, 0, found)


def test_gif_frames_are_composed(tmp_path: Path) -> None:
    """Disposal to nothing (2) and to what was before (3), a transparent index, a first frame that leaves a border."""
    data = gif(
        6,
        4,
        gif_frame(0, 4, 4, 1, 0, disposal=1, transparent=3),
        gif_frame(1, 2, 2, 2, 1, disposal=3, transparent=3),
        gif_frame(2, 2, 4, 0, 0, disposal=2, transparent=3),
        gif_frame(3, 6, 1, 0, 3, disposal=1, transparent=3),
    )
    (tmp_path / "a.gif").write_bytes(data)
    header = read_header(tmp_path / "a.gif")
    assert (header.frames, header.transparent, header.height, header.width) == (4, True, 4, 6)
    expected = np.zeros((4, 6, 4), dtype=np.uint8)
    expected[:, 1:5] = (*RED, 255)
    assert np.array_equal(visible(tmp_path / "a.gif", 0), expected)
    second = expected.copy()
    second[1:3, 2:4] = (*GREEN, 255)
    assert np.array_equal(visible(tmp_path / "a.gif", 1), second)
    third = expected.copy()
    third[:, 0:2] = (*BLUE, 255)
    assert np.array_equal(visible(tmp_path / "a.gif", 2), third)
    expected[:, 0:2] = 0
    assert np.array_equal(visible(tmp_path / "a.gif", 3), expected)
    assert load_image(tmp_path / "a.gif", 2).duration_ms == 70


def test_truncated_gif_is_refused_in_the_frame_that_is_cut(tmp_path: Path) -> None:
    whole = gif(6, 4, gif_frame(0, 6, 4, 0, 0, disposal=1), gif_frame(1, 6, 4, 0, 0, disposal=1))
    (tmp_path / "a.gif").write_bytes(whole[:-12])
    assert np.array_equal(visible(tmp_path / "a.gif", 0)[..., :3], flat(RED))
    with pytest.raises(AlloSR2Error, match=r"a\.gif: expected a complete image"):
        load_image(tmp_path / "a.gif", 1)


@pytest.mark.parametrize("default", [False, True])
def test_apng_frames_are_composed(tmp_path: Path, default: bool) -> None:
    """Disposal and blending of the specification; a picture beside the animation is not one of its frames."""
    half = (0, 0, 255, 128)
    frames = [
        (flat((*RED, 255)), 0, 0, 0, 0),
        (flat((*GREEN, 255), 2, 2), 1, 1, 2, 0),
        (flat(half, 2, 6), 0, 0, 1, 1),
        (flat((0, 0, 0, 0), 1, 1), 3, 5, 0, 0),
    ]
    still = flat((1, 2, 3, 255)) if default else None
    (tmp_path / "a.png").write_bytes(apng(4, 6, frames, still))
    header = read_header(tmp_path / "a.png")
    assert (header.frames, header.animated, header.transparent, header.loop) == (4, True, True, 3)
    expected = flat((*RED, 255))
    assert np.array_equal(shown(tmp_path / "a.png", 0), expected)
    second = expected.copy()
    second[1:3, 1:3] = (*GREEN, 255)
    assert np.array_equal(shown(tmp_path / "a.png", 1), second)
    third = expected.copy()
    third[:2] = (127, 0, 128, 255)
    assert np.abs(shown(tmp_path / "a.png", 2).astype(int) - third).max() <= 1
    expected[:2] = 0
    expected[3, 5] = 0
    assert np.array_equal(shown(tmp_path / "a.png", 3), expected)
    assert load_image(tmp_path / "a.png", 1).duration_ms == 50


def test_gif_that_clears_without_a_transparent_colour(tmp_path: Path) -> None:
    data = gif(6, 4, gif_frame(0, 6, 4, 0, 0, disposal=2), gif_frame(1, 2, 2, 1, 1, 2), gif_frame(2, 1, 1, 0, 0, 1))
    (tmp_path / "a.gif").write_bytes(data)
    expected = np.zeros((3, 4, 6, 4), dtype=np.uint8)
    expected[0], expected[1, 1:3, 1:3], expected[2, 0, 0] = (*RED, 255), (*GREEN, 255), (*BLUE, 255)
    for frame in range(3):
        assert np.array_equal(visible(tmp_path / "a.gif", frame), expected[frame])


def test_gif_that_is_transparent_only_in_theory(tmp_path: Path) -> None:
    """A transparent colour that leaves what is there: nothing shown is transparent."""
    data = gif(6, 4, gif_frame(0, 6, 4, 0, 0, 1, transparent=3), gif_frame(3, 6, 2, 0, 1, 1, transparent=3))
    (tmp_path / "a.gif").write_bytes(data)
    for frame in (0, 1):
        assert load_image(tmp_path / "a.gif", frame).alpha_HW is None
        assert np.array_equal(shown(tmp_path / "a.gif", frame)[..., :3], flat(RED))


def test_damaged_apng_shows_what_is_before_the_damage(tmp_path: Path) -> None:
    data = apng(4, 6, [(flat((*RED, 255)), 0, 0, 0, 0), (flat((*GREEN, 255), 2, 2), 3, 1, 0, 0)])
    (tmp_path / "a.png").write_bytes(data)  # the second frame reaches out of the picture
    assert load_image(tmp_path / "a.png").rgb_HWC[0, 0].tolist() == [1, 0, 0]
    with pytest.raises(AlloSR2Error, match=r"a\.png: expected a complete image"):
        load_image(tmp_path / "a.png", 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_apng_of_sixteen_bits_is_read_at_eight(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (4, 6, channels), dtype=np.uint16)
    still = png(values, 16, {1: 0, 3: 2, 4: 6}[channels])
    control = [struct.pack(">5I2H2B", number, 6, 4, 0, 0, 1, 20, 0, 0) for number in (0, 1)]
    at, end = still.index(b"IDAT") - 4, still.index(b"IEND") - 4
    second = chunk(b"fcTL", control[1]) + chunk(b"fdAT", b"\0\0\0\2" + still[at + 8 : end - 4])
    start = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control[0])
    (tmp_path / "a.png").write_bytes(still[:at] + start + still[at:end] + second + still[end:])
    header = read_header(tmp_path / "a.png")
    assert (header.frames, header.bits, header.grey) == (2, 8, channels == 1)
    for frame in (0, 1):
        loaded = load_image(tmp_path / "a.png", frame)
        assert loaded.bits == 8 and "16 bits a channel in the file, read as 8" in loaded.note
        assert np.array_equal(shown(tmp_path / "a.png", frame)[..., 0], values[..., 0] >> 8)


def test_webp_with_alpha(tmp_path: Path) -> None:
    """As Pillow composes it, with durations."""
    stored = [Image.fromarray(photo(9, 7, 4, seed)) for seed in range(3)]
    stored[0].save(
        tmp_path / "a.webp", save_all=True, append_images=stored[1:], duration=[10, 20, 30], lossless=True, exact=True
    )
    assert read_header(tmp_path / "a.webp").transparent
    for index in range(3):
        with Image.open(tmp_path / "a.webp") as opened:
            opened.seek(index)
            expected = np.asarray(opened.convert("RGBA"))
        assert np.array_equal(shown(tmp_path / "a.webp", index), expected)
        assert load_image(tmp_path / "a.webp", index).duration_ms == 10 * (index + 1)


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    """Of different sizes and kinds; a thumbnail among them (NewSubfileType 1) is no page."""
    pages = [Image.fromarray(photo(5, 7)), Image.fromarray(photo(9, 3, 1)[..., 0]), Image.fromarray(photo(4, 4, 4))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    header = read_header(tmp_path / "a.tif")
    assert (header.frames, header.animated, header.height, header.width) == (3, False, 5, 7)
    for index, page in enumerate(pages):
        assert np.array_equal(shown(tmp_path / "a.tif", index), np.asarray(page.convert("RGBA")))
        assert load_image(tmp_path / "a.tif", index).grey == (index == 1)
    thumbnail = Image.fromarray(photo(2, 2))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[thumbnail, pages[2]])
    assert read_header(tmp_path / "b.tif").frames == 2
    assert np.array_equal(shown(tmp_path / "b.tif", 1), np.asarray(pages[2]))
    assert "thumbnails" in load_image(tmp_path / "b.tif").note


def test_directories_in_a_circle(tmp_path: Path) -> None:
    data = bytearray(tiff(photo(3, 4), 8, 2))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    (tmp_path / "a.tif").write_bytes(data)
    assert read_header(tmp_path / "a.tif").frames == 1


def three_frames(alpha: bool = True) -> list[Frame]:
    rng = np.random.default_rng(4)
    frames = []
    for index, duration in enumerate((100.0, 41.0, 1000.0)):
        rgb = torch.from_numpy(rng.integers(0, 256, (9, 14, 3)).astype(np.float32) / 255)
        mask = torch.from_numpy(rng.integers(0, 256, (9, 14)).astype(np.float32) / 255)
        frames.append(Frame(rgb, mask if alpha and index > 0 else None, duration))
    return frames


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".webp", 8), (".tif", 8), (".tif", 16)])
def test_frames_round_trip(tmp_path: Path, suffix: str, bits: int, alpha: bool, grey: bool) -> None:
    """What is shown when. Alpha may start in the second frame; of an animation, equal frames become one."""
    frames = three_frames(alpha)
    if grey:
        frames = [replace(frame, rgb_HWC=frame.rgb_HWC[..., :1].expand(-1, -1, 3)) for frame in frames]
    frames.append(frames[-1])
    path = tmp_path / f"a{suffix}"
    note = save_frames(path, iter(frames), loop=2, options=SaveOptions(bits=bits, quality=100, grey=grey))
    header, pages = read_header(path), suffix == ".tif"
    assert header.frames == (4 if pages else 3)
    # A first page tells of itself only.
    assert header.transparent == alpha and header.grey == (grey and suffix != ".webp")
    assert (header.animated, header.loop) == ((False, 0) if pages else (True, 2))
    assert ("durations" in note) == pages
    durations = [0.0] * 4 if pages else [100.0, 41.0, 2000.0]
    for index, (frame, duration) in enumerate(zip(frames, durations, strict=False)):
        loaded = load_image(path, index)
        assert loaded.duration_ms == pytest.approx(duration)
        if suffix == ".webp":
            assert float((loaded.rgb_HWC - frame.rgb_HWC).abs().mean()) < 0.25
        else:
            assert float((loaded.rgb_HWC - frame.rgb_HWC).abs().max()) < 1e-6
        if frame.alpha_HW is not None:
            assert loaded.alpha_HW is not None
            assert float((loaded.alpha_HW - frame.alpha_HW).abs().max()) < 1e-6
        elif loaded.alpha_HW is not None:
            assert bool((loaded.alpha_HW == 1).all())


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_odd_durations(tmp_path: Path, suffix: str) -> None:
    """Fractions, more than a minute, nothing, less than nothing; many frames do not drift."""
    rng = np.random.default_rng(1)
    frames = [
        Frame(torch.from_numpy(rng.random((8, 8, 3))), None, duration)
        for duration in (100 / 3, 100 / 3, 100 / 3, 40123.4567, 70001.0, 0.0, -5.0)
    ]
    save_frames(tmp_path / f"a{suffix}", frames)
    found = [load_image(tmp_path / f"a{suffix}", index).duration_ms for index in range(7)]
    assert sum(found[:3]) == pytest.approx(100, abs=1)
    assert found[3:5] == pytest.approx([40123, 70000], abs=2) and found[5:] == [0, 0]


def test_sixteen_bits_of_an_animation_are_refused(tmp_path: Path) -> None:
    for check in (
        lambda: check_writable("a.png", 3, 4, transparent=False, frames=3, animated=True, bits=16),
        lambda: save_frames(tmp_path / "a.png", three_frames(), options=SaveOptions(bits=16)),
    ):
        with pytest.raises(AlloSR2Error, match=r"a\.png.*animated PNG is written with 8 bits"):
            check()
    assert list(tmp_path.iterdir()) == []


def test_webp_frames_are_the_ones_written(tmp_path: Path) -> None:
    frames = [Frame(torch.full((16, 16, 3), value), None, 40.0) for value in (0.1, 0.5, 0.9)]
    save_frames(tmp_path / "a.webp", frames)
    for index, frame in enumerate(frames):
        assert float((load_image(tmp_path / "a.webp", index).rgb_HWC - frame.rgb_HWC).abs().max()) < 0.02
    assert read_header(tmp_path / "a.webp").loop == 0


def test_pages_may_differ_in_size_and_frames_may_not(tmp_path: Path) -> None:
    frames = [Frame(torch.rand(3, 4, 3)), Frame(torch.rand(7, 2, 3), torch.rand(7, 2))]
    save_frames(tmp_path / "a.tif", frames, animated=False, options=SaveOptions(bits=16))
    assert tuple(load_image(tmp_path / "a.tif", 1).image_BHWC.shape) == (1, 7, 2, 4)
    for name in ("a.png", "a.webp"):
        with pytest.raises(AlloSR2Error, match="same size, got 4x3 and 2x7"):
            save_frames(tmp_path / name, frames)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_metadata_of_frames(tmp_path: Path, suffix: str) -> None:
    metadata = Metadata(text=(("workflow", "{}"),), xmp=b"<x tiff:Orientation='1'/>", dpi=(300.0, 300.0))
    note = save_frames(tmp_path / f"a{suffix}", three_frames(), metadata=metadata)
    found = load_image(tmp_path / f"a{suffix}").metadata
    assert found.xmp.startswith(b"<x tiff") and found.dpi == pytest.approx((300, 300), abs=0.1)
    assert (found.text == metadata.text) == (suffix == ".png")
    assert ("PNG text" in note) == (suffix != ".png")


def test_what_holds_frames(tmp_path: Path) -> None:
    expected = {"png": (True, False), "webp": (True, False), "jpg": (False, False), "tif": (True, True)}
    for suffix, (animation, pages) in {**expected, "TIFF": (True, True), "gif": (False, False)}.items():
        assert holds_frames(f"a.{suffix}", animated=True) == animation
        assert holds_frames(f"a.{suffix}", animated=False) == pages
    for suffix, (animation, pages) in expected.items():
        for animated, good in ((True, animation), (False, pages)):
            if good:
                check_writable(f"a.{suffix}", 3, 4, transparent=False, frames=9, animated=animated)
            else:
                with pytest.raises(AlloSR2Error, match=r"cannot store 9 (frames|pages)"):
                    check_writable(f"a.{suffix}", 3, 4, transparent=False, frames=9, animated=animated)
                with pytest.raises(AlloSR2Error, match="cannot store"):
                    save_frames(tmp_path / f"a.{suffix}", three_frames(), animated=animated)
    with pytest.raises(AlloSR2Error, match="at least one frame"):
        save_frames(tmp_path / "a.png", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("error", [OSError("of the source"), KeyboardInterrupt(), AlloSR2Error("source: unreadable")])
def test_error_of_the_source_passes_and_nothing_is_left(tmp_path: Path, suffix: str, error: BaseException) -> None:
    def failing() -> Iterator[Frame]:
        yield three_frames()[0]
        raise error

    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"older")
    with pytest.raises(type(error)) as caught:
        save_frames(path, failing())
    assert caught.value is error
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
