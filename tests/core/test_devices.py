"""Networks on another device than the pictures: the meta device keeps account without one being there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from allosr2_core.checkpoint.format import embedded_path, load_checkpoint
from allosr2_core.devices import CPU, device_of, on_device
from allosr2_core.errors import AlloSR2Error
from allosr2_core.pipeline import Pipeline
from allosr2_core.precision import DTYPES


def only_meta(module: nn.Module, inputs: tuple[object, ...]) -> None:
    """Layers such as convolutions do not say themselves when an input is elsewhere."""
    assert all(each.is_meta for each in inputs if isinstance(each, Tensor)), type(module).__name__


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_networks_on_another_device_meet_no_tensor_in_main_memory(dtype: torch.dtype) -> None:
    checkpoint = load_checkpoint(embedded_path())
    network, autoencoder = checkpoint.build_network(), checkpoint.build_autoencoder()
    head = checkpoint.build_snr_head()
    assert head is not None
    for part in (network, autoencoder, head):
        part.compute_in(dtype)
        part.to("meta")
        assert all(each.is_meta for each in (*part.parameters(), *part.buffers()))
        for layer in part.modules():
            layer.register_forward_pre_hook(only_meta)
    pixels, t = torch.rand(1, 3, 64, 96, device="meta"), torch.tensor([0.3], device="meta")
    z = autoencoder.scaled_encode(pixels, 1.0, 0.1)
    v = network(z, t)
    restored = autoencoder.scaled_decode(z - 0.3 * v, 1.0, 0.1)
    for result in (z, v, restored, head.log_power_tiled(z)):
        assert result.is_meta and result.dtype == torch.float32
    assert z.shape == v.shape and restored.shape == pixels.shape


def test_the_meta_device_tells_what_it_is_not() -> None:
    """What the test above rests on."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device="meta") + torch.ones(2)
    layer = nn.Conv2d(3, 4, 3).to("meta")
    layer.register_forward_pre_hook(only_meta)
    with pytest.raises(AssertionError, match="Conv2d"):
        layer(torch.rand(1, 3, 8, 8))


def test_on_device_takes_tensors_there_and_back() -> None:
    seen = []

    def function(a: Tensor, b: Tensor) -> Tensor:
        seen.append((a.device.type, b.device.type))
        return torch.zeros(2)

    assert torch.equal(on_device(function, torch.device("meta"))(torch.ones(1), torch.ones(3)), torch.zeros(2))
    assert seen == [("meta", "meta")]
    assert on_device(torch.neg, CPU) is torch.neg


def test_a_pipeline_runs_where_it_is_put() -> None:
    """On the meta device, from where no value comes back."""
    pipeline = Pipeline.from_checkpoint(load_checkpoint(embedded_path()), device=torch.device("meta"))
    assert pipeline.head is not None and next(pipeline.head.parameters()).is_meta
    for function, channels in ((pipeline.backend.encode, 3), (pipeline.backend.decode, 16)):
        with pytest.raises(NotImplementedError, match="meta tensor"):
            function(torch.rand(1, channels, 32, 32))
    with pytest.raises(NotImplementedError, match="meta tensor"):
        pipeline.backend.velocity(torch.rand(1, 16, 16, 16), torch.tensor([0.3]))


@pytest.mark.parametrize("word", ["", "meta", "tpu", "cuda:x", "CPU"])
def test_unknown_devices_are_refused(word: str) -> None:
    with pytest.raises(AlloSR2Error, match="expected the device to be auto or one of cpu, cuda"):
        device_of(word)


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs on machines without a CUDA device")
def test_without_a_gpu_auto_is_the_processor_and_cuda_a_clear_error() -> None:
    assert device_of("auto") == CPU
    with pytest.raises(AlloSR2Error, match="a device that is there; cuda:1 cannot be used"):
        device_of("cuda:1")


def test_processes_of_a_launcher_take_turns_on_the_devices_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    asked: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: asked.append(device) or torch.zeros(1))
    assert [device_of("auto", {"LOCAL_RANK": rank}).index for rank in "0123"] == [0, 1, 0, 1]
    assert device_of("cuda", {}).index == 0
    assert device_of("cuda:1", {"LOCAL_RANK": "0"}).index == 1
    assert [device.index for device in asked] == [0, 1, 0, 1, 0, 1]
