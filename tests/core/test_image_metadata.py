"""What a file says besides its pixels: read, corrected for the result, written, or said to be lost."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from allosr2_core.image.metadata import Metadata, clean_exif, fitted
from allosr2_core.image.read import load_image, read_header
from allosr2_core.image.write import save_image
from tests.support.awkward_pictures import chunk, exif_block, png, tiff
from tests.support.pictures import photo

FORMATS = [".png", ".jpg", ".webp", ".tif"]
WORKFLOW = '{"nodes": [{"id": 1, "title": "Größe \N{GRINNING FACE}"}]}'
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    b'tiff:Orientation="6" GCamera:MotionPhoto="1" exif:PixelXDimension=\'21\' dc:rights="mine" '
    b'xmpNote:HasExtendedXMP="ABCD"><tiff:ImageLength>13</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>old</rdf:Alt>'
    b"</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def camera_exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0132], exif[0x0112], exif[0x8298] = "Canon", "2019:05:01 10:00:00", orientation, "me"
    gps, inner = exif.get_ifd(0x8825), exif.get_ifd(0x8769)
    gps[1], gps[2] = "N", (48.0, 51.0, 29.0)
    inner[0x9003], inner[0xA002], inner[0xA003] = "2019:05:01 10:00:00", 21, 13
    inner[0x829A] = 0.008
    return exif.tobytes()


def stored(path: Path) -> Image.Exif:
    with Image.open(path) as opened:
        opened.load()
        exif = opened.getexif()
        exif.get_ifd(0x8825), exif.get_ifd(0x8769)
        return exif


def write_source(path: Path) -> None:
    picture = Image.fromarray(photo(13, 21))
    if path.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("workflow", WORKFLOW)
        text.add_text("parameters", "a castle, Steps: 20", zip=True)
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        picture.save(path, exif=camera_exif(), dpi=(300, 200), pnginfo=text)
    elif path.suffix == ".jpg":
        picture.save(path, exif=camera_exif(), dpi=(300, 200), xmp=XMP, comment=b"by hand")
    elif path.suffix == ".webp":
        picture.save(path, exif=camera_exif(), xmp=XMP, lossless=True)
    else:
        block = Image.Exif()
        block.load(camera_exif())
        block[700], block[274] = XMP, 6
        picture.save(path, exif=block, dpi=(300, 200))


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_from_every_format_into_every_format(tmp_path: Path, source: str, target: str) -> None:
    write_source(tmp_path / f"a{source}")
    header = read_header(tmp_path / f"a{source}")
    loaded = load_image(tmp_path / f"a{source}")
    assert (header.height, header.width) == tuple(loaded.rgb_HWC.shape[:2]) == (21, 13)  # turned upright
    result = torch.rand(84, 52, 3)
    note = save_image(tmp_path / f"r{target}", result, metadata=loaded.metadata)
    exif = stored(tmp_path / f"r{target}")
    inner, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert exif[0x010F].rstrip("\0") == "Canon" and exif[0x8298] == "me"
    assert exif.get(0x0112, 1) == 1
    assert inner[0x9003] == "2019:05:01 10:00:00" and float(inner[0x829A]) == pytest.approx(0.008)
    assert (inner[0xA002], inner[0xA003]) == (52, 84)
    assert gps[1] == "N" and [float(v) for v in gps[2]] == [48.0, 51.0, 29.0]
    for tag in (256, 257, 273, 279, 513):
        assert target == ".tif" or tag not in exif
    again = load_image(tmp_path / f"r{target}")
    assert tuple(again.rgb_HWC.shape[:2]) == (84, 52)
    assert b"dc:rights" in again.metadata.xmp and b'PixelXDimension="52"' in again.metadata.xmp
    assert b'tiff:Orientation="1"' in again.metadata.xmp and b"<tiff:ImageLength>84<" in again.metadata.xmp
    assert b"Thumbnails" not in again.metadata.xmp and b'MotionPhoto="0"' in again.metadata.xmp
    assert b"HasExtendedXMP" not in again.metadata.xmp
    if source != ".webp":  # and the other way round, as the picture was turned
        if target == ".webp":
            assert "resolution left out" in note or again.metadata.dpi == pytest.approx((200, 300), abs=0.6)
        else:
            assert again.metadata.dpi == pytest.approx((200, 300), abs=0.6)
    if source == ".png":
        assert dict(loaded.metadata.text) == {"workflow": WORKFLOW, "parameters": "a castle, Steps: 20"}
        if target == ".png":
            assert again.metadata.text == loaded.metadata.text
            with Image.open(tmp_path / "r.png") as opened:
                assert opened.text["workflow"] == WORKFLOW
        else:
            assert "PNG text (workflow, parameters) left out" in note
    if source == ".jpg":
        assert loaded.metadata.comment == b"by hand"
        if target == ".jpg":
            assert again.metadata.comment == b"by hand"
        elif target == ".png":
            assert again.metadata.text == (("Comment", "by hand"),)
        else:
            assert "comment left out" in note


def test_no_metadata_makes_none(tmp_path: Path) -> None:
    for suffix in FORMATS:
        assert save_image(tmp_path / f"a{suffix}", torch.rand(5, 6, 3)) == ""
        assert load_image(tmp_path / f"a{suffix}").metadata == Metadata()


@pytest.mark.parametrize("order", "<>")
def test_thumbnail_and_structure_are_dropped_and_the_rest_stays(order: str) -> None:
    """The byte order too, which maker notes share; and letters that are not ASCII."""

    def short(value: int) -> tuple[int, int, bytes]:
        return (3, 1, struct.pack(order + "HH", value, 0))

    thumbnail = b"\xff\xd8\xff" + bytes(range(200)) + b"\xff\xd9"
    note = b"MAKER" + bytes(range(90))
    artist = "Jörg".encode() + b"\0"
    entries = {256: short(21), 257: short(13), 271: (2, 6, b"Canon\0"), 274: short(8), 315: (2, len(artist), artist)}
    block = exif_block(entries, {0x927C: (7, len(note), note), 0xA002: short(21), 0xA003: short(13)}, thumbnail, order)
    cleaned = clean_exif(b"Exif\0\0" + block)
    assert cleaned.orientation == 8 and cleaned.notes == ()
    assert cleaned.block[:2] == block[:2] and b"\xff\xd8\xff" not in cleaned.block
    resized, _ = fitted(Metadata(exif=cleaned.block), "TIFF", 4000, 70000)
    assert artist in resized.exif
    exif = Image.Exif()
    exif.load(resized.exif)
    assert set(exif) == {271, 315, 0x8769} and exif[271] == "Canon"
    assert exif.get_ifd(0x8769)[0x927C] == note
    assert (exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003]) == (70000, 4000)
    assert exif.get_ifd(1) == {}


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_exif_never_raises(data: st.DataObject) -> None:
    block = bytearray(camera_exif()[6:])
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    cleaned = clean_exif(bytes(block[: data.draw(st.integers(0, len(block)))]))
    assert cleaned.orientation in range(1, 9)
    fitted(Metadata(exif=cleaned.block, dpi=(300, 300)), "WEBP", 10, 20)
    fitted(Metadata(exif=bytes(block), dpi=(300, 300)), "WEBP", 10, 20)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_exif_is_noted_and_a_damaged_sub_directory_does_not_stop_a_save(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(photo())
    if suffix != ".tif":
        settings = {"lossless": True} if suffix == ".webp" else {}
        picture.save(tmp_path / f"a{suffix}", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage", **settings)
        loaded = load_image(tmp_path / f"a{suffix}")
        assert "EXIF data damaged" in loaded.note
        assert loaded.metadata.exif == b""
    lost = exif_block({271: (2, 6, b"Canon\0"), 0x8769: (4, 1, struct.pack("<I", 999999))})
    save_image(tmp_path / f"b{suffix}", torch.rand(4, 5, 3), metadata=Metadata(exif=lost))
    assert tuple(load_image(tmp_path / f"b{suffix}").rgb_HWC.shape) == (4, 5, 3)


def test_damaged_text_and_late_chunks(tmp_path: Path) -> None:
    """A wrong checksum in a text costs the text; EXIF behind the pixels counts."""
    values = photo(3, 5)
    text = bytearray(chunk(b"tEXt", b"Title\0abc"))
    text[-1] ^= 1
    data = png(values, 8, 2, bytes(text) + chunk(b"zTXt", b"Story\0\0not deflated"), end=False)
    data += chunk(b"eXIf", camera_exif(6)[6:]) + chunk(b"tEXt", b"prompt\0{}") + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    loaded = load_image(tmp_path / "a.png")
    assert tuple(loaded.rgb_HWC.shape) == (5, 3, 3)
    assert (read_header(tmp_path / "a.png").height, loaded.metadata.text) == (5, (("prompt", "{}"),))
    assert "tEXt chunk damaged" in loaded.note


def test_large_text(tmp_path: Path) -> None:
    """A workflow of 3 MB, compressed."""
    story = "x" * 3_000_000
    extra = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(story.encode())) + chunk(b"tEXt", b"Note\0one")
    (tmp_path / "a.png").write_bytes(png(photo(3, 5), 8, 2, extra))
    text = load_image(tmp_path / "a.png").metadata.text
    assert text == (("workflow", story), ("Note", "one"))
    save_image(tmp_path / "b.png", torch.rand(2, 2, 3), metadata=Metadata(text=text))
    assert load_image(tmp_path / "b.png").metadata.text == text


def test_text_that_is_a_bomb_costs_the_text_not_the_picture(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(1 << 27)))
    (tmp_path / "a.png").write_bytes(png(photo(3, 5), 8, 2, bomb))
    loaded = load_image(tmp_path / "a.png")
    assert loaded.metadata.text == () and "metadata damaged" in loaded.note
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(photo(3, 5)) / 255.0)


def test_exif_as_imagemagick_writes_it(tmp_path: Path) -> None:
    block = camera_exif(6)
    lines = block.hex()
    value = f"\nexif\n{len(block):8}\n" + "\n".join(lines[at : at + 72] for at in range(0, len(lines), 72)) + "\n"
    (tmp_path / "a.png").write_bytes(
        png(photo(3, 5), 8, 2, chunk(b"tEXt", b"Raw profile type exif\0" + value.encode()))
    )
    loaded = load_image(tmp_path / "a.png")
    assert tuple(loaded.rgb_HWC.shape) == (5, 3, 3)
    assert b"Canon" in loaded.metadata.exif and loaded.metadata.text == ()


@pytest.mark.parametrize(("field", "size"), [("exif", 65540), ("xmp", 65510), ("comment", 65540)])
def test_too_large_for_a_jpeg_segment(tmp_path: Path, field: str, size: int) -> None:
    content = b"x" * size
    if field == "exif":
        content = exif_block({271: (2, 6, b"Canon\0"), 0x9C9B: (7, size, content)})
    note = save_image(tmp_path / "a.jpg", torch.rand(4, 5, 3), metadata=Metadata(**{field: content}))
    assert "too many for a JPEG" in note
    assert load_image(tmp_path / "a.jpg").metadata == Metadata()
    if field != "comment":
        assert save_image(tmp_path / "a.png", torch.rand(4, 5, 3), metadata=Metadata(**{field: content})) == ""


def test_resolution_in_webp_without_exif(tmp_path: Path) -> None:
    assert save_image(tmp_path / "a.webp", torch.rand(4, 5, 3), metadata=Metadata(dpi=(300.0, 150.5))) == ""
    assert load_image(tmp_path / "a.webp").metadata.dpi == pytest.approx((300, 150.5))


def test_tiff_layout_is_not_carried(tmp_path: Path) -> None:
    """Strips, and what tifffile and ImageJ say about the number of pages."""
    description = b'{"shape": [13, 21, 3]}\0'
    tags = {
        270: (2, len(description), description),
        305: (2, 4, b"mine"),
        282: (5, 1, struct.pack("<II", 1181100, 10000)),
    }
    tags |= {283: (5, 1, struct.pack("<II", 1181100, 10000)), 296: (3, 1, struct.pack("<HH", 3, 0))}
    (tmp_path / "a.tif").write_bytes(tiff(photo(13, 21), 8, 2, tags=tags))
    metadata = load_image(tmp_path / "a.tif").metadata
    assert metadata.dpi == pytest.approx((300, 300), abs=0.01)
    exif = Image.Exif()
    exif.load(metadata.exif)
    assert set(exif) == {282, 283, 296, 305}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["raw", "tiff_lzw", "jpeg", "group4", "own"])
def test_orientation_of_a_tiff_is_applied_once(tmp_path: Path, kind: str, orientation: int) -> None:
    from PIL import ImageOps

    values = np.kron(photo(3, 5), np.ones((8, 8, 1), dtype=np.uint8))
    picture = Image.fromarray(values).convert("1" if kind == "group4" else "RGB")
    if kind == "own":
        tags = {274: (3, 1, struct.pack("<HH", orientation, 0))}
        (tmp_path / "a.tif").write_bytes(tiff(values, 8, 2, compression=8, tags=tags))
    else:
        settings = {} if kind == "raw" else {"compression": kind}
        picture.save(tmp_path / "a.tif", tiffinfo={274: orientation}, **settings)
        picture.save(tmp_path / "plain.tif", **settings)
        with Image.open(tmp_path / "plain.tif") as opened:
            picture = opened.convert("RGB")
    exif = Image.Exif()
    exif[274] = orientation
    turned = picture.convert("RGB")
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(turned)).copy()
    loaded = load_image(tmp_path / "a.tif")
    assert torch.equal(loaded.rgb_HWC, torch.from_numpy(upright) / 255.0)
    header = read_header(tmp_path / "a.tif")
    assert (header.height, header.width) == upright.shape[:2]
    save_image(tmp_path / "r.tif", loaded.rgb_HWC, metadata=loaded.metadata)
    assert torch.equal(load_image(tmp_path / "r.tif").rgb_HWC, loaded.rgb_HWC)


@pytest.mark.parametrize("orientation", [3, 6])
def test_resolution_in_exif_turns_with_the_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[283], exif[296] = orientation, 300.0, 200.0, 2
    Image.fromarray(photo(3, 5)).save(tmp_path / "a.webp", exif=exif, lossless=True)
    metadata = load_image(tmp_path / "a.webp").metadata
    expected = (200.0, 300.0) if orientation == 6 else (300.0, 200.0)
    assert metadata.dpi == expected
    written = Image.Exif()
    written.load(metadata.exif)
    assert (float(written[282]), float(written[283]), written.get(274, 1)) == (*expected, 1)
