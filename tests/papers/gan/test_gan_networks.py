"""The conditional norm, the projection, shapes, spectral norm, frozen layers and the transfer of weights."""

from __future__ import annotations

import pytest
import torch

from drstudy.papers.gan import networks
from drstudy.papers.gan.networks import ConditionalNorm, Critic, Generator, Shape

SMALL = Shape(size=16, width=2, latent=4)


def weights(*grades):
    return networks.one_hot(torch.tensor(grades))


def test_the_conditional_norm_by_hand():
    """Two pictures of one channel, values 1 and 3: normalised -1 and 1; grade 0 stays, grade 1 has gain 1 + 0.5 and bias 2."""
    norm = ConditionalNorm(1, 2).train()
    with torch.no_grad():
        norm.moves.weight.copy_(torch.tensor([[0.0, 0.5], [0.0, 2.0]]))
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    found = norm(x, networks.one_hot(torch.tensor([0, 1]), 2)).flatten()
    assert found.tolist() == pytest.approx([-1.0, 1.0 * 1.5 + 2.0], abs=1e-4)


def test_a_mixture_of_grades_moves_the_norm_half_way():
    norm = ConditionalNorm(3, 5).eval()
    torch.nn.init.normal_(norm.moves.weight)
    x = torch.randn(1, 3, 2, 2)
    ends = [norm(x, weights(grade)) for grade in (1, 2)]
    between = norm(x, (weights(1) + weights(2)) / 2)
    assert torch.allclose(between, (ends[0] + ends[1]) / 2, atol=1e-6)


def test_a_conditional_norm_starts_as_a_plain_one():
    norm, x = ConditionalNorm(3, 5).train(), torch.randn(4, 3, 2, 2)
    assert torch.equal(norm(x, weights(0, 1, 2, 3)), torch.nn.BatchNorm2d(3).train()(x))


def test_the_projection_by_hand():
    """The score of a grade is that of no grade plus the product of the features with the grade's vector."""
    critic = Critic(SMALL, spectral=False)
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        features = critic.features(images)
        plain = features @ critic.linear.weight[0] + critic.linear.bias
        vectors = critic.projected.weight.T  # (5, C)
        for grade in range(5):
            expected = plain + features @ vectors[grade]
            assert torch.allclose(critic(images, weights(*[grade] * 3)), expected, atol=1e-5)


def test_an_unconditional_critic_does_not_look_at_the_grade():
    critic = Critic(Shape(16, 2, 4, grades=0), spectral=True).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(critic(images, weights(0, 0)), critic(images, weights(4, 4)))
    assert critic.projected is None


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_networks_of_every_size_make_and_judge_photographs(size):
    shape = Shape(size, 2, 4)
    generator, critic = networks.build(shape, True, 0)
    pictures = generator(torch.randn(2, 4), weights(0, 4))
    assert pictures.shape == (2, 3, size, size)
    assert pictures.abs().max() <= 1
    assert critic(pictures, weights(0, 4)).shape == (2,)
    assert len(critic.blocks) == len(generator.blocks)
    assert shape.channels[-1] == 2
    assert max(shape.channels) <= 2 * networks.WIDEST


@pytest.mark.parametrize("size", [8, 48, 100])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="power of 2, at least 16"):
        Shape(size, 2, 4)


def test_spectral_norm_bounds_every_layer_of_the_critic_of_the_hinge():
    critic = Critic(Shape(32, 4, 4), spectral=True).train()
    images = torch.randn(4, 3, 32, 32)
    for _ in range(60):  # power iterations
        critic(images, weights(0, 1, 2, 3))
    for layer in (critic.linear, critic.projected, critic.blocks[1].first):
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        assert largest == pytest.approx(1.0, abs=0.02), (
            "20 times below what an unbounded layer has in training"
        )
    plain = Critic(Shape(32, 4, 4), spectral=False)
    assert not any("parametrizations" in name for name, _ in plain.named_parameters())


def test_the_ground_is_the_picture_of_a_silent_generator():
    generator = Generator(SMALL).eval()
    torch.nn.init.zeros_(generator.last.weight)
    mean = torch.rand(3, 16, 16) * 1.8 - 0.9
    generator.start_from(mean)
    found = generator(torch.randn(1, 4), weights(2))[0]
    assert torch.allclose(found, mean, atol=1e-5)
    generator.start_from(torch.full((3, 16, 16), -1.0))
    assert generator.ground.isfinite().all(), "black has no finite input of the hyperbolic tangent"


def test_weights_of_an_unconditional_gan_start_a_conditional_one_as_the_same_function():
    plain = networks.build(Shape(16, 2, 4, grades=0), True, 1)
    conditional = networks.build(SMALL, True, 2)
    plain[0].start_from(torch.rand(3, 16, 16))
    ground = conditional[0].ground.clone()
    left = networks.take_over(conditional[0], plain[0].state_dict())
    assert left
    assert all(name.endswith("moves.weight") or name == "ground" for name in left)
    assert torch.equal(conditional[0].ground, ground), "the mean photograph belongs to the photographs"
    plain[0].ground.copy_(ground)
    noise = torch.randn(3, 4)
    pictures = [net.eval()(noise, weights(0, 2, 4)) for net in (plain[0], conditional[0])]
    assert torch.equal(*pictures)
    left = networks.take_over(conditional[1], plain[1].state_dict())
    assert left
    assert all(name.startswith("projected.") for name in left)
    assert torch.equal(conditional[1].eval().features(pictures[0]), plain[1].eval().features(pictures[0]))


def test_weights_of_another_form_are_refused():
    other = networks.build(Shape(16, 3, 4, grades=0), True, 1)
    with pytest.raises(ValueError, match="Set SIZE, WIDTH and LATENT as in the pretraining"):
        networks.take_over(networks.build(SMALL, True, 2)[0], other[0].state_dict())


def test_frozen_blocks_do_not_learn():
    critic = Critic(SMALL, spectral=True)
    critic.freeze(1)
    learning = {name for name, q in critic.named_parameters() if q.requires_grad}
    assert learning
    assert not any(name.startswith("blocks.0.") for name in learning)
    with pytest.raises(ValueError, match="has 1 blocks"):
        critic.freeze(2)


def test_random_weights_follow_from_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = networks.build(SMALL, False, 7)[0], networks.build(SMALL, False, 7)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.seed.weight, other.seed.weight)
    assert not torch.equal(one.seed.weight, networks.build(SMALL, False, 8)[0].seed.weight)
