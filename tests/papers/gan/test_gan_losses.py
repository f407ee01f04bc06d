"""Both losses by hand, and the gradient penalty against a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from drstudy.papers.gan import losses

REAL, FAKE = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.5])


def test_wasserstein_by_hand():
    # mean of fake (-0.5) less mean of real (0.5)
    assert losses.critic(REAL, FAKE, "cwgan_gp").item() == pytest.approx(-1.0, abs=1e-6)


def test_hinge_by_hand():
    # real: max(0, 1 - s) = 0, 0.5, 2; generated: max(0, 1 + s) = 0, 1, 2.5
    assert losses.critic(REAL, FAKE, "hinge").item() == pytest.approx(2.5 / 3 + 3.5 / 3, abs=1e-6)


def test_the_hinge_asks_nothing_more_of_scores_beyond_the_margin():
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    losses.critic(real, fake, "hinge").backward()
    assert real.grad.tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert fake.grad.tolist() == pytest.approx([0, 1 / 3, 1 / 3])


def test_the_generator_wants_higher_scores():
    fake = FAKE.clone().requires_grad_()
    loss = losses.generator(fake)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert fake.grad.tolist() == pytest.approx([-1 / 3] * 3)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"LOSS is 'least squares'.*cwgan_gp, hinge"):
        losses.critic(REAL, FAKE, "least squares")


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_has_a_closed_form(norm):
    """The gradient of w.x is w everywhere, so the penalty is (|w| - 1)^2, and its gradient 2 (|w| - 1) w / |w|."""
    critic = nn.Linear(12, 1, bias=False)
    with torch.no_grad():
        critic.weight.copy_(norm * nn.functional.normalize(torch.randn(1, 12), dim=1))
    real, fake = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)
    penalty = losses.gradient_penalty(lambda x: critic(x.flatten(1))[:, 0], real, fake, torch.rand(5))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    penalty.backward()
    expected = 2 * (norm - 1) * critic.weight.detach() / norm
    assert torch.allclose(critic.weight.grad, expected, atol=1e-5)


def test_the_penalty_is_taken_between_the_k_th_real_and_the_k_th_generated_photograph():
    """Of the critic sum(x^2) / 2 the gradient is x itself, so the penalty shows where it was taken."""
    real, fake = torch.full((2, 1, 1, 4), 3.0), torch.full((2, 1, 1, 4), 1.0)
    shares = torch.tensor([1.0, 0.25])  # at 3 and at 1.5, where |x| is 6 and 3
    penalty = losses.gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, real, fake, shares)
    assert penalty.item() == pytest.approx(((6 - 1) ** 2 + (3 - 1) ** 2) / 2, abs=1e-4)


def test_the_penalty_is_computed_in_float32_inside_of_a_lower_precision():
    critic = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        critic.weight.fill_(1.001)  # bf16 would round it to 1
    real, fake = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = losses.gradient_penalty(lambda x: critic(x.flatten(1))[:, 0], real, fake, torch.rand(3))
    assert penalty.item() == pytest.approx((2 * 1.001 - 1) ** 2, abs=1e-4)
