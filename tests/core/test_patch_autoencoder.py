"""The patch autoencoder: its linear basis, its receptive fields, its refusals."""

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.networks.patch_autoencoder import PatchAutoencoder, PatchAutoencoderParams, principal_components
from tests.support.exact_tiled import exact_tiled


def params(channels: int = 6, patch: int = 4, blocks: int = 1) -> PatchAutoencoderParams:
    return PatchAutoencoderParams(patch=patch, latent_channels=channels, hidden=5, blocks=blocks, pixel_channels=4)


def fresh(p: PatchAutoencoderParams) -> PatchAutoencoder:
    torch.manual_seed(0)
    return PatchAutoencoder(p).eval().requires_grad_(False)


def shaken(p: PatchAutoencoderParams) -> PatchAutoencoder:
    """Every layer has an effect."""
    model = fresh(p)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def patches(count: int, patch: int, seed: int = 0) -> Tensor:
    """Random patches [count, 3 patch^2] with a mean and unequal spreads, as `pixel_unshuffle` orders them."""
    rng = torch.Generator().manual_seed(seed)
    size = 3 * patch * patch
    mixing = torch.randn(size, size, generator=rng) * torch.linspace(1.0, 0.05, size)
    colours = torch.tensor([0.3, -0.1, 0.2]).repeat_interleave(patch * patch)
    return 0.2 * torch.randn(count, size, generator=rng) @ mixing.T + colours


def picture(cells_NP: Tensor, rows: int, patch: int) -> Tensor:
    """Patches laid out as a picture [1, 3, rows patch, columns patch]."""
    return functional.pixel_shuffle(cells_NP.T.reshape(1, cells_NP.shape[1], rows, -1), patch)


# ---- the linear basis ----


@pytest.mark.parametrize("patch", [2, 4])
def test_all_components_reconstruct_exactly(patch: int) -> None:
    """Also pictures the components were not made from; the untrained branches add nothing."""
    model = fresh(params(3 * patch * patch, patch))
    model.set_basis(*principal_components(patches(4000, patch), 3 * patch * patch))
    x = torch.rand(2, 3, 6 * patch, 5 * patch) * 2 - 1
    torch.testing.assert_close(model(x), x, atol=1e-4, rtol=0)


def test_latents_of_the_measured_patches_have_unit_variance_and_no_correlation() -> None:
    cells, model = patches(6400, 4), fresh(params(8))
    model.set_basis(*principal_components(cells, 8))
    z_CN = model.encode(picture(cells, 80, 4))[0].flatten(1)
    torch.testing.assert_close(torch.cov(z_CN, correction=0), torch.eye(8), atol=1e-3, rtol=0)


def test_fewer_components_lose_what_the_left_out_variance_says() -> None:
    """Leading components: the mean squared error is the sum of the other eigenvalues over the values of a patch."""
    cells = patches(6400, 4)
    centred = cells - cells.reshape(-1, 3, 16).mean(dim=(0, 2)).repeat_interleave(16)
    mean_P, components_PC, std_C = principal_components(cells, 48)
    errors = []
    for kept in (4, 12, 30):
        model = fresh(params(kept))
        model.set_basis(mean_P, components_PC[:, :kept], std_C[:kept])
        x = picture(cells, 80, 4)
        errors.append(float((model(x) - x).square().mean()))
        left_out = float((centred @ components_PC[:, kept:]).square().sum(dim=1).mean()) / 48
        assert errors[-1] == pytest.approx(left_out, rel=1e-3)
    assert errors == sorted(errors, reverse=True)


def test_principal_components_are_orthonormal_ordered_and_of_fixed_sign() -> None:
    cells = patches(3000, 2)
    mean_P, components_PC, std_C = principal_components(cells, 12)
    torch.testing.assert_close(mean_P, cells.mean(dim=0))
    torch.testing.assert_close(components_PC.T @ components_PC, torch.eye(12), atol=1e-5, rtol=0)
    assert bool((std_C.diff() <= 0).all())
    strongest = components_PC.gather(0, components_PC.abs().argmax(dim=0, keepdim=True))
    assert bool((strongest > 0).all())


def test_a_basis_of_another_shape_is_refused() -> None:
    model, (mean_P, components_PC, std_C) = fresh(params(6)), principal_components(patches(200, 4), 6)
    for wrong in (
        (mean_P[:-1], components_PC, std_C),
        (mean_P, components_PC[:, :5], std_C),
        (mean_P, components_PC, std_C[:5]),
    ):
        with pytest.raises(AlloSR2Error, match="expected mean"):
            model.set_basis(*wrong)


# ---- receptive fields ----


@pytest.mark.parametrize(
    "p", [params(patch=4), params(patch=4, blocks=2), params(12, patch=2), params(patch=4, blocks=0)]
)
def test_the_radii_bound_the_receptive_fields_tightly(p: PatchAutoencoderParams) -> None:
    model, patch = shaken(p), p.patch
    cells = 2 * max(model.encoder_radius, model.decoder_radius) + 3
    middle = cells // 2

    x = torch.rand(1, 3, cells * patch, cells * patch)
    changed = x.clone()
    changed[:, :, middle * patch : (middle + 1) * patch, middle * patch : (middle + 1) * patch] += 3.0
    differs = ((model.encode(changed) - model.encode(x)).abs() > 1e-6).any(dim=1)[0].nonzero()
    assert int((differs - middle).abs().max()) == model.encoder_radius

    z = torch.randn(1, p.latent_channels, cells, cells)
    changed = z.clone()
    changed[:, :, middle, middle] += 3.0
    differs = ((model.decode(changed) - model.decode(z)).abs() > 1e-6).any(dim=1)[0].nonzero() // patch
    assert int((differs - middle).abs().max()) == model.decoder_radius


def test_tiles_with_the_radius_of_context_are_exact() -> None:
    model = shaken(params())
    x = torch.rand(1, 3, 52, 60)
    z = exact_tiled(model.encode, x, 4, model.encoder_radius, 1 / 4)
    torch.testing.assert_close(z, model.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        exact_tiled(model.decode, z, 4, model.decoder_radius, 4), model.decode(z), atol=1e-5, rtol=1e-5
    )


def test_the_decoder_can_mix_neighbouring_patches() -> None:
    """Otherwise it could only paint independent patches: a lattice."""
    model, z = shaken(params()), torch.zeros(1, 6, 3, 3)
    base = model.decode(z)
    z[:, :, 1, 1] = 1.0
    assert float((model.decode(z) - base)[:, :, :4, :4].abs().max()) > 1e-4


# ---- sizes and refusals ----


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 40), (12, 8)])
def test_sizes(height: int, width: int) -> None:
    model = shaken(params())
    z = model.encode(torch.zeros(2, 3, height, width))
    assert z.shape == (2, 6, height // 4, width // 4)
    assert model.decode(z).shape == (2, 3, height, width)
    assert model.downscale == 4


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 3, 2, 8), (1, 4, 8, 8), (3, 8, 8), (1, 3, 0, 8)])
def test_other_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match="multiples of 4"):
        fresh(params()).encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5, 2, 2), (6, 2, 2)])
def test_other_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AlloSR2Error, match=r"\[B, 6, h, w\]"):
        fresh(params()).decode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 1}, "patch: expected a number of at least 2"),
        ({"channels": 0}, "latent_channels: expected a number of at least 1"),
        ({"channels": 49}, r"expected 1\.\.3\*patch\^2 latent channels"),
    ],
)
def test_impossible_architectures_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(AlloSR2Error, match=message):
        params(**change)
