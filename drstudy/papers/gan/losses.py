"""The two losses: Wasserstein with a gradient penalty, and hinge (``docs/sources.md``, G5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["cwgan_gp", "hinge"]
LOSSES = ("cwgan_gp", "hinge")


def critic(real: Tensor, fake: Tensor, loss: Loss) -> Tensor:
    """Loss of the critic, without any gradient penalty.

    ``cwgan_gp``: mean score of generated photographs less that of real ones (Gulrajani et al. 2017, equation 3). ``hinge``: mean of
    max(0, 1 - real) plus mean of max(0, 1 + fake) (Lim & Ye 2017).

    Args:
        real, fake: Scores (N,).
        loss: One of :data:`LOSSES`.

    Raises:
        ValueError: If the loss is unknown.
    """
    if loss == "cwgan_gp":
        return fake.mean() - real.mean()
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    raise ValueError(f"LOSS is {loss!r}; it must be one of {', '.join(LOSSES)}.")


def generator(fake: Tensor) -> Tensor:
    """Loss of the generator, the same for both: minus the mean score (N,) of its photographs."""
    return -fake.mean()


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
    """Mean of (norm of the critic's gradient - 1)^2 at random points between real and generated photographs.

    Gulrajani et al. 2017, equation 3, without its weight. It is computed in float32 whatever the precision around it.

    Args:
        score: The critic as a function of photographs (N, ...) alone, to scores (N,).
        real, fake: Photographs (N, ...); the k-th of both are mixed.
        shares: (N,) from 0 to 1, the share of the real one.

    Returns:
        A scalar that can be differentiated with respect to the critic.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = shares.view(-1, *[1] * (real.ndim - 1))
        mixed = (share * real.detach().float() + (1 - share) * fake.detach().float()).requires_grad_(True)
        [gradient] = torch.autograd.grad(score(mixed).sum(), mixed, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
