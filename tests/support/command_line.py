"""The command line in the test process, and the tiny random checkpoint it runs on."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from allosr2_core.checkpoint.config import AlloSR2Config
from allosr2_core.checkpoint.format import save_checkpoint
from allosr2_core.cli.main import main
from allosr2_core.networks.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams
from allosr2_core.networks.registry import build_network
from allosr2_core.snr import SNRHead, SNRHeadParams

NETWORK = {"type": "unet", "latent_channels": 4, "channels": [4, 8], "blocks": [1, 1], "time_dim": 8}
AUTOENCODER = {"patch": 4, "latent_channels": 4, "hidden": 4, "blocks": 1, "pixel_channels": 3}
HEAD = {"latent_channels": 4, "hidden": 4, "levels": 1}
CONFIG = AlloSR2Config(
    base="allosr2-mini",
    network=NETWORK,
    adapter={},
    autoencoder=AUTOENCODER,
    snr_head=HEAD,
    init="aligned",
    t_star=0.22,
    t_min=0.05,
    t_max=0.5,
    t_method="predicted",
    scale=4,
    trained_size=64,
    tile_size=64,
    latent_channels=4,
    latent_downscale=4,
    latent_scale=1.0,
    latent_shift=0.0,
)


def save_tiny_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(PatchAutoencoderParams(**AUTOENCODER))
    prior, network = build_network(NETWORK), build_network(NETWORK)
    network.load_state_dict({k: v + 0.05 * torch.randn_like(v) for k, v in prior.state_dict().items()})
    save_checkpoint(
        path,
        CONFIG,
        {"steps": 12, "data": "random"},
        prior=prior,
        network=network,
        autoencoder=autoencoder,
        encoder=autoencoder.encoder,
        snr_head=SNRHead(SNRHeadParams(**HEAD)),
    )


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class CommandLine:
    """Runs `main` in this process with the tiny checkpoint, in fp32 unless told otherwise."""

    def __init__(self, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.checkpoint, self.capsys = checkpoint, capsys

    def __call__(self, *arguments: object) -> Outcome:
        self.capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse
            code = int(exit_.code or 0)
        captured = self.capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    def upscale(self, *arguments: object) -> Outcome:
        return self("upscale", "--dtype", "fp32", *arguments, "--checkpoint", self.checkpoint)
