"""The ncnn reader and the peers' architectures, on made-up files (no network)."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from allosr2_core.errors import AlloSR2Error
from train.evaluate.ncnn_reader import NcnnLayer, read_ncnn
from train.evaluate.peers import CompactNet, RRDBNet, Span, bicubic_x4, fill_convolutions, load_peer

PARAM = """7767517
4 4
Input            data     0 1 data
MemoryData       mean     0 1 mean 0=1 1=1 2=3
Convolution      first    1 1 data a 0=2 1=1 5=1 6=6
Convolution      second   1 1 a b 0=1 1=3 4=1 5=1 6=18 9=2 -23310=1,2.000000e-01
PixelShuffle     up       1 1 b out 0=1
"""


def write_model(folder: Path, param: str = PARAM, tail: bytes = b"") -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    data = rng.random(3).astype("<f4").tobytes()
    data += struct.pack("<I", 0) + np.arange(6, dtype="<f4").tobytes() + np.array([10, 20], "<f4").tobytes()
    half = np.arange(18, dtype="<f2").tobytes()
    data += struct.pack("<I", 0x01306B47) + half + np.array([-1], "<f4").tobytes()
    (folder / "m.param").write_text(param)
    (folder / "m.bin").write_bytes(data + tail)
    return folder / "m.param", folder / "m.bin"


def test_reader_takes_float32_float16_and_constants(tmp_path: Path) -> None:
    constant, first, second = read_ncnn(*write_model(tmp_path))
    assert constant.kind == "MemoryData" and constant.weight.shape == (3, 1, 1)
    assert torch.equal(first.weight.flatten(), torch.arange(6.0)) and first.weight.shape == (2, 3, 1, 1)
    assert first.bias is not None and first.bias.tolist() == [10.0, 20.0]
    assert torch.equal(second.weight.flatten(), torch.arange(18.0)) and second.weight.shape == (1, 2, 3, 3)


def test_reader_takes_slopes(tmp_path: Path) -> None:
    (tmp_path / "m.param").write_text("7767517\n1 1\nPReLU p 1 1 a b 0=3\n")
    (tmp_path / "m.bin").write_bytes(np.array([0.1, 0.2, 0.3], "<f4").tobytes())
    (slopes,) = read_ncnn(tmp_path / "m.param", tmp_path / "m.bin")
    assert slopes.kind == "PReLU" and slopes.weight.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_reader_refuses_what_it_does_not_understand(tmp_path: Path) -> None:
    with pytest.raises(AlloSR2Error, match=r"describes \d+ bytes, the file has \d+"):
        read_ncnn(*write_model(tmp_path, tail=b"more"))
    param, binary = write_model(tmp_path)
    binary.write_bytes(binary.read_bytes()[:-8])
    with pytest.raises(AlloSR2Error, match="ends early"):
        read_ncnn(param, binary)
    with pytest.raises(AlloSR2Error, match="layer kind Deconvolution"):
        read_ncnn(*write_model(tmp_path, PARAM.replace("PixelShuffle", "Deconvolution")))
    with pytest.raises(AlloSR2Error, match=r"no ncnn \.param file"):
        read_ncnn(*write_model(tmp_path, "hello\n"))


def layers_of(model: nn.Module) -> list[NcnnLayer]:
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return [NcnnLayer("Convolution", "", torch.randn_like(m.weight), torch.randn(m.out_channels)) for m in convs]


@pytest.mark.parametrize(
    "model",
    [RRDBNet(width=8, growth=4, blocks=2), CompactNet(width=8, blocks=2), Span(width=8, value_range=255.0)],
    ids=["rrdb", "compact", "span"],
)
def test_networks_enlarge_four_times_and_take_weights_in_order(model: nn.Module) -> None:
    layers = layers_of(model)
    fill_convolutions(model, layers)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(torch.equal(conv.weight, layer.weight) for conv, layer in zip(convs, layers, strict=True))
    with torch.inference_mode():
        assert model(torch.rand(2, 3, 9, 7)).shape == (2, 3, 36, 28)
    with pytest.raises(AlloSR2Error, match=r"convolutions, the file \d+"):
        fill_convolutions(model, layers[:-1])
    with pytest.raises(AlloSR2Error, match="expected shape"):
        fill_convolutions(model, layers[::-1])


def test_bicubic_is_the_kernel_of_pillow() -> None:
    rng = np.random.default_rng(1)
    plane = rng.random((12, 17)).astype(np.float32)
    expected = np.asarray(Image.fromarray(plane).resize((68, 48), Image.Resampling.BICUBIC))
    ours = bicubic_x4(torch.from_numpy(plane).expand(1, 3, 12, 17))[0, 0].numpy()
    assert ours == pytest.approx(expected, abs=1e-5)
    peer = load_peer("bicubic", "unused")
    assert peer(torch.rand(1, 3, 5, 6)).max() <= 1.0


def test_unknown_peer_is_refused() -> None:
    with pytest.raises(AlloSR2Error, match="expected one of"):
        load_peer("nearest", "unused")
