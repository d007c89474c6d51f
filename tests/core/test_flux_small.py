"""A tiny FLUX-class velocity: the protocol's promises, and one training step."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.flux import Flux, FluxConditioning, FluxParams, FluxVelocity, pack, unpack
from allosr2_core.networks.flux_layers import QUERY_ROWS, attention, sinusoidal_features

from .peers import randomize

TINY = FluxParams(
    in_channels=16,
    out_channels=16,
    vec_in_dim=8,
    context_in_dim=12,
    hidden_size=32,
    mlp_ratio=2.0,
    num_heads=2,
    depth=1,
    depth_single_blocks=2,
    axes_dim=(4, 6, 6),
    theta=10_000,
    qkv_bias=True,
    guidance_embed=True,
)


def network(params: FluxParams = TINY, *, checkpointing: bool = False) -> FluxVelocity:
    flux = Flux(params)
    flux.gradient_checkpointing = checkpointing
    randomize(flux, seed=0)
    return FluxVelocity(flux)


def cond(batch: int = 1, params: FluxParams = TINY) -> FluxConditioning:
    generator = torch.Generator().manual_seed(1)
    return FluxConditioning(
        context_BLC=torch.randn(batch, 3, params.context_in_dim, generator=generator),
        pooled_BV=torch.randn(batch, params.vec_in_dim, generator=generator),
        guidance_B=torch.full((batch,), 3.5) if params.guidance_embed else None,
    )


def latent(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 5), (7, 8), (16, 2)], ids=str)
def test_any_size_keeps_its_size(size: tuple[int, int]) -> None:
    v = network()(latent(2, *size), torch.tensor([0.2, 0.9]), cond())
    assert v.shape == (2, 4, *size)
    assert torch.isfinite(v).all()


def test_an_odd_size_is_the_circularly_padded_one_cropped() -> None:
    z, t = latent(1, 5, 3), torch.tensor([0.4])
    padded = torch.nn.functional.pad(z, (0, 1, 0, 1), mode="circular")
    assert torch.equal(network()(z, t, cond()), network()(padded, t, cond())[..., :5, :3])


def test_packing_round_trips_and_orders_tokens_by_row() -> None:
    z = latent(2, 4, 6)
    tokens, rows, columns = pack(z)
    assert (tokens.shape, rows, columns) == ((2, 6, 16), 2, 3)
    assert torch.equal(tokens[1, 4], z[1, :, 2:4, 2:4].reshape(-1))
    assert torch.equal(unpack(tokens, rows, columns), z)


def test_samples_do_not_mix() -> None:
    z, t, both = latent(2, 4, 4), torch.tensor([0.2, 0.7]), cond(2)
    together = network()(z, t, both)
    for n in range(2):
        one = FluxConditioning(both.context_BLC[n : n + 1], both.pooled_BV[n : n + 1], torch.tensor([3.5]))
        torch.testing.assert_close(network()(z[n : n + 1], t[n : n + 1], one)[0], together[n])


def test_the_sign_of_time_reaches_the_network() -> None:
    z, t = latent(1, 4, 4), torch.tensor([0.25])
    assert (network()(z, t, cond()) - network()(z, -t, cond())).abs().mean() > 0.01
    plus, minus = sinusoidal_features(t, 256), sinusoidal_features(-t, 256)
    assert torch.equal(plus[:, :128], minus[:, :128])
    assert torch.equal(plus[:, 128:], -minus[:, 128:])


def test_low_precision_inside_comes_back_in_the_dtype_of_z() -> None:
    inside = FluxVelocity(network().flux.bfloat16(), compute_dtype=torch.bfloat16)
    z, t = latent(1, 4, 4), torch.tensor([0.25])
    v = inside(z, t, cond())
    assert v.dtype == torch.float32
    torch.testing.assert_close(v, network()(z, t, cond()), atol=0.15, rtol=0.1)


def test_attention_in_blocks_is_the_fused_one_up_to_bf16_rounding() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 3, 2 * QUERY_ROWS + 7, 16, generator=generator) for _ in range(3))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    blocks = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert blocks.dtype == torch.bfloat16 and blocks.shape == whole.shape
    assert (blocks.float() - whole).abs().max() < 0.02 * whole.abs().max()
    assert torch.equal(attention(q, k, v), whole)  # other types take the fused kernel


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_training_step_reaches_every_weight_and_lowers_the_loss(checkpointing: bool) -> None:
    velocity = network(checkpointing=checkpointing).requires_grad_(True)
    z, t, target = latent(2, 6, 6), torch.tensor([0.3, -0.3]), torch.ones(2, 4, 6, 6)

    def loss() -> Tensor:
        return (velocity(z, t, cond()) - target).square().mean()

    optimiser = torch.optim.SGD(velocity.parameters(), lr=1e-3)
    before = loss()
    before.backward()
    idle = [name for name, p in velocity.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle
    optimiser.step()
    assert loss() < before


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        velocity = network(checkpointing=checkpointing).requires_grad_(True)
        velocity(latent(1, 4, 4), torch.tensor([0.3]), cond()).square().sum().backward()
        gradients.append([p.grad for p in velocity.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_fresh_training_weights_give_no_velocity_and_learn() -> None:
    flux = Flux(TINY)
    flux.init_for_training()
    velocity = FluxVelocity(flux)
    z, t = latent(2, 4, 4), torch.tensor([0.3, 0.6])
    assert torch.equal(velocity(z, t, cond()), torch.zeros_like(z))
    optimiser = torch.optim.Adam(velocity.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        loss = (velocity(z, t, cond()) - z).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * z.square().mean().item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(1, 3, 4, 4)}, r"z: expected shape \(any, 4, any, any\), got \(1, 3, 4, 4\)"),
        ({"z": torch.zeros(4, 4, 4)}, "z: expected shape"),
        ({"z": torch.zeros(1, 4, 0, 4)}, "z: expected at least one cell"),
        ({"t": torch.tensor(0.5)}, r"timesteps: expected shape \(1,\), got \(\)"),
        ({"t": torch.tensor([0.5, 0.5])}, r"timesteps: expected shape \(1,\), got \(2,\)"),
        ({"cond": None}, "expected a FluxConditioning"),
        ({"cond": replace(cond(), guidance_B=None)}, r"expected a guidance of shape \(B,\), got None"),
        ({"cond": replace(cond(), context_BLC=torch.zeros(1, 3, 7))}, r"txt: expected shape \(1, any, 12\)"),
        ({"cond": replace(cond(), pooled_BV=torch.zeros(1, 9))}, r"y: expected shape \(1, 8\)"),
        ({"cond": replace(cond(), pooled_BV=torch.zeros(3, 8))}, "pooled: expected a batch of 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    given = {"z": latent(1, 4, 4), "t": torch.tensor([0.5]), "cond": cond()} | change
    with pytest.raises(AlloSR2Error, match=message):
        network()(given["z"], given["t"], given["cond"])


def test_guidance_for_a_network_without_it_is_refused() -> None:
    with pytest.raises(AlloSR2Error, match="expected no guidance"):
        network(replace(TINY, guidance_embed=False))(latent(1, 4, 4), torch.tensor([0.5]), cond())


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": 3},
        {"axes_dim": (4, 6, 8)},
        {"axes_dim": (5, 5, 6)},
        {"hidden_size": 0},
        {"depth": -1},
        {"in_channels": 16.0},
        {"mlp_ratio": 0.0},
    ],
    ids=str,
)
def test_impossible_architectures_are_refused(change: dict) -> None:
    with pytest.raises(AlloSR2Error):
        replace(TINY, **change)


def test_a_network_that_gives_no_velocity_is_refused() -> None:
    with pytest.raises(AlloSR2Error, match="in_channels equal to out_channels"):
        FluxVelocity(Flux(replace(TINY, out_channels=8)))
