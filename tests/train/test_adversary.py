"""A discriminator beside the SR stage: who is moved by what, when it starts, what is saved.

That a run with one resumes to the bit: test_resume.py; that two processes train the same one: test_distributed.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from allosr2_core.errors import AlloSR2Error
from allosr2_core.losses.adversarial import adversarial, gradient_ratio
from tests.support.equality import assert_equal
from tests.support.tiny_training import run_autoencoder, tiny_table, to_toml, write_config, write_photos
from train.__main__ import main
from train.config import Config
from train.config_file import from_table
from train.config_stages import AdversaryConfig
from train.loop.loop import run_stage
from train.loop.rng import BatchRandom
from train.models.discriminator import Prior
from train.stages.sr import SRStage
from train.stages.sr_adversary import SRAdversary


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and a run with an autoencoder and a prior."""
    root = tmp_path_factory.mktemp("adversary")
    write_photos(root, "train", [(100, 140), (128, 96)])
    write_photos(root, "val", [(80, 70)])
    first = write_config(root, "first", 2)
    assert run_autoencoder(first) == 0
    assert main(["prior", "--config", str(first)]) == 0
    return root


def table_of(root: Path, name: str, steps: int = 4, **adversary: Any) -> dict[str, Any]:
    """The tiny table for a run in root/NAME that starts from the first one's autoencoder and prior."""
    table = tiny_table(root, steps)
    table["run"]["dir"] = str(root / name)
    table["stages"]["sr"]["adversary"] |= adversary
    for stage in ("autoencoder", "prior"):
        (root / name).mkdir(exist_ok=True)
        if not (root / name / stage).exists():
            (root / name / stage).symlink_to(root / "first" / stage)
    return table


def trained(table: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The state that a run ends with."""
    config = from_table(Config, table, "x")
    run_stage(SRStage(config), config, **options)
    return torch.load(Path(config.run.dir) / "sr" / "state.pt", weights_only=True)


def stage_of(root: Path, **adversary: Any) -> SRStage:
    return SRStage(from_table(Config, table_of(root, "alone", **adversary), "x"))


def batch_of(stage: SRStage) -> dict[str, Tensor]:
    return {name: value[None] for name, value in stage.dataset(0)[0].items()}


def test_a_discriminator_that_is_not_listened_to_changes_nothing(root: Path) -> None:
    """Weights, averages and optimiser to the bit: it draws apart, and its gradients and their clipping are its own."""
    tables = {"off": table_of(root, "off", network=""), "unheard": table_of(root, "unheard")}
    for table in tables.values():
        table["stages"]["sr"]["weights"] |= {"adversarial": 0.0, "ldl": 0.0}
    off, unheard = trained(tables["off"]), trained(tables["unheard"])
    for part in ("trained", "averaged", "optimizer"):
        assert_equal(unheard[part], off[part])
    assert "adversary" not in off and "adversary" in unheard


def test_each_side_is_moved_by_its_own_loss(root: Path) -> None:
    stage = stage_of(root)
    assert stage.adversary is not None
    own = [p for p in stage.adversary.parameters() if p.requires_grad]
    for name, moved, still in (
        ("adversarial", list(stage.trained["velocity"].parameters()), own),
        ("discriminator", own, list(stage.trained.parameters())),
    ):
        terms = stage(batch_of(stage), 1, BatchRandom.seeded(0))
        terms[name].backward()
        assert all(parameter.grad is None for parameter in still), name
        assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in moved), name
        stage.zero_grad(set_to_none=True)


def test_it_learns_first_and_is_heard_later(root: Path) -> None:
    """Before `start` only the discriminator has the loss; both sides move with the rate of the stage."""
    stage = stage_of(root, start=1)
    before, after = (stage(batch_of(stage), step, BatchRandom.seeded(0)) for step in (0, 1))
    assert "discriminator" in before and "adversarial" not in before
    assert {"discriminator", "adversarial", "score_real", "score_fake", "adversarial_ratio"} <= after.keys()
    table = table_of(root, "heard", start=1)
    fresh = SRStage(from_table(Config, table, "x"))
    assert fresh.adversary is not None
    weights = {name: value.detach().clone() for name, value in fresh.adversary.network.named_parameters()}
    state = trained(table, max_steps=1)["adversary"]
    for name, value in weights.items():  # Adam's first step has the size of the learning rate
        largest = float((state["trained"][name] - value).abs().max())
        assert largest == pytest.approx(1e-3, rel=0.01), name
    left = fresh.adversary.network.state_dict()["down.0.left"]
    assert not torch.equal(state["trained"]["down.0.left"], left)  # the singular vectors follow the weights
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.99)


def test_it_sees_photographs_unsharpened(root: Path) -> None:
    stage = stage_of(root)
    assert stage.adversary is not None and stage.stage.sharpen
    seen: list[Tensor] = []
    stage.adversary.show = lambda pictures, latents, random: seen.extend(pictures + latents)  # type: ignore
    batch = batch_of(stage)
    stage(batch, 0, BatchRandom.seeded(0))
    hr = batch["hr"] * 2 - 1
    assert torch.equal(seen[1], hr)
    with torch.no_grad():
        assert torch.equal(seen[3], stage.encode_hr(hr))


SMALL = AdversaryConfig(network="unet", channels=4, lr=1e-3, crop=16, start=0)


def no_prior() -> Prior:
    raise AssertionError("a U-Net on pixels asks for no prior")


@pytest.fixture
def adversary(tmp_path: Path) -> SRAdversary:
    return SRAdversary(SMALL, tmp_path, no_prior, seed=1)


def latents(seed: int) -> Tensor:
    return torch.randn(2, 3, 10, 12, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int) -> Tensor:
    return torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_both_sides_are_shown_the_same_square(adversary: SRAdversary) -> None:
    """Another one at every step, and the same whichever part of the batch a process has."""
    x = pictures(0)
    squares = []
    for seed, part, parts in ((1, 0, 1), (1, 1, 4), (2, 0, 1)):
        shown = adversary.show((x, x), (latents(0), latents(0)), BatchRandom.seeded(seed, part, parts))
        assert shown.results[0].shape == (2, 3, 16, 16)
        assert torch.equal(shown.results[0], shown.photographs[0])
        squares.append(shown.results[0])
    assert torch.equal(squares[0], squares[1]) and not torch.equal(squares[0], squares[2])


def test_fresh_weights_follow_from_the_seed_and_leave_other_draws_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (SRAdversary(SMALL, tmp_path, no_prior, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert_equal(one, same)
    assert not torch.equal(one["network.conv_in.weight"], other["network.conv_in.weight"])


def test_the_ratio_is_that_of_the_weighted_gradients_at_the_pixels(adversary: SRAdversary) -> None:
    source = pictures(0).requires_grad_(True)
    pixels = source * 1.0
    shown = adversary.show((pixels, pictures(1)), (latents(0), latents(1)), BatchRandom.seeded(0))
    rest, charged = pixels.square().mean(), 0.1 * adversarial(shown.scores())["adversarial"]
    parts = [torch.autograd.grad(loss, source, retain_graph=True)[0] for loss in (charged, rest)]
    ratio = shown.terms()["adversarial_ratio"]
    (rest + charged).backward()
    assert float(ratio) == pytest.approx(float(gradient_ratio(parts[0], parts[0] + parts[1])), rel=1e-4)
    assert float(ratio) > 0


def test_the_prior_as_critic_sees_latents_and_stays_as_it_was(root: Path) -> None:
    """Its square is as large in the picture; heads and the stage move, the prior does not, and a run resumes."""
    stage = stage_of(root, network="prior", crop=16)
    assert stage.adversary is not None
    shown = stage.adversary.show(
        (pictures(0), pictures(1)), (latents_of(stage, 0), latents_of(stage, 1)), BatchRandom.seeded(0)
    )
    assert shown.results[0].shape[-2:] == (4, 4)
    terms = stage(batch_of(stage), 1, BatchRandom.seeded(0))
    (terms["adversarial"] + terms["discriminator"]).backward()
    assert all(p.grad is None for p in stage.velocity.copy.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in stage.trained["velocity"].parameters())
    table = table_of(root, "critic", network="prior", crop=16)
    whole = trained(table_of(root, "critic_whole", network="prior", crop=16))
    trained(table, max_steps=2)
    assert_equal(trained(table), whole)
    assert {name.split(".")[0] for name in whole["adversary"]["trained"]} == {"heads"}


def test_the_prior_as_critic_needs_a_frozen_flow(root: Path) -> None:
    table = table_of(root, "branched", network="prior", crop=16)
    table["adapter"] |= {"rank": 2, "alpha": 2.0, "transformer": ["time_mlp.0"], "encoder": ["conv_in"]}
    with pytest.raises(AlloSR2Error, match="adapter.rank: expected 0, a network trained whole"):
        SRStage(from_table(Config, table, "x"))


def latents_of(stage: SRStage, seed: int) -> Tensor:
    with torch.no_grad():
        return stage.encode_hr(pictures(seed))


def test_a_step_in_passes_is_the_same_step(root: Path) -> None:
    """The discriminator's gradients add up as the stage's; its singular vectors move once a step."""
    tables = {name: table_of(root, name) for name in ("whole", "passes")}
    tables["passes"]["stages"]["sr"]["optim"]["micro"] = 1
    tables["whole"]["stages"]["sr"]["paths_every"] = tables["passes"]["stages"]["sr"]["paths_every"] = 1
    one, two = (trained(table, max_steps=3)["adversary"]["trained"] for table in tables.values())
    assert any(name.endswith("left") for name in one)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)


def test_the_averaged_network_restores_from_the_same_start(root: Path) -> None:
    stage = stage_of(root)
    velocity = stage.trained["velocity"]
    z, t = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((1,), 0.3)
    own = stage._averaged(z, t)  # noqa: SLF001
    with torch.no_grad():
        for parameter in velocity.parameters():
            parameter.add_(0.1)
        assert torch.equal(stage._averaged(z, t), own)  # noqa: SLF001
        stage.averages.update(step=0)
        later = stage._averaged(z, t)  # noqa: SLF001
        assert not torch.equal(later, own)
        with stage.averages.in_place():
            expected = stage.autoencoder.network.decode(z - t * velocity(z, t))
    torch.testing.assert_close(later, expected, atol=1e-5, rtol=1e-4)


def test_a_state_without_a_discriminator(root: Path) -> None:
    """It resumes where there is none to go on with, and is refused where there is; --init-from starts a fresh one."""
    without = table_of(root, "without", network="")
    without["stages"]["sr"]["weights"]["adversarial"] = 0.0
    trained(without, max_steps=1)
    assert trained(without, max_steps=1)["step"] == 2
    with pytest.raises(AlloSR2Error, match="state.pt: expected the state of an adversary; .* --init-from"):
        trained(table_of(root, "without"), max_steps=1)
    config = root / "started.toml"
    config.write_text(to_toml(table_of(root, "started", steps=1)), encoding="utf-8")
    assert main(["sr", "--config", str(config), "--init-from", str(root / "without" / "sr")]) == 0
    assert "adversary" in torch.load(root / "started" / "sr" / "state.pt", weights_only=True)
    assert not list((root / "started" / "sr").glob("*adversary*"))  # it is no part of what a run exports


def test_a_run_goes_on_without_its_discriminator(root: Path) -> None:
    trained(table_of(root, "dropped"), max_steps=1)
    table = table_of(root, "dropped", network="")
    table["stages"]["sr"]["weights"]["adversarial"] = 0.0
    state = trained(table, max_steps=1)
    assert state["step"] == 2 and "adversary" not in state


def test_a_discriminator_of_another_width_is_refused(root: Path) -> None:
    trained(table_of(root, "narrow"), max_steps=1)
    with pytest.raises(AlloSR2Error, match=r"state.pt: expected the \d+ trained tensors of this configuration"):
        trained(table_of(root, "narrow", channels=6), max_steps=1)


def test_a_loss_without_its_network_is_refused(root: Path) -> None:
    with pytest.raises(AlloSR2Error, match="adversary.network: expected one where the weight of adversarial"):
        from_table(Config, table_of(root, "x", network=""), "x")
    config = from_table(Config, table_of(root, "x", network="patch"), "x")
    with pytest.raises(AlloSR2Error, match="expected a discriminator of 'unet', .*'prior'; got 'patch'"):
        SRStage(config)
